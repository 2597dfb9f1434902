"""``auth:``, who may call and what for."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, StringConstraints, field_validator, model_validator

from proxy.config.problem import did_you_mean, listed
from proxy.providers.base import Strict

PERMISSIONS: Final = ("llm:generate", "llm:train", "llm:view", "llm:manage")
ROLES: Final[dict[str, tuple[str, ...]]] = {
    "generate": ("llm:generate",),
    "train": ("llm:generate", "llm:train"),
    "view": ("llm:view",),
    "manage": ("llm:generate", "llm:train", "llm:view", "llm:manage"),
}
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")


def parse_moment(value: Any) -> datetime:
    """Return the moment in ``2027-01-01`` (that day's beginning, UTC) or an RFC 3339 time."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        try:
            if len(value) == 10:
                return datetime.combine(date.fromisoformat(value), time(), UTC)
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        except ValueError:
            pass
    raise ValueError('a date is written "2027-01-01", a moment "2027-01-01T12:00:00Z"')


Moment = Annotated[datetime, BeforeValidator(parse_moment, json_schema_input_type=str)]
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")]
TeamName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.@:-]{1,64}$")]


class KeySettings(Strict):
    """A client key: its hash, or the key itself from the environment."""

    id: Id
    hash: str | None = None
    key: SecretStr | None = None
    team: TeamName = "default"
    user: str | None = Field(None, min_length=1, max_length=256)
    roles: tuple[str, ...] = ("generate",)
    on_behalf: bool = False
    expires: Moment | None = None

    @field_validator("hash")
    @classmethod
    def _sha256(cls, value: str | None) -> str | None:
        if value is not None and not _HASH.fullmatch(value):
            raise ValueError("a hash is `sha256:` and 64 hexadecimal digits; `llm-sidecar keys new` prints it")
        return value

    @field_validator("key")
    @classmethod
    def _strong(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return value
        text = value.get_secret_value()
        if len(text) < 16:
            raise ValueError("a client key needs at least 16 characters; `llm-sidecar keys new` makes one")
        if text != text.strip() or not text.isprintable():
            raise ValueError("no request could carry this key: it begins or ends with white space, or is not printable")
        return value

    @model_validator(mode="after")
    def _either(self) -> KeySettings:
        if (self.hash is None) == (self.key is None):
            raise ValueError("give either `hash` or `key`; `llm-sidecar keys new` makes both")
        return self


class AuthSettings(Strict):
    """``auth:``. ``roles`` holds the default roles too; ``unknown_team`` is settled once loaded."""

    keys: tuple[KeySettings, ...] = Field(min_length=1)
    unknown_team: Literal["default", "refuse"] | None = None
    roles: dict[Id, tuple[str, ...]] = Field(ROLES, validate_default=True)

    @field_validator("roles")
    @classmethod
    def _known(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for role, permissions in value.items():
            for permission in permissions:
                if permission not in PERMISSIONS:
                    near = did_you_mean(permission, PERMISSIONS)
                    hint = f"; did you mean `{near}`?" if near else f"; there are {listed(PERMISSIONS, 'and')}"
                    raise ValueError(f"role `{role}`: there is no permission `{permission}`{hint}")
        return {**ROLES, **value}

    def permissions(self, key: KeySettings) -> frozenset[str]:
        """Return what ``key`` may do: the union of its roles."""
        return frozenset(permission for role in key.roles for permission in self.roles[role])
