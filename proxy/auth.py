"""Who calls: static keys today, one look-up by the whole credential's digest.

Only digests are kept; two credentials share a verdict only if they are equal (E7: caches keyed by a prefix).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from hashlib import blake2b
from typing import Any, Final

from proxy.call import Caller
from proxy.clock import Clock
from proxy.errors import ApiError

GENERATE: Final = "llm:generate"
VIEW: Final = "llm:view"
MANAGE: Final = "llm:manage"
TRAIN: Final = "llm:train"
ALL: Final = frozenset((GENERATE, TRAIN, VIEW, MANAGE))
_NEVER: Final = float("inf")
_SCHEMES: Final = (b"Bearer ", b"bearer ")
#: Origins of pages that this machine serves, and of programs whose windows are no web pages (``app://…``).
_OWN_ORIGIN: Final = re.compile(
    rb"https?://(?:(?:[a-z0-9-]+\.)*localhost|127\.[0-9.]+|\[::1\])(?::[0-9]+)?|(?!https?:)[a-z][a-z0-9+.-]*://.*",
    re.IGNORECASE,
)

#: Hosts that no page can have brought to this machine by its own DNS: addresses, and names that public DNS does not
#: hold (a bare one of /etc/hosts or Docker's; below `localhost`, `internal`, `local`, `test`: RFC 6761, RFC 6762).
_OWN_HOST: Final = re.compile(
    rb"(?:[0-9.]+|\[[^]]+\]|(?:[^.:]+\.)+(?:localhost|internal|local|test)\.?|[^.:]+\.?)(?::[0-9]*)?", re.IGNORECASE
)


def hash_key(key: str) -> str:
    """Return the form in which llm.yml holds a client key: ``sha256:`` and 64 hex digits."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


class Authenticator:
    """Turn a request's headers into a :class:`Caller`, or refuse."""

    __slots__ = ("_clock", "_keys", "_local", "_refuse_unknown", "_salt", "_teams", "_verdicts")

    def __init__(self, auth: Any, teams: Iterable[str], clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[bytes, tuple[Caller, float]] = {}
        self._verdicts: dict[bytes, tuple[Caller, float]] = {}
        self._salt = os.urandom(16)
        self._teams = frozenset(teams)
        self._refuse_unknown = False
        self._local: Caller | None = None
        if auth is None:
            self._local = Caller("local", "default", "local", ALL)
            return
        unknown = auth.unknown_team
        self._refuse_unknown = unknown == "refuse" if unknown else bool(self._teams - {"default"})
        for key in auth.keys:
            permissions = frozenset(p for role in key.roles for p in auth.roles.get(role, ()))
            user = key.user or key.id
            caller = Caller(key.id, key.team or "default", user, permissions, on_behalf=key.on_behalf)
            expires = _end(key.expires)
            digest = (
                bytes.fromhex(key.hash.removeprefix("sha256:"))
                if key.hash
                else hashlib.sha256(key.key.get_secret_value().encode()).digest()
            )
            self._keys[digest] = (caller, expires)

    def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Return the caller of a request with these (lower-case) headers.

        Raises:
            ApiError: ``invalid_api_key``, or ``unknown_team`` for a team named on behalf; ``permission_denied`` for
                another site's web page, or its name, where no key is asked for.
        """
        caller = self._local
        if caller is None:
            credential = headers.get(b"authorization")
            if credential is not None and (credential[:7] in _SCHEMES or credential[:7].lower() == b"bearer "):
                credential = credential[7:].strip()
            else:
                credential = headers.get(b"api-key")
            if not credential:
                raise ApiError(
                    "invalid_api_key", "No API key given; send one as `Authorization: Bearer KEY` or `api-key: KEY`."
                )
            # A salted digest of the whole credential costs a sixth of OpenSSL's SHA-256; unknown ones are not cached.
            short = blake2b(credential, digest_size=16, salt=self._salt).digest()
            found = self._verdicts.get(short)
            if found is None:
                found = self._keys.get(hashlib.sha256(credential).digest())
                if found is not None:
                    self._verdicts[short] = found
            if found is None:
                raise ApiError("invalid_api_key", "The API key is not known here; ask the sidecar's operator for one.")
            caller, expires = found
            if expires != _NEVER and self._clock.time() >= expires:
                raise ApiError("invalid_api_key", "The API key has expired; ask the sidecar's operator for a new one.")
        elif b"origin" in headers and _OWN_ORIGIN.fullmatch(headers[b"origin"]) is None:
            # A browser lets any page post to loopback, though not read the answer: it would spend the operator's money.
            raise ApiError(
                "permission_denied", "A web page may not call a sidecar without client keys; add `auth:` to llm.yml."
            )
        elif b"host" in headers and _OWN_HOST.fullmatch(headers[b"host"]) is None:
            # A page whose own name leads to loopback (DNS rebinding) could read the answer, too, and sends no Origin.
            raise ApiError(
                "permission_denied",
                "A sidecar without client keys is not called by such a host name; call it by an address or `localhost`, "
                "or by a name without a dot, or add `auth:` to llm.yml.",
            )
        if caller.on_behalf and (b"x-llm-user" in headers or b"x-llm-team" in headers):
            return self._for(caller, headers)
        return caller

    def _for(self, caller: Caller, headers: Mapping[bytes, bytes]) -> Caller:
        team = _name(headers.get(b"x-llm-team"), "x-llm-team") or caller.team
        user = _name(headers.get(b"x-llm-user"), "x-llm-user") or caller.user
        if self._refuse_unknown and team != caller.team and team not in self._teams:
            raise ApiError(
                "unknown_team", "The team named by x-llm-team is not listed in llm.yml; use a listed one.",
                param="x-llm-team",
            )  # fmt: skip
        return Caller(caller.key_id, team, user, caller.permissions)


def require(caller: Caller, permission: str) -> None:
    """Raise ``permission_denied`` unless ``caller`` has ``permission``."""
    if permission not in caller.permissions:
        raise ApiError(
            "permission_denied", f"This API key may not do that: it needs the permission {permission}.",
        )  # fmt: skip


def _name(value: bytes | None, header: str) -> str:
    if not value:
        return ""
    try:
        name = value.decode("utf-8").strip()
    except UnicodeDecodeError:
        name = "\0"
    if len(name) > 128 or not name.isprintable() or any(c in name for c in "{}\r\n"):
        raise ApiError("invalid_request", f"`{header}` must be printable text of at most 128 characters.", param=header)
    return name


def _end(expires: Any) -> float:
    """Return when a key ends, in seconds since 1970: a date's last moment is its midnight, UTC."""
    if expires is None:
        return _NEVER
    if isinstance(expires, datetime):
        moment = expires
    elif isinstance(expires, date):
        moment = datetime(expires.year, expires.month, expires.day, tzinfo=UTC)
    else:
        moment = datetime.fromisoformat(str(expires))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()
