"""llm-sidecar: a reverse proxy that speaks the OpenAI API and enforces what llm.yml declares."""

__version__ = "0.1.0"
