"""The cache's settings."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, field_validator

from policies.base import PolicyConfig
from proxy.config.model import StoreSettings
from proxy.config.units import Duration, Size

#: Sanitised prompts' answers are kept for at most a day (the design document's retention policy).
MAX_TTL: Final = 86_400.0


class CacheConfig(PolicyConfig):
    """How long answers are kept, how many, and who shares them."""

    ttl: Duration = Field(3_600.0, gt=0)
    max_items: int = Field(10_000, ge=1)
    max_bytes: Size = Field(256 << 20, ge=1)
    max_entry: Size = Field(1 << 20, ge=1)
    """Larger answers are neither kept nor shared."""
    scope: Literal["team", "user", "global"] = "team"
    temperature_up_to: float = Field(2.0, ge=0, le=2)
    """Requests that are warmer (1 where they say nothing) pass the cache by."""
    store: StoreSettings | None = None
    """Where entries are kept if not in the main store."""
    unsanitized: bool = False
    """Keep answers although no `redact` policy masks what is asked."""

    @field_validator("ttl")
    @classmethod
    def _a_day(cls, value: float) -> float:
        if value > MAX_TTL:
            raise ValueError("answers are kept for at most a day; this must be at most 24h")
        return value

    @field_validator("store", mode="before")
    @classmethod
    def _url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value
