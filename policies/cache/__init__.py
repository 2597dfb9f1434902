"""The response cache and single flight: one answer for everybody who may have it, asked for once."""

from policies.cache.policy import Cache

__all__ = ["Cache"]
