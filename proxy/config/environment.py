"""A configuration from environment variables alone (contract 1).

The variables become the tree that an llm.yml would have, so that everything behind it is the same; each
path remembers its variable, so that a mistake names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from proxy.config.document import Document, scalar
from proxy.config.problem import Path, did_you_mean, listed
from proxy.config.units import parse_duration

SOURCE: Final = "environment"
KINDS: Final = ("openai", "azure_openai", "anthropic", "gemini")
"""The providers that the environment can configure; the first with a key is the default."""

#: Provider → setting → variables, the first that is set counts.
_PROVIDER: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "openai": {
        "api_key": ("OPENAI_API_KEY",),
        "model": ("OPENAI_MODEL",),
        "organization_id": ("OPENAI_ORG_ID",),
        "base_url": ("OPENAI_BASE_URL",),
    },
    "azure_openai": {
        "api_key": ("AZURE_OPENAI_API_KEY",),
        "azure_endpoint": ("AZURE_OPENAI_ENDPOINT",),
        "azure_deployment": ("AZURE_OPENAI_DEPLOYMENT",),
        "api_version": ("AZURE_OPENAI_API_VERSION",),
    },
    "anthropic": {"api_key": ("ANTHROPIC_API_KEY",), "model": ("ANTHROPIC_MODEL",)},
    "gemini": {
        "api_key": ("GOOGLE_GEMINI_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"),
        "model": ("GEMINI_MODEL",),
    },
}
#: Settings that LLM_* variables give to the default provider, where its own variables do not.
_DEFAULT: Final = {"api_key": "LLM_API_KEY", "model": "LLM_MODEL", "base_url": "LLM_BASE_URL"}
#: Settings that LLM_* variables give to every provider.
_EVERY: Final = {"max_tokens": "LLM_MAX_TOKENS", "temperature": "LLM_TEMPERATURE", "timeout": "LLM_TIMEOUT"}
_OTHER: Final = (
    "LLM_PROVIDER", "LLM_LOG_LEVEL", "LLM_ENABLE_TELEMETRY", "LLM_KEY_ROTATION_INTERVAL", "LLM_ALLOWED_MODELS",
    "LLM_RATE_LIMIT_REQUESTS", "LLM_RATE_LIMIT", "LLM_RATE_LIMIT_WINDOW", "LLM_MAX_PROMPT_TOKENS", "LLM_CACHE_TTL",
    "LLM_CACHE_MAX_ITEMS",
)  # fmt: skip
SIDECAR: Final = (
    "LLM_SIDECAR_CONFIG", "LLM_SIDECAR_SECRET", "LLM_SIDECAR_FERNET_KEYS", "LLM_SIDECAR_URL", "LLM_SIDECAR_KEY",
)  # fmt: skip
VARIABLES: Final = (
    *(name for settings in _PROVIDER.values() for names in settings.values() for name in names),
    *_DEFAULT.values(), *_EVERY.values(), *_OTHER, *SIDECAR,
)  # fmt: skip
"""Every variable that means something."""
ALONE: Final = (*_DEFAULT.values(), *_EVERY.values(), *_OTHER)
"""Those that are this program's own and count only where there is no file: other programs read OPENAI_* and the like."""

_TRUE: Final = frozenset(("1", "true", "yes", "on"))
_FALSE: Final = frozenset(("0", "false", "no", "off"))
_PREFIXES: Final = ("LLM_", "OPENAI_", "ANTHROPIC_", "AZURE_OPENAI_", "GEMINI_", "GOOGLE_GEMINI_")


def document(environ: Mapping[str, str]) -> Document:
    """Return the document that the variables stand for."""
    return _Reader(environ).read()


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        # A variable set to nothing is as good as not set: that is how compose files leave one out.
        self.values = {name: value.strip() for name, value in environ.items() if value.strip()}
        # What a variable holds is a value as it is, never an expansion.
        self.document = Document(SOURCE, {}, expands=False)
        self.names = self.document.names

    def read(self) -> Document:
        self._misspelt()
        default = self._default()
        providers = {name: self._provider(name, name == default) for name in (*KINDS, "other", "echo")}
        chosen = {name: settings for name, settings in providers.items() if settings is not None}
        if default in chosen:
            chosen = {default: chosen[default], **chosen}
        tree: dict[str, Any] = {"providers": chosen}
        if default:
            tree["default_provider"] = default
            self.names[("default_provider",)] = "LLM_PROVIDER" if "LLM_PROVIDER" in self.values else ""
        if policies := self._policies():
            tree["policies"] = policies
        telemetry: dict[str, Any] = {}
        self._put(telemetry, "log_level", "LLM_LOG_LEVEL", ("telemetry",))
        if (enabled := self._flag("LLM_ENABLE_TELEMETRY")) is not None:
            telemetry["enabled"] = enabled
        if telemetry:
            tree["telemetry"] = telemetry
        self.document.tree = tree
        return self.document

    def _bad(self, name: str, message: str, suggestion: str | None = None) -> None:
        path: Path = ("environment", name)
        self.names[path] = name
        self.document.add(path, message, suggestion)

    def _misspelt(self) -> None:
        """Refuse near misses: a mistyped LLM_RATE_LIMIT would switch its protection off silently."""
        for name in sorted(self.values):
            if name.startswith(_PREFIXES) and name not in VARIABLES:
                near = did_you_mean(name, VARIABLES, 0.85)
                if near is not None and near not in self.values:
                    self._bad(name, "this variable means nothing to llm-sidecar", near)

    def _choice(self, name: str) -> str:
        """Return a variable's value; of a template's ``a|b|other`` the first word (the seed's example)."""
        return self.values.get(name, "").split("|")[0].strip()

    def _default(self) -> str:
        name = self._choice("LLM_PROVIDER").lower()
        if name:
            known = (*KINDS, "other", "echo")
            if name not in known:
                self._bad("LLM_PROVIDER", f"this must be {listed(known)}", did_you_mean(name, known))
                return ""
            return name
        for kind in KINDS:
            if any(variable in self.values for variable in _PROVIDER[kind]["api_key"]):
                return kind
        if "LLM_BASE_URL" in self.values:
            return "other"
        if "LLM_API_KEY" in self.values:
            return "openai"
        self.document.add(
            (),
            "there is no llm.yml and no provider in the environment: set OPENAI_API_KEY, AZURE_OPENAI_API_KEY, "
            "ANTHROPIC_API_KEY or GEMINI_API_KEY, or LLM_PROVIDER with LLM_API_KEY",
        )
        return ""

    def _provider(self, name: str, default: bool) -> dict[str, Any] | None:
        """Return a provider's settings, None if the environment does not speak of it."""
        path: Path = ("providers", name)
        settings: dict[str, Any] = {}
        variables = _PROVIDER.get(name, {})
        if name == "azure_openai":
            # What is missing in the entry as a whole can only be this.
            self.names[path] = "AZURE_OPENAI_ENDPOINT"
        for key, names in variables.items():
            self._put(settings, key, next((n for n in names if n in self.values), names[0]), path)
        if default:
            for key, variable in _DEFAULT.items():
                if key not in settings:
                    self._put(settings, key, variable, path)
            if name == "other":
                settings["kind"] = "openai"
                if "base_url" not in settings:
                    self._bad("LLM_PROVIDER", "`other` needs LLM_BASE_URL, the address of a server with OpenAI's API")
            elif name != "echo" and "api_key" not in settings and "base_url" not in settings:
                wanted = " or ".join((*variables["api_key"], "LLM_API_KEY"))
                self._bad("LLM_PROVIDER", f"the default provider `{name}` has no key; set {wanted}")
        elif "api_key" not in settings:
            return None
        for key, variable in _EVERY.items():
            self._put(settings, key, variable, path, number=True)
        if (days := self._number("LLM_KEY_ROTATION_INTERVAL")) is not None:
            settings["key_rotation_interval"] = days * 86_400
        return settings

    def _policies(self) -> list[Any]:
        """Return the policies that variables switch on, in the recommended order."""
        result: list[Any] = []
        if "LLM_ALLOWED_MODELS" in self.values:
            self._policy(result, "allowlist", {"models": self._models()}, "LLM_ALLOWED_MODELS")
        if (limit := self._number("LLM_MAX_PROMPT_TOKENS")) is not None:
            self._policy(result, "prompt_limit", {"max_tokens": limit}, "LLM_MAX_PROMPT_TOKENS")
        name = "LLM_RATE_LIMIT_REQUESTS" if "LLM_RATE_LIMIT_REQUESTS" in self.values else "LLM_RATE_LIMIT"
        if (limit := self._number(name)) is not None:
            settings: dict[str, Any] = {"requests": limit, "by": "user"}
            if (window := self._seconds("LLM_RATE_LIMIT_WINDOW")) is not None:
                settings["per"] = window
            self._policy(result, "rate_limit", settings, name, {"per": "LLM_RATE_LIMIT_WINDOW"})
        elif "LLM_RATE_LIMIT_WINDOW" in self.values and name not in self.values:
            self._bad("LLM_RATE_LIMIT_WINDOW", "a window limits nothing without LLM_RATE_LIMIT_REQUESTS; set it too")
        if (ttl := self._seconds("LLM_CACHE_TTL")) is not None and ttl > 0:
            # Only sanitised text is cached.
            self._policy(result, "redact", {}, "LLM_CACHE_TTL")
            settings = {"ttl": ttl}
            if (items := self._number("LLM_CACHE_MAX_ITEMS")) is not None:
                settings["max_items"] = items
            self._policy(result, "cache", settings, "LLM_CACHE_TTL", {"max_items": "LLM_CACHE_MAX_ITEMS"})
        elif "LLM_CACHE_MAX_ITEMS" in self.values and "LLM_CACHE_TTL" not in self.values:
            self._bad("LLM_CACHE_MAX_ITEMS", "nothing is cached without LLM_CACHE_TTL; set it too")
        return result

    def _policy(
        self, result: list[Any], name: str, settings: dict[str, Any], variable: str, others: Mapping[str, str] = {}
    ) -> None:
        path: Path = ("policies", len(result), name)
        self.names[path] = variable
        for key, other in others.items():
            self.names[(*path, key)] = other
        result.append({name: settings})

    def _models(self) -> list[str]:
        """Return LLM_ALLOWED_MODELS: a JSON list, or names between commas."""
        text = self.values["LLM_ALLOWED_MODELS"]
        if text.startswith("["):
            try:
                value = json.loads(text)
            except ValueError:
                value = None
            if isinstance(value, list) and value and all(isinstance(item, str) and item for item in value):
                return value
        elif names := [name for part in text.split(",") if (name := part.strip())]:
            return names
        self._bad("LLM_ALLOWED_MODELS", 'this must be a JSON list such as ["gpt-4o", "claude-*"], or names with commas')
        return ["*"]

    def _put(self, settings: dict[str, Any], key: str, variable: str, path: Path, *, number: bool = False) -> None:
        if variable not in self.values:
            return
        text = self._choice(variable) if key == "model" else self.values[variable]
        self.names[(*path, key)] = variable
        settings[key] = scalar(text) if number else text

    def _number(self, variable: str) -> Any:
        if variable not in self.values:
            return None
        value = scalar(self.values[variable])
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return value
        self._bad(variable, f'this must be a number above 0, not "{self.values[variable][:40]}"')
        return None

    def _seconds(self, variable: str) -> float | None:
        if variable not in self.values:
            return None
        try:
            return parse_duration(self.values[variable])
        except ValueError as error:
            self._bad(variable, str(error))
            return None

    def _flag(self, variable: str) -> bool | None:
        text = self.values.get(variable, "").lower()
        if not text:
            return None
        if text not in _TRUE | _FALSE:
            self._bad(variable, f'this must be true or false, not "{text[:40]}"')
        return text in _TRUE
