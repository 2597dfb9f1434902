"""Named prompt templates: what a prompt says stands in llm.yml; a caller sends a name and variables."""

from policies.template.policy import Template

__all__ = ["Template"]
