"""The typed model of llm.yml: what every part of the sidecar reads its settings from.

Attribute names are the keys of the file. Everything is frozen; a reload builds a new :class:`Config`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from policies.base import Policy, PolicyConfig
from proxy.config.auth import AuthSettings
from proxy.config.expectation import Name, PolicyTest
from proxy.config.parameters import Parameters
from proxy.config.route import ModelRoute, RouteTarget
from proxy.config.units import Duration, Size
from proxy.providers.base import Provider, ProviderSettings, Strict

__all__ = [
    "Address", "Config", "Feature", "ModelRoute", "Name", "PolicyEntry", "PolicyTest", "Price", "ProviderEntry", "RateSettings",
    "RouteTarget", "ServerSettings", "StoreSettings", "TeamSettings", "TelemetrySettings", "UsageSettings",
    "UserSettings",
]  # fmt: skip

_HOST = re.compile(r"[A-Za-z0-9_.:%-]+")
LOOPBACK = ("localhost", "::1")
#: The most that a limit can say: sums of it still fit every store's integers.
MOST = 10**15


class Address(NamedTuple):
    """Where a listener is bound. ``str()`` gives ``host:port``."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Return whether only this machine (or pod) can reach it."""
        return self.host in LOOPBACK or self.host.startswith("127.")

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _host(host: str) -> bool:
    """Return whether a listener can be bound to ``host``: a name, or an address that exists."""
    if ":" in host or not host.strip("0123456789."):
        try:
            ip_address(host)
        except ValueError:
            return False
    return _HOST.fullmatch(host) is not None


def parse_address(value: Any) -> Address:
    """Return the address in ``127.0.0.1:8080``, ``localhost:8080`` or ``[::1]:8080``."""
    if isinstance(value, Address):
        return value
    if isinstance(value, str):
        host, colon, port = value.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        plain = host and ":" not in host and not host.startswith("[")
        if (
            colon
            and (bracketed or plain)
            and _host(host.strip("[]"))
            and port.isascii()
            and port.isdigit()
            and int(port) < 65536
        ):
            return Address(host.strip("[]"), int(port))
    raise ValueError("an address is a host and a port, such as 127.0.0.1:8080 or [::1]:8080")


ListenAddress = Annotated[Address, BeforeValidator(parse_address, json_schema_input_type=str)]
#: Values that end up as metric labels and log fields.
Feature = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]


class ServerSettings(Strict):
    """``server:``."""

    listen: ListenAddress = Address("127.0.0.1", 8080)
    ops_listen: ListenAddress | None = None
    secret: SecretStr | None = None
    """None: the runtime takes a random one per start and keeps it over reloads."""
    reuse_port: bool = False
    max_body: Size = Field(20 << 20, ge=1 << 10, le=1 << 30)
    max_in_flight: int = Field(1_000, ge=1, le=1_000_000)
    receive_timeout: Duration = Field(10.0, gt=0)
    keep_alive: Duration = 15.0
    drain_delay: Duration = Field(3.0, le=600)
    shutdown_grace: Duration = Field(20.0, le=86_400)
    metrics: Literal["auth", "open"] = "auth"

    @field_validator("secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError("a secret needs at least 16 characters; `openssl rand -base64 32` makes a good one")
        return value


REDIS = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")


class StoreSettings(Strict):
    """``store:``; a bare string is its ``url``."""

    url: str = Field("memory", repr=False)
    prefix: str = Field("llm:", pattern=r"^[A-Za-z0-9_.:/-]{0,64}$")
    deadline: Duration = Field(0.1, ge=0.005, le=10)

    @property
    def kind(self) -> Literal["memory", "sqlite", "redis"]:
        """Return which driver the URL asks for."""
        if self.url.startswith("sqlite:"):
            return "sqlite"
        return "memory" if self.url == "memory" else "redis"

    @field_validator("url")
    @classmethod
    def _known(cls, url: str) -> str:
        if url == "memory":
            return url
        scheme, _, rest = url.partition("://")
        if scheme == "sqlite":
            if not rest.startswith("/") or rest.endswith("/"):
                raise ValueError("a SQLite file is named with three slashes, such as sqlite:///var/lib/llm.db")
            return url
        if scheme not in REDIS:
            raise ValueError("a store is memory, sqlite:///path, redis://host, rediss://host or redis+sentinel://host")
        from proxy.store.address import parse

        try:
            parse(url)
        except ValueError as error:
            raise ValueError(_sentence(error)) from None
        return url


def _sentence(error: Exception) -> str:
    text = str(error).rstrip(".")
    return f"{text[:1].lower()}{text[1:]}"


class RateSettings(Strict):
    """A rate limit that stands in for the policy's own."""

    requests: int | None = Field(None, ge=1, le=MOST)
    tokens: int | None = Field(None, ge=1, le=MOST)
    per: Duration = Field(60.0, ge=0.001, le=86_400)
    concurrent: int | None = Field(None, ge=1, le=MOST)

    @model_validator(mode="after")
    def _some(self) -> RateSettings:
        if self.requests is None and self.tokens is None and self.concurrent is None:
            raise ValueError("a rate limit needs `requests`, `tokens` or `concurrent`")
        return self


class UserSettings(Strict):
    """What one user of a team has of their own."""

    rate_limit: RateSettings | None = None
    parameters: Parameters = {}
    opt_out: bool = False


class TeamSettings(Strict):
    """An entry of ``teams:``; None or empty means that the policy's own value holds."""

    token_quota: int | None = Field(None, ge=0, le=MOST)
    allowed_models: tuple[Name, ...] | None = None
    budget_usd: float | None = Field(None, ge=0, le=1e8)
    rate_limit: RateSettings | None = None
    parameters: Parameters = {}
    opt_out: bool = False
    users: dict[Name, UserSettings] = {}


class Price(Strict):
    """US dollars per million tokens."""

    input: float = Field(ge=0, le=1e6)
    output: float = Field(ge=0, le=1e6)
    cached_input: float | None = Field(None, ge=0, le=1e6)


class UsageSettings(Strict):
    """How long the usage ledger is kept (seconds), and whether users' names stand in it."""

    keep: Duration = Field(13 * 2_678_400.0, ge=86_400)
    hash_users: bool = False


class TelemetrySettings(Strict):
    """What the sidecar tells about itself. ``enabled: false`` switches ``/metrics`` off."""

    enabled: bool = True
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"WARN": "WARNING", "CRITICAL": "ERROR"}.get(value.upper(), value.upper())
        return value


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """A configured provider; ``absent`` if its key is not set, for the ``reason`` given."""

    name: str
    kind: str
    cls: type[Provider]
    settings: ProviderSettings
    absent: bool = False
    line: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """A listed policy. ``name`` is the built-in's name, or ``package.module:Class``."""

    name: str
    cls: type[Policy[Any]]
    config: PolicyConfig
    enforce: bool = True
    store_down: str = "refuse"
    line: int = 0


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration, checked. ``source`` is its file (``environment`` without one)."""

    source: str
    folder: str
    server: ServerSettings = field(default_factory=ServerSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    auth: AuthSettings | None = None
    default_provider: str = ""
    providers: Mapping[str, ProviderEntry] = field(default_factory=dict)
    models: Mapping[str, ModelRoute] = field(default_factory=dict)
    features: Sequence[str] = ()
    teams: Mapping[str, TeamSettings] = field(default_factory=dict)
    policies: Sequence[PolicyEntry] = ()
    prices: Mapping[str, Price] = field(default_factory=dict)
    usage: UsageSettings = field(default_factory=UsageSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    tests: Sequence[PolicyTest] = ()
    warnings: Sequence[str] = ()
    """Settings that load but deserve a look; `check` prints them."""
    notes: Sequence[str] = ()
    """What `serve` says at start: absent providers, no auth, a random secret."""
    files: Sequence[str] = ()
    """Every file the configuration depends on, full paths, there or not: llm.yml, the .env files, `${file:…}`."""
    secrets: Sequence[str] = field(default=(), repr=False)
    """Every secret value in the file, for scrubbing logs and error texts."""

    def policy(self, name: str) -> PolicyEntry | None:
        """Return the listed policy of that name."""
        return next((entry for entry in self.policies if entry.name == name), None)
