"""``default_provider:`` and ``providers:``: addresses, keys, and who is there at all."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from proxy.config.auth import parse_moment
from proxy.config.checks.scope import Scope
from proxy.config.globs import complaint
from proxy.config.model import Address, ProviderEntry
from proxy.config.problem import Path

_PLACEHOLDER: Final = re.compile(r"\.\.\.|(?i:your[_-]|change-?me|placeholder|xxxx)|^<.*>$")


def check(scope: Scope) -> None:
    """Check each provider, then the default one."""
    for name, entry in scope.config.providers.items():
        path: Path = ("providers", name)
        _addresses(scope, entry, path)
        _timeout(scope, entry, path)
        _key_age(scope, entry, path)
        _placeholder(scope, entry, path)
        for i, glob in enumerate(entry.settings.models):
            if (message := complaint(glob)) is not None:
                scope.bad((*path, "models", i), message)
        if entry.absent:
            scope.notes.append(f"The provider `{name}` is absent: {entry.reason}.")
    _default(scope)


def _default(scope: Scope) -> None:
    config = scope.config
    configured = scope.names("providers")
    if not configured:
        if scope.document.expands:
            scope.bad((), "no provider is configured; add `providers:` with at least one, such as `openai:`")
        return
    name = config.default_provider
    if not name:
        if scope.document.tree.get("default_provider") is not None:
            return  # wrong itself
        # Left out: the first that is there, as with the environment alone.
        present = [entry for entry in config.providers.values() if not entry.absent]
        if present:
            scope.config = replace(config, default_provider=present[0].name)
            if present[0] is not next(iter(config.providers.values())):
                scope.notes.append(f"The default provider is `{present[0].name}`, the first that is present.")
        elif config.providers:
            reasons = "; ".join(f"`{entry.name}`: {entry.reason}" for entry in config.providers.values())
            scope.bad(("providers",), f"every provider is absent ({reasons})")
        return
    path: Path = ("default_provider",)
    entry = config.providers.get(name)
    if entry is None:
        if name not in configured:
            scope.bad(path, f"there is no provider `{name}`", name, configured)
    elif entry.absent:
        line = f" (line {entry.line})" if entry.line else ""
        scope.bad(path, f"the provider `{name}`{line} is absent: {entry.reason}")


def _addresses(scope: Scope, entry: ProviderEntry, path: Path) -> None:
    settings: Any = entry.settings
    for key in ("base_url", "azure_endpoint"):
        url = getattr(settings, key, None)
        if url is None or (*path, key) in scope.expander.broken:  # told already
            continue
        parts = _split(url)
        if parts is None:
            scope.bad((*path, key), f"this must be an address such as https://api.example.com{_v1(entry)}")
            continue
        if parts.username or parts.password:
            scope.bad((*path, key), "an address must hold no user name or password; use `api_key` or `headers`")
        if parts.query or parts.fragment:
            scope.bad((*path, key), "an address ends with its path; take the `?` or `#` and what follows out")
        host = parts.hostname or ""
        local = Address(host, 0).loopback
        if parts.scheme == "http" and not local:
            scope.warn((*path, key), f"http:// sends prompts and the API key to {host} unencrypted; use https://")
        listen = scope.config.server.listen
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if local and listen.loopback and port == listen.port:
            scope.bad((*path, key), f"this is the sidecar's own address ({listen}); name the upstream's")
    if settings.proxy is not None and (*path, "proxy") not in scope.expander.broken and _split(settings.proxy) is None:
        scope.bad((*path, "proxy"), "this must be an address such as http://proxy.example.com:3128")
    ca_file = settings.tls.ca_file
    if ca_file is not None:
        scope.authorities((*path, "tls", "ca_file"), ca_file)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        (parts.hostname or "").encode("idna")  # an empty part, or one above 63 characters: no resolver takes it
    except ValueError:
        return None
    return parts if valid and url.isascii() and url.isprintable() and " " not in url else None


def _v1(entry: ProviderEntry) -> str:
    return "/v1" if entry.kind == "openai" else ""


def _timeout(scope: Scope, entry: ProviderEntry, path: Path) -> None:
    timeout = entry.settings.timeout
    if isinstance(timeout, int | float):
        if timeout <= 0:
            scope.bad((*path, "timeout"), "no call can end in no time; give seconds, such as 30")
        return
    for key in type(timeout).model_fields:
        value = getattr(timeout, key)
        if value is not None and value <= 0:
            scope.bad((*path, "timeout", key), "no call can end in no time; give seconds, such as 30")


def _key_age(scope: Scope, entry: ProviderEntry, path: Path) -> None:
    interval = entry.settings.key_rotation_interval
    if interval < 86_400:
        scope.bad((*path, "key_rotation_interval"), "this is less than a day; days are written such as `90d`")
        return
    created = entry.settings.key_created
    if created is None:
        return
    try:
        age = datetime.now(UTC) - parse_moment(created)
    except ValueError as error:
        scope.bad((*path, "key_created"), str(error))
        return
    if age < timedelta(days=-1):
        scope.bad((*path, "key_created"), "this day is yet to come")
    elif age > timedelta(seconds=interval):
        scope.warn((*path, "key_created"), f"the key is {age.days} days old; rotate it")


def _placeholder(scope: Scope, entry: ProviderEntry, path: Path) -> None:
    if any(_PLACEHOLDER.search(key.get_secret_value()) for key in entry.settings.api_key):
        scope.warn((*path, "api_key"), "the key looks like an example's placeholder; put the real one there")
