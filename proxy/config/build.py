"""A parsed, expanded document → a :class:`Config`, section by section, every mistake noted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretStr

from policies import registry as policies
from policies.base import Policy
from proxy.config import custom, plugins
from proxy.config.auth import AuthSettings, KeySettings
from proxy.config.document import Document
from proxy.config.expand import Expander, Unset
from proxy.config.model import (
    Config,
    Feature,
    ModelRoute,
    Name,
    PolicyEntry,
    PolicyTest,
    Price,
    ProviderEntry,
    ServerSettings,
    StoreSettings,
    TeamSettings,
    TelemetrySettings,
    UsageSettings,
)
from proxy.config.problem import Path, did_you_mean
from proxy.config.validate import Validator
from proxy.providers import registry as providers
from proxy.providers.base import Provider, ProviderSettings

SECTIONS: Final[dict[str, Any]] = {
    "server": ServerSettings,
    "store": StoreSettings,
    "auth": AuthSettings,
    "default_provider": Name,
    "providers": None,
    "models": ModelRoute,
    "features": tuple[Feature, ...],
    "teams": TeamSettings,
    "policies": None,
    "prices": Price,
    "usage": UsageSettings,
    "telemetry": TelemetrySettings,
    "tests": PolicyTest,
}
"""The top-level keys with their types (providers and policies have one per entry)."""

NAMED: Final = frozenset(("models", "teams", "prices"))
"""Sections of named entries: each is validated by itself, so that one mistake hides no other."""

LATER: Final[dict[Path, str]] = {
    ("audit",): "this version writes the audit record to its log only; take the section out",
    ("auth", "jwt"): "this version does not check JWTs yet; use `keys`",
    ("telemetry", "otlp_endpoint"): "this version does not export traces yet; take the key out",
}
"""Keys of the contract whose machinery comes with a later version."""

#: Keys that every entry under ``policies:`` may have besides the policy's own settings.
COMMON: Final = ("enforce", "store_down")


class Builder:
    """Build the configuration of one document."""

    def __init__(self, document: Document, environ: Mapping[str, str], folder: str) -> None:
        self.document = document
        self.folder = folder
        self.environ = environ
        self.expander = Expander(document, environ, folder)
        self.validator = Validator(document, self.expander.whole, self.expander.touched, self.expander.broken)
        self.secrets: list[str] = []
        self.classes: dict[str, type[Policy[Any]]] = {}
        """The listed policies' classes, also of those whose settings are wrong."""

    def build(self) -> Config:
        """Return the configuration; it is only usable if the document has no problems afterwards."""
        raw = self._take_later({k: v for k, v in self.document.tree.items() if not k.startswith("x-")})
        tree: dict[str, Any] = raw
        if self.document.expands:
            tree = {key: self.expander.expand(value, (key,)) for key, value in raw.items()}
        for key in tree:
            if key not in SECTIONS:
                near = did_you_mean(key, SECTIONS)
                advice = "" if near else " (keys of your own begin with `x-`)"
                self.document.add((key,), f"unknown section{advice}", near)
        # An empty section is as good as none.
        tree = {key: value for key, value in tree.items() if value is not None and key in SECTIONS}
        parts: dict[str, Any] = {}
        for key, annotation in SECTIONS.items():
            if annotation is None or key not in tree:
                continue
            value = self._section(key, annotation, tree[key])
            if value is not None:
                parts[key] = value
        parts["server"] = self._server(parts.get("server", ServerSettings()))
        parts["providers"] = self._providers(tree.get("providers"))
        parts["policies"] = self._policies(tree.get("policies"))
        self._collect(parts["server"].secret)
        self._collect(*_passwords(parts["store"] if "store" in parts else StoreSettings()))
        for key_settings in parts["auth"].keys if "auth" in parts else ():
            self._collect(key_settings.key)
        return Config(self.document.file, self.folder, secrets=tuple(dict.fromkeys(self.secrets)), **parts)

    def _take_later(self, tree: dict[str, Any]) -> dict[str, Any]:
        for path, message in LATER.items():
            node: Any = tree
            for step in path[:-1]:
                node = node.get(step) if type(node) is dict else None
            if type(node) is dict and path[-1] in node:
                self.document.add(path, message)
                if len(path) == 1:
                    tree = {key: value for key, value in tree.items() if key != path[0]}
                else:
                    tree = {**tree, str(path[0]): {k: v for k, v in node.items() if k != path[1]} or None}
        return tree

    def _section(self, key: str, annotation: Any, raw: Any) -> Any:
        path: Path = (key,)
        if key in NAMED:
            if type(raw) is not dict:
                self.document.add(path, "this must be keys with values, one key per entry")
                return None
            return self._entries(annotation, raw, path)
        if key == "tests":
            if type(raw) is not list:
                self.document.add(path, "this must be a list; begin each test with `- `")
                return None
            found = [self.validator.validate(annotation, item, (key, i)) for i, item in enumerate(raw)]
            return tuple(value for value in found if value is not None)
        if key == "store" and isinstance(raw, str | Unset):
            raw = {"url": raw}
        if key == "auth" and type(raw) is dict and type(raw.get("keys")) is list:
            # Key by key, so that one mistake hides no other.
            keys = [self.validator.validate(KeySettings, item, (key, "keys", i)) for i, item in enumerate(raw["keys"])]
            found = [item for item in keys if item is not None]
            raw = {**raw, "keys": found} if found or not keys else {k: v for k, v in raw.items() if k != "keys"}
            if keys and not found:
                return None
        return self.validator.validate(annotation, raw, path)

    def _entries(self, annotation: Any, raw: dict[str, Any], path: Path) -> dict[str, Any]:
        result = {}
        for name, item in raw.items():
            if len(name) > 128 or not name.isprintable():
                self.document.add((*path, name[:40]), "a name has at most 128 printable characters")
                continue
            if name != name.strip():
                self.document.add((*path, name), "a name must not begin or end with a blank", name.strip() or None)
                continue
            # `team-a:` with nothing below it is listed, with no values of its own.
            value = self.validator.validate(annotation, {} if item is None else item, (*path, name))
            if value is not None:
                result[name] = value
        return result

    def _collect(self, *secrets: SecretStr | None) -> None:
        self.secrets.extend(value for secret in secrets if secret and len(value := secret.get_secret_value()) >= 6)

    def _server(self, server: ServerSettings) -> ServerSettings:
        """Take ``LLM_SIDECAR_SECRET`` where the file says nothing about the secret."""
        value = self.environ.get("LLM_SIDECAR_SECRET", "").strip()
        if server.secret is not None or not value:
            return server
        self.document.names[("server", "secret")] = "LLM_SIDECAR_SECRET"
        found = self.validator.validate(ServerSettings, {"secret": value}, ("server",))
        return server if found is None else server.model_copy(update={"secret": found.secret})

    # --- providers -------------------------------------------------------------------------------------

    def _providers(self, raw: Any) -> dict[str, ProviderEntry]:
        result: dict[str, ProviderEntry] = {}
        if raw is None:
            return result
        if type(raw) is not dict:
            self.document.add(("providers",), "this must be keys with values, one key per provider")
            return result
        for name, settings in raw.items():
            entry = self._provider(name, {} if settings is None else settings)
            if entry is not None:
                result[name] = entry
        return result

    def _provider(self, name: str, raw: Any) -> ProviderEntry | None:
        path: Path = ("providers", name)
        if type(raw) is not dict:
            self.document.add(path, "this must be keys with values, such as `api_key`")
            return None
        if not name.replace("_", "").replace("-", "").replace(".", "").isalnum() or len(name) > 64:
            self.document.add(path, "a provider's name has letters, digits, `_`, `-` and `.` only")
            return None
        kind = raw.get("kind", name)
        place: Path = (*path, "kind") if "kind" in raw else path
        try:
            cls = plugins.find(str(kind), providers.BUILTIN, Provider, "kind of provider")
        except plugins.NotFound as error:
            message = str(error)
            if "kind" not in raw and error.suggestion is None and kind not in providers.BUILTIN:
                message = f"`{name}` is not the name of a kind of provider, so say which it is with `kind:`, " \
                    "such as `kind: openai` for a server that speaks OpenAI's API"  # fmt: skip
            self.document.add(place, message, error.suggestion)
            return None
        tried = "api_key" in raw
        before = len(self.document.problems)
        raw, absent, reason = self._key(raw, path)
        settings = self.validator.validate(cls.Settings, raw, path, absent=absent)
        if settings is None:
            settings = ProviderSettings()
        self._collect(*settings.api_key)
        self._printable(settings, path)
        # The environment alone has said which variable is missing.
        wanting = (
            cls.needs_key and self.document.expands and not (absent or tried or settings.api_key or settings.base_url)
        )
        # A mistake in the entry may be the mistyped key itself.
        if wanting and len(self.document.problems) == before:
            self.document.add(path, "this provider needs an `api_key`, such as "
                              f"`${{{name.upper().replace('-', '_').replace('.', '_')}_API_KEY}}`")  # fmt: skip
        return ProviderEntry(name, str(kind), cls, settings, absent, self.document.line(path), reason)

    def _key(self, raw: dict[str, Any], path: Path) -> tuple[dict[str, Any], bool, str]:
        """Return the entry without unset keys, whether that leaves none, and why."""
        if "api_key" not in raw:
            return raw, False, ""
        if any(path == broken[:2] and broken[2:3] == ("api_key",) for broken in self.expander.broken):
            return {key: item for key, item in raw.items() if key != "api_key"}, False, ""
        value = raw["api_key"]
        if not isinstance(value, str | list | Unset | None):
            message = "an API key is a text, or a list of them"
            if isinstance(value, int | float) and not isinstance(value, bool):
                message += "; quote it"
            self.document.add((*path, "api_key"), message)
            return {key: item for key, item in raw.items() if key != "api_key"}, False, ""
        keys = value if type(value) is list else [value]
        kept = [key for key in keys if not isinstance(key, Unset) and key not in (None, "")]
        if len(kept) == len(keys):
            return raw, False, ""
        unset = next((key for key in keys if isinstance(key, Unset)), None)
        reason = unset.reason if unset else "its api_key is empty"
        if unset and unset.suggestion:
            reason += f"; did you mean {unset.suggestion}?"
        rest = {key: item for key, item in raw.items() if key != "api_key"}
        if kept:
            return {**rest, "api_key": kept}, False, ""
        return rest, True, reason

    def _printable(self, settings: ProviderSettings, path: Path) -> None:
        for key in settings.api_key:
            text = key.get_secret_value()
            if not text.isascii() or not text.isprintable() or " " in text:
                self.document.add((*path, "api_key"), "an API key has no blanks, line breaks or other than ASCII")
        for header, value in settings.headers.items():
            if not header.replace("-", "").replace("_", "").isalnum() or not (value.isascii() and value.isprintable()):
                self.document.add((*path, "headers", header), "a header's name and value must be plain ASCII text")

    # --- policies --------------------------------------------------------------------------------------

    def _policies(self, raw: Any) -> tuple[PolicyEntry, ...]:
        if raw is None:
            return ()
        if type(raw) is not list:
            self.document.add(("policies",), "this must be a list; begin each policy with `- `")
            return ()
        found = [self._policy(item, i) for i, item in enumerate(raw)]
        return tuple(entry for entry in found if entry is not None)

    def _policy(self, item: Any, index: int) -> PolicyEntry | None:
        path: Path = ("policies", index)
        if isinstance(item, str):
            item = {item: None}
        if type(item) is not dict or len(item) != 1:
            message = "an entry is a policy's name, or one name with its settings: `- quota: {tokens: 100_000}`"
            if type(item) is dict and len(item) > 1:
                message += "; indent the settings below the name, and begin the next policy with `- `"
            self.document.add(path, message)
            return None
        ((name, raw),) = item.items()
        path = (*path, name)
        settings = {} if raw is None else raw
        try:
            cls: type[Policy[Any]] = plugins.find(name, policies.BUILTIN, Policy, "policy")
        except plugins.NotFound as error:
            self.document.add(path, str(error), error.suggestion)
            return None
        if wrong := list(custom.flaws(cls)):
            for sentence in wrong:
                self.document.add(path, f"`{name}` cannot work: {sentence}")
            return None
        self.classes.setdefault(name, cls)
        if type(settings) is not dict:
            self.document.add(path, "a policy's settings are keys with values")
            return None
        common = self._common(cls, settings, path)
        own = {key: value for key, value in settings.items() if key not in COMMON}
        config = self.validator.validate(cls.Config, own, path, extra_keys=COMMON)
        if config is None:
            return None
        return PolicyEntry(name, cls, config, common["enforce"], common["store_down"], self.document.line(path))

    def _common(self, cls: type[Policy[Any]], settings: dict[str, Any], path: Path) -> dict[str, Any]:
        common: dict[str, Any] = {"enforce": True, "store_down": cls.store_down_default}
        if "enforce" in settings:
            value = self.validator.validate(bool, settings["enforce"], (*path, "enforce"))
            common["enforce"] = value is not False
        if "store_down" in settings:
            value = settings["store_down"]
            if not cls.keeps_state:
                self.document.add((*path, "store_down"), "this policy keeps no state; take the key out")
            elif value not in ("refuse", "allow"):
                near = did_you_mean(str(value), ("refuse", "allow"))
                self.document.add((*path, "store_down"), "this must be `refuse` or `allow`", near)
            else:
                common["store_down"] = value
        return common


def _passwords(store: StoreSettings) -> list[SecretStr]:
    if store.kind != "redis":
        return []
    from proxy.store.address import parse

    address = parse(store.url)
    return [SecretStr(password) for password in (address.password, address.sentinel_password) if password]
