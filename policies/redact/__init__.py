"""Redaction: finds secrets and personal data in what goes out and comes back, and masks them."""

from policies.redact.policy import Redact
from policies.redact.whole import redact_text

__all__ = ["Redact", "redact_text"]
