"""The built-in detectors, by group."""

from __future__ import annotations

from typing import Final

from policies.redact.detector import Detector
from policies.redact.groups import context, forms, generic, network, pii, project, services

GROUPS: Final[dict[str, tuple[Detector, ...]]] = {
    "secrets": services.DETECTORS + generic.DETECTORS + context.DETECTORS + forms.DETECTORS,
    "pii": pii.DETECTORS,
    "network": network.DETECTORS,
    "project": project.DETECTORS,
}
BY_NAME: Final[dict[str, Detector]] = {d.name: d for detectors in GROUPS.values() for d in detectors}
