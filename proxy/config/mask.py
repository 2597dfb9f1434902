"""The configuration as /admin/config shows it: everything but secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, SecretBytes, SecretStr

from proxy.config.model import Address, Config, RouteTarget

MASK: Final = "***"
#: Keys whose values may hold secrets although their type does not say so.
_SENSITIVE: Final = re.compile(
    r"(?i)(^|_)(key|secret|token|password|passwd|webhook|hash)$|^headers$|authorization|credential"
)
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)|(?<=_password=)[^&\s]+")


def masked(config: Config) -> dict[str, Any]:
    """Return the configuration as JSON-ready values in llm.yml's shape, each secret as ``"***"``."""
    secrets = config.secrets
    dump: dict[str, Any] = {
        "source": config.source,
        "server": config.server,
        "store": config.store,
        "auth": config.auth,
        "default_provider": config.default_provider,
        "providers": {name: _provider(entry) for name, entry in config.providers.items()},
        "models": config.models,
        "features": config.features,
        "teams": config.teams,
        "policies": [
            {entry.name: {"config": entry.config, "enforce": entry.enforce, "store_down": entry.store_down}}
            for entry in config.policies
        ],
        "prices": config.prices,
        "usage": config.usage,
        "telemetry": config.telemetry,
        "tests": len(config.tests),
        "warnings": config.warnings,
        "notes": config.notes,
    }
    # Policies' entries read as in the file.
    plain: dict[str, Any] = _plain(dump, secrets)
    for row in plain["policies"]:
        for name, entry in row.items():
            row[name] = {**(entry.pop("config") or {}), **entry}
    return plain


def _provider(entry: Any) -> dict[str, Any]:
    return {**dict(entry.settings), "kind": entry.kind, "present": not entry.absent}


def _plain(value: Any, secrets: tuple[str, ...] | list[str] | Any, key: str = "") -> Any:
    if isinstance(value, SecretStr | SecretBytes):
        return MASK
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _text(value, secrets, key)
    if isinstance(value, Address):
        return str(value)
    if isinstance(value, RouteTarget):
        return {"to": value.to, "weight": value.weight}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, BaseModel):
        names = {name: info.alias or name for name, info in type(value).model_fields.items()}
        return {names[name]: _plain(item, secrets, names[name]) for name, item in value if name in names}
    if isinstance(value, Mapping):
        sensitive = bool(key) and _SENSITIVE.search(key) is not None
        return {str(name): MASK if sensitive else _plain(item, secrets, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, secrets, key) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item, secrets, key) for item in value)
    return _text(str(value), secrets, key)


def _text(value: str, secrets: Any, key: str) -> str:
    if key and _SENSITIVE.search(key):
        return MASK
    for secret in secrets:
        if secret in value:
            value = value.replace(secret, MASK)
    return _USERINFO.sub(MASK, value)


__all__ = ["MASK", "masked"]
