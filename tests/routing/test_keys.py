"""Several keys for one provider: the next is used at once where one is refused, and nobody is stormed."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.scripted import VENDORS, Answer, Seen, refuse, say
from tests.routing.conftest import Serve

KEYS = ["sk-key-one-AAAA1111", "sk-key-two-BBBB2222", "sk-key-three-CC333"]
#: What each vendor says when the key is bad, the account is empty, the rate is too high.
REFUSALS = {
    "bad key": {"status": 401, "message": "invalid api key"},
    "no money": {"status": 429, "message": "You exceeded your current quota", "code": "insufficient_quota"},
    "too fast": {"status": 429, "message": "slow down", "retry_after": "60"},
}


@pytest.mark.parametrize("why", REFUSALS)
@pytest.mark.parametrize("vendor", VENDORS)
async def test_the_next_key_is_tried_at_once(serve: Serve, vendor: str, why: str) -> None:
    """A refused key's call goes out with the next one, without a wait; the refused key then rests."""

    def play(seen: Seen) -> Answer:
        return say(seen) if seen.key == KEYS[1] else refuse(seen, **REFUSALS[why])  # type: ignore[arg-type]

    sidecar, provider = await serve(play, vendor, api_key=KEYS[:2])
    first = await sidecar.chat("hi", model=f"{vendor}/m")
    assert first.status_code == 200, first.text
    assert [call.key for call in provider.calls] == KEYS[:2]
    assert provider.calls[1].at - provider.calls[0].at < 0.2
    assert (await sidecar.chat("hi", model=f"{vendor}/m", stream=True)).status_code == 200
    assert [call.key for call in provider.calls] == [KEYS[0], KEYS[1], KEYS[1]]
    assert [line["retries"] for line in await sidecar.lines()] == [1, 0]


async def test_every_key_refused(serve: Serve) -> None:
    """With no good key the caller gets the last refusal, and the keys do not reach it."""

    def play(seen: Seen) -> Answer:
        return refuse(seen, 401, f"Incorrect API key provided: {seen.key}")

    sidecar, provider = await serve(play, "openai", api_key=KEYS)
    reply = await sidecar.chat("hi", model="m")
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_auth_error")
    assert reply.headers["x-should-retry"] == "false"
    assert [call.key for call in provider.calls] == KEYS
    assert not any(key in reply.text for key in KEYS)


async def test_resting_keys_cost_of_the_retry_budget(serve: Serve) -> None:
    """While every key is refused, a hundred calls do not become three hundred."""
    sidecar, provider = await serve(
        lambda seen: refuse(seen, 429, "slow down", retry_after="60"), "openai", api_key=KEYS
    )
    replies = [await sidecar.chat("hi", model="m") for _ in range(3)]
    before = len(provider.calls)
    replies += await asyncio.gather(*(sidecar.chat("hi", model="m") for _ in range(97)))
    assert {reply.status_code for reply in replies} == {429}
    assert len(provider.calls) - before <= 1.2 * 97 + 3
    assert all(reply.headers["retry-after"] == "60" for reply in replies)


async def test_a_key_rests_as_long_as_it_was_told(serve: Serve) -> None:
    """A rate-limited key comes back after the wait that the provider named."""
    refused = []

    def play(seen: Seen) -> Answer:
        if seen.key == KEYS[0] and not refused:
            refused.append(seen.at)
            return refuse(seen, 429, "slow down", retry_after_ms="1000")
        return say(seen)

    sidecar, provider = await serve(play, "openai", api_key=KEYS[:2])
    await sidecar.chat("hi", model="m")
    await sidecar.chat("hi", model="m")
    await asyncio.sleep(1.05)
    await sidecar.chat("hi", model="m")
    assert [call.key for call in provider.calls] == [KEYS[0], KEYS[1], KEYS[1], KEYS[0]]
