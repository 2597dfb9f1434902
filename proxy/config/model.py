"""The typed model of llm.yml: what every part of the sidecar reads its settings from.

Attribute names are the keys of the file. Everything is frozen; a reload builds a new :class:`Config`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from policies.base import Policy, PolicyConfig
from proxy.config.auth import AuthSettings
from proxy.config.parameters import Parameters
from proxy.config.units import Duration, Size
from proxy.providers.base import Provider, ProviderSettings, Strict

__all__ = [
    "Address", "Config", "ModelRoute", "PolicyEntry", "PolicyTest", "Price", "ProviderEntry", "RateSettings",
    "RouteTarget", "ServerSettings", "StoreSettings", "TeamSettings", "TelemetrySettings", "UsageSettings",
    "UserSettings",
]  # fmt: skip

LOOPBACK = ("localhost", "::1")


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


def parse_address(value: Any) -> Address:
    """Return the address in ``127.0.0.1:8080``, ``localhost:8080`` or ``[::1]:8080``."""
    if isinstance(value, Address):
        return value
    if isinstance(value, str):
        host, colon, port = value.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        plain = host and ":" not in host and not host.startswith("[")
        if colon and (bracketed or plain) and port.isascii() and port.isdigit() and int(port) < 65536:
            return Address(host.strip("[]"), int(port))
    raise ValueError("an address is a host and a port, such as 127.0.0.1:8080 or [::1]:8080")


ListenAddress = Annotated[Address, BeforeValidator(parse_address, json_schema_input_type=str)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
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


SCHEMES = ("memory", "sqlite", "redis", "rediss", "redis+sentinel")


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
        scheme, separator, rest = url.partition("://")
        if url == "memory" or (separator and scheme in SCHEMES[1:] and rest):
            if scheme == "sqlite" and not rest.startswith("/"):
                raise ValueError("a SQLite file is named with three slashes, such as sqlite:///var/lib/llm.db")
            return url
        raise ValueError("a store is memory, sqlite:///path, redis://host, rediss://host or redis+sentinel://host")


class RouteTarget(NamedTuple):
    """One place that a model name leads to."""

    to: str
    """``provider/model``."""
    weight: float = 1.0


_TARGET_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": "^[^/]+/.+"},
        {
            "type": "object",
            "properties": {
                "to": {"type": "string", "pattern": "^[^/]+/.+"},
                "weight": {"type": "number", "exclusiveMinimum": 0},
            },
            "required": ["to"],
            "additionalProperties": False,
        },
    ]
}


class ModelRoute(Strict):
    """An entry of ``models:``; a string or a list stands for ordered targets."""

    model_config = ConfigDict(
        json_schema_extra=lambda schema: _any_of(
            schema,
            {"type": "string", "pattern": "^[^/]+/.+"},
            {"type": "array", "minItems": 1, "items": _TARGET_SCHEMA},
        )
    )

    strategy: Literal["ordered", "weighted"] = "ordered"
    targets: Annotated[
        tuple[RouteTarget, ...], WithJsonSchema({"type": "array", "minItems": 1, "items": _TARGET_SCHEMA})
    ] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            value = {"targets": value}
        return value

    @field_validator("targets", mode="before")
    @classmethod
    def _targets(cls, value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError("targets must be a list of provider/model")
        return tuple(_target(item) for item in value)


def _any_of(schema: dict[str, Any], *others: dict[str, Any]) -> None:
    """Make a model's schema, in place, one of several forms."""
    own = dict(schema)
    schema.clear()
    schema["anyOf"] = [own, *others]


def _target(item: Any) -> RouteTarget:
    if isinstance(item, str):
        return RouteTarget(item)
    if isinstance(item, dict) and isinstance(item.get("to"), str) and set(item) <= {"to", "weight"}:
        weight = item.get("weight", 1.0)
        if isinstance(weight, int | float) and not isinstance(weight, bool) and weight > 0:
            return RouteTarget(item["to"], float(weight))
        raise ValueError("a weight must be a number above 0")
    raise ValueError("a target is provider/model, or {to: provider/model, weight: 1}")


class RateSettings(Strict):
    """A rate limit that stands in for the policy's own."""

    requests: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    per: Duration = Field(60.0, gt=0, le=86_400)
    concurrent: int | None = Field(None, ge=1)

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

    token_quota: int | None = Field(None, ge=0)
    allowed_models: tuple[Name, ...] | None = None
    budget_usd: float | None = Field(None, ge=0)
    rate_limit: RateSettings | None = None
    parameters: Parameters = {}
    opt_out: bool = False
    users: dict[Name, UserSettings] = {}


class Price(Strict):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(None, ge=0)


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


class TestCaller(Strict):
    """Who makes the request of a policy test."""

    __test__ = False

    team: Name = "default"
    user: Name = "local"
    key: Name = "test"
    feature: str = ""


class TestUpstream(Strict):
    """What the pretended upstream answers."""

    __test__ = False

    reply: str = "ok"


class Expectation(Strict):
    """What a policy test wants to see; what is left out may be anything."""

    allowed: bool | None = None
    refused: str | None = None
    param: str | None = None
    provider: str | None = None
    model: str | None = None
    upstream_text: str | None = None
    reply_text: str | None = None
    cache: Literal["hit", "miss", "bypass", "coalesced"] | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Expectation:
        if not self.model_fields_set:
            raise ValueError("a test needs something to expect, such as `allowed: true`")
        if self.refused is not None and self.allowed:
            raise ValueError("a call cannot be both allowed and refused; keep one of them")
        return self


class PolicyTest(Strict):
    """An entry of ``tests:``."""

    name: str
    as_: TestCaller = Field(TestCaller(), alias="as")
    request: dict[str, Any]
    upstream: TestUpstream = TestUpstream()
    expect: Expectation


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
