"""``tests:``, policy tests that a file declares about itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from proxy.providers.base import Strict

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]


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
