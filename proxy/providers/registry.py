"""The built-in providers by kind; imported only when configured."""

from __future__ import annotations

from typing import Final

BUILTIN: Final[dict[str, str]] = {
    "openai": "proxy.providers.openai:OpenAI",
    "azure_openai": "proxy.providers.azure_openai:AzureOpenAI",
    "anthropic": "proxy.providers.anthropic:Anthropic",
    "gemini": "proxy.providers.gemini:Gemini",
    "echo": "proxy.providers.echo:Echo",
}
"""Kind in llm.yml → where its class lives."""
