"""The cache on each kind of store: bounds, expiry, restarts, sharing, and a store that is away."""

from __future__ import annotations

import asyncio
import json
import re
import struct
import time
from math import inf, nan
from zlib import crc32

import pytest

from tests.cache.conftest import policies, said
from tests.cache.test_hits import KEYS, as_, ask, result


def cache(**settings):
    return {"cache": {"unsanitized": True, **settings}}


async def test_memory_is_bounded_by_entries_and_bytes(serve, behind):
    """The least recently used go first; the bounds are the newest configuration's."""
    async with serve(policies(cache(max_items=3))) as side:
        model = behind.model()
        for text in "abc":
            await ask(side, model, text)
        assert result(await ask(side, model, "a")) == "hit"
        await ask(side, model, "d")
        assert [result(await ask(side, model, text)) for text in "acd"] == ["hit", "hit", "hit"]
        assert result(await ask(side, model, "b")) == "miss"
    async with serve(policies(cache(max_bytes="4KiB"))) as side:
        model = behind.model("chunks=1;size=1500")
        for text in "abc":
            await ask(side, model, text)
        entries = side.side.runtime.store._entries
        assert len(entries) == 2 and entries.bytes <= 4096
        assert result(await ask(side, model, "c")) == "hit"


async def test_entries_expire(serve, behind):
    """After `ttl` an entry is not served, and with the next sweep it is gone."""
    async with serve(policies(cache(ttl="10s"))) as side:
        model = behind.model()
        assert result(await ask(side, model)) == "miss"
        store = side.side.runtime.store
        now = time.monotonic()
        store._clock.monotonic = lambda: now + 11
        assert result(await ask(side, model, "other")) == "miss"
        await store.sweep()
        assert len(store._entries) == 1
        assert result(await ask(side, model)) == "miss"


async def test_a_file_of_its_own_survives_a_restart(serve, behind, tmp_path):
    """`cache.store: sqlite:///…` beside limits in memory: opened with the first call, closed with the policy."""
    config = policies(cache(store=f"sqlite:///{tmp_path}/cache.db"))
    model = behind.model()
    for wanted in ("miss", "hit"):
        async with serve(config) as side:
            assert result(await ask(side, model)) == wanted
            assert side.side.runtime.policies[0].store_kind == "sqlite"
            assert len(side.side.runtime.store._entries) == 0
    async with serve(config) as side:
        await side.client.post("/admin/cache/flush")
    async with serve(config) as side:
        assert result(await ask(side, model)) == "miss"
    assert behind.count() == 2


async def test_a_store_that_cannot_be_opened(serve, behind, tmp_path):
    """Calls pass without a cache (`allow`, the default) or are refused, and each is counted."""
    (tmp_path / "dir").mkdir()
    for settings, status in (({}, 200), ({"store_down": "refuse"}, 503)):
        async with serve(policies(cache(store=f"sqlite:///{tmp_path}/dir", **settings))) as side:
            answers = [await ask(side, behind.model()) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [status, status]
            assert result(answers[0]) == ("bypass" if status == 200 else None)
            assert side.side.runtime.metrics.degraded.values["cache",] == 2
            if status == 503:
                assert answers[0].json()["error"]["code"] == "store_unavailable"
            answer = await side.client.post("/admin/cache/flush")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")


@pytest.fixture
def redis(redis_server):
    redis_server.flush()
    return redis_server


async def test_sidecars_on_one_redis_share_entries_and_flushes(serve, behind, redis):
    """What one keeps the other serves, in both forms; a flush through one is followed by the other within a second."""
    config = 'server: {secret: "0123456789abcdef0123456789"}\n' + KEYS + policies(cache(store=redis.url))
    async with serve(config) as one, serve(config) as two:
        model = behind.model("chunks=3")
        miss = await ask(one, model, headers=as_("a1"))
        await asyncio.sleep(0.05)
        hit = await ask(two, model, headers=as_("a2"), stream=True)
        assert (result(miss), result(hit), said(miss)) == ("miss", "hit", said(hit))
        assert result(await ask(two, model, headers=as_("b1"))) == "miss"
        answer = await one.client.post("/admin/cache/flush", json={"team": "a"}, headers=as_("ops"))
        assert answer.json()["store"] == "redis"
        await asyncio.sleep(1.0)
        assert result(await ask(two, model, headers=as_("a2"))) == "miss"
        assert result(await ask(two, model, headers=as_("b1"))) == "hit"
        await asyncio.sleep(0.05)
        assert result(await ask(one, model, headers=as_("a1"))) == "hit"
    assert behind.count() == 3


async def test_single_flight_holds_while_the_store_is_asked(serve, behind, redis):
    """All look in Redis before any has set off: still one upstream call."""
    async with serve(policies(cache(store=redis.url))) as side:
        model = behind.model("first=0.4")
        answers = await asyncio.gather(*[ask(side, model, stream=bool(i % 2)) for i in range(30)])
        assert sorted(map(result, answers)) == ["coalesced"] * 29 + ["miss"]
        assert behind.count() == 1


async def test_redis_holds_no_more_than_the_answer_and_forgets_it(serve, behind, redis):
    """Keys are digests, values hold no prompt, no caller and no team; each has its time to live."""
    config = KEYS + policies(cache(store=redis.url, ttl="90s"))
    async with serve(config) as side:
        await ask(side, behind.model("chunks=1;text=answer"), "CANARY-prompt", headers=as_("a1"))
        await asyncio.sleep(0.05)
        (key,) = re.findall(rb"\r\n(llm:cache:[0-9a-f]{64})\r\n", redis.command("KEYS", "*"))
        value = redis.command("GET", key.decode())
        ttl = int(redis.command("PTTL", key.decode()).strip(b":\r\n"))
    assert b"answer" in value and b"CANARY" not in value and b"key-of" not in value
    assert 80_000 < ttl <= 90_000


async def test_a_redis_that_dies_and_comes_back(serve, behind, redis):
    """Meanwhile every call is answered by the upstream, `bypass`; then the entries are there again."""
    async with serve(policies(cache(store=redis.url))) as side:
        model = behind.model()
        assert result(await ask(side, model)) == "miss"
        await asyncio.sleep(0.05)
        assert result(await ask(side, model)) == "hit"
        redis.kill()
        try:
            for _ in range(4):
                answer = await ask(side, model)
                assert (answer.status_code, result(answer)) == (200, "bypass")
        finally:
            redis.start()
        for _ in range(100):
            await asyncio.sleep(0.05)
            if result(await ask(side, model)) == "hit":
                return
        raise AssertionError("the cache did not come back within 5 s")


async def test_a_shorter_ttl_holds_for_what_is_kept_already(serve, behind):
    """A reload that shortens the TTL makes older entries misses, though the store would keep them longer."""
    async with serve(policies(cache(ttl="1h"))) as side:
        model = behind.model()
        await ask(side, model)
        (policy,) = side.side.runtime.policies
        assert result(await ask(side, model)) == "hit"
        policy.config = policy.config.model_copy(update={"ttl": 0.02})
        await asyncio.sleep(0.05)
        assert result(await ask(side, model)) == "miss"


async def test_a_strangers_value_is_a_miss(serve, behind):
    """What is no entry under an entry's key is replaced, never served and never an error."""
    async with serve(policies(cache())) as side:
        model = behind.model()
        await ask(side, model)
        entries = side.side.runtime.store._entries
        (key,) = entries._entries
        head = struct.Struct(">2sdI")
        answer = b'{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"x"}}]}'
        strange = [head.pack(b"a2", at, crc32(answer)) + answer for at in (-inf, inf, nan, -1.0, 0.0)]
        now = time.time()
        strange += [head.pack(b"a1", now, crc32(answer)) + answer, head.pack(b"a2", now, crc32(answer)) + answer[:-1]]
        broken = [b"", b"a2", head.pack(b"a2", now, 0) + b"{", b"zz" + b"\0" * 50, json.dumps({"choices": []}).encode()]
        for value in (*broken, *strange):
            entries.put(key, value, time.monotonic() + 60)
            assert result(await ask(side, model)) == "miss"
            assert result(await ask(side, model)) == "hit"
