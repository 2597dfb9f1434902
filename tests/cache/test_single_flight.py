"""Single flight: identical calls under way make one upstream call, whatever happens to any of them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter

import pytest

from tests.cache.conftest import BELOW, HERE, TRIPS, aloft, events, policies, said
from tests.fakes.rawclient import RawClient, chat, request


def results(answers):
    return Counter(answer.headers.get("x-llm-cache") for answer in answers)


async def ended(side, count):
    """Return the log lines once there are ``count``."""
    for _ in range(300):
        rows = await side.lines()
        if len(rows) >= count:
            return rows
    raise AssertionError(f"{len(rows)} of {count} calls have ended: {rows}")


async def test_fifty_mixed_calls_make_one_upstream_call(serve, behind):
    """50 identical concurrent requests, whole and streamed mixed: one upstream call, 50 identical answers, one bill."""
    async with serve(policies("cache")) as side:
        model = behind.model("chunks=10;first=0.5;interval=0.005")
        answers = await asyncio.gather(*[side.chat("same", model=model, stream=bool(i % 2)) for i in range(50)])
        assert {answer.status_code for answer in answers} == {200}
        assert len({said(answer) for answer in answers}) == 1
        assert results(answers) == {"miss": 1, "coalesced": 49}
        assert behind.count() == 1
        rows = await ended(side, 50)
        assert sum(row["completion_tokens"] > 0 for row in rows) == 1
        assert sum(row["stored"] for row in rows) == 1
        assert {row["upstream_model"] for row in rows} == {model}
        assert (await side.chat("same", model=model)).headers["x-llm-cache"] == "hit"


async def until(condition):
    """Wait until ``condition()`` holds."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within 5 s")


async def test_followers_stream_live(serve, behind):
    """Who joins a stream under way gets what there is at once and the rest as it comes, not all at its end."""
    async with serve(policies("cache")) as side:
        body = {
            "model": behind.model("chunks=8;interval=0.06"),
            "messages": [{"role": "user", "content": "x"}],
            "stream": True,
        }
        first = asyncio.create_task(side.client.post("/v1/chat/completions", json=body))
        flight = await aloft(side)
        await until(lambda: len(flight.record) >= 3)
        seen = []
        async with side.client.stream("POST", "/v1/chat/completions", json=body) as second:
            assert second.headers["x-llm-cache"] == "coalesced"
            async for line in second.aiter_lines():
                if line.startswith("data: {"):
                    seen.append(flight.complete)
        assert len(seen) == len(events((await first).text))
        assert seen[:5] == [False] * 5
        assert behind.count() == 1


async def test_a_streamed_answer_is_the_same_stream_for_followers(serve, behind):
    """A follower's stream holds the leader's chunks: ids, roles, finish and, for who asked, the usage."""
    async with serve(policies("cache")) as side:
        model = behind.model("chunks=4;first=0.4")
        wants = {"stream": True, "stream_options": {"include_usage": True}}
        one, two, three = await asyncio.gather(
            side.chat("x", model=model, **wants),
            side.chat("x", model=model, **wants),
            side.chat("x", model=model, stream=True),
        )
        assert events(one.text) == events(two.text)
        assert [e["usage"] for e in events(one.text)].count(None) == len(events(one.text)) - 1
        assert not any("usage" in event for event in events(three.text))
        assert one.text.endswith("data: [DONE]\n\n") and three.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_leaders_client_may_leave(serve, behind, stream):
    """Its call goes on for the others; its own line says that it left, and its team pays, once, in full."""
    async with serve(policies("cache")) as side:
        model = behind.model("chunks=6;first=0.4;interval=0.05")
        raw = RawClient(int(str(side.client.base_url).rsplit(":", 1)[1]))
        raw.send(request(body=chat(model, stream=stream, text="x")))
        await aloft(side)
        followers = [asyncio.create_task(side.chat("x", model=model, stream=bool(i % 2))) for i in range(9)]
        await aloft(side, 9)
        raw.close()
        answers = await asyncio.gather(*followers)
        assert {said(answer) for answer in answers} == {said(answers[0])}
        assert results(answers) == {"coalesced": 9}
        rows = await ended(side, 10)
        (left,) = [row for row in rows if row["outcome"] == "client_gone"]
        assert [left["prompt_tokens"], left["completion_tokens"]] == behind.calls()[0]["usage"]
        assert not left["estimated"]
        assert left["stored"]
        assert all(row["prompt_tokens"] == 0 for row in rows if row is not left)
        assert behind.count() == 1
        assert (await side.chat("x", model=model)).headers["x-llm-cache"] == "hit"


async def test_when_all_have_left_the_upstream_is_closed(serve, behind):
    """A leader alone is cancelled with its client; one that went on ends with its last follower, within 100 ms."""
    async with serve(policies("cache")) as side:
        port = int(str(side.client.base_url).rsplit(":", 1)[1])
        model = behind.model("chunks=200;interval=0.05")
        clients = [RawClient(port) for _ in range(3)]
        for n, client in enumerate(clients):
            client.send(request(body=chat(model, stream=True, text="x")))
            await aloft(side, n)
        for client in clients[:2]:
            client.close()
            await asyncio.sleep(0.1)
            assert not behind.calls()[0]["gone"]
        clients[2].close()
        left = time.monotonic()
        await asyncio.sleep(0.15)
        (record,) = behind.calls()
        assert record["gone"] and record["gone"] - left < 0.1
        assert [row["outcome"] for row in await ended(side, 3)] == ["client_gone"] * 3
        assert side.side.runtime.policies[0]._flights == {}


@pytest.mark.parametrize("policy", [TRIPS, BELOW])
@pytest.mark.parametrize("way", ["refuse", "fault"])
async def test_a_leader_stopped_on_the_way_in_lets_another_lead(serve, behind, way, policy):
    """A policy of the leader's own, above or below the cache, ends its call only; the others make one call."""
    async with serve(policies(TRIPS, "cache", BELOW)) as side:
        model = behind.model("first=0.4")
        user = f"{way}-{policy.rsplit(':')[-1]}"
        leader = asyncio.create_task(side.chat("x", model=model, user=user))
        others = [asyncio.create_task(side.chat("x", model=model, stream=bool(i % 2))) for i in range(8)]
        assert (await leader).status_code == (403 if way == "refuse" else 503)
        answers = await asyncio.gather(*others)
        assert {answer.status_code for answer in answers} == {200}
        assert results(answers) == {"miss": 1, "coalesced": 7}
        assert behind.count() == 1


async def test_followers_of_a_refused_leader_elect_anew(serve, behind):
    """Those who already wait when their leader is refused below the cache go on with a new one."""
    async with serve(policies("cache", f"{HERE}:Hesitates")) as side:
        model = behind.model("first=0.3")
        leader = asyncio.create_task(side.chat("x", model=model, user="hesitate"))
        await aloft(side)
        others = [asyncio.create_task(side.chat("x", model=model, stream=bool(i % 2))) for i in range(8)]
        answers = await asyncio.gather(*others)
        assert (await leader).status_code == 403
        assert {answer.status_code for answer in answers} == {200}
        assert results(answers) == {"miss": 1, "coalesced": 7}
        assert behind.count() == 1


@pytest.mark.parametrize("way", ["stop", "break", "late"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_leader_stopped_on_the_way_back_stops_alone(serve, behind, way, stream):
    """Its own filter above the cache ends its reply; the others read the same upstream call to its end."""
    async with serve(policies(TRIPS, "cache", BELOW)) as side:
        model = behind.model("chunks=8;first=0.4;interval=0.03")
        leader = asyncio.create_task(side.chat("x", model=model, user=f"{way}-Trips", stream=stream))
        await aloft(side)
        answers = await asyncio.gather(*[side.chat("x", model=model, stream=bool(i % 2)) for i in range(6)])
        stopped = await leader
        assert ("policy_unavailable" if way == "break" else "bad_word") in stopped.text
        assert "[DONE]" not in stopped.text
        assert len({said(answer) for answer in answers}) == 1
        assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers[1::2])
        assert results(answers) == {"coalesced": 6}
        assert behind.count() == 1
        rows = await ended(side, 7)
        (led,) = [row for row in rows if row["outcome"] in ("refused", "fault")]
        assert [led["prompt_tokens"], led["completion_tokens"]] == behind.calls()[0]["usage"]  # it pays for all of it
        assert not any(row["stored"] for row in rows)  # what its filters would have said of the rest is unknown


async def test_a_policy_below_ends_the_answer_for_all(serve, behind):
    """Policies below the cache act once per upstream call: what they end in mid-stream is ended for everybody."""
    async with serve(policies("cache", BELOW)) as side:
        model = behind.model("chunks=8;first=0.4;interval=0.03")
        leader = asyncio.create_task(side.chat("x", model=model, user="stop-Below", stream=True))
        await aloft(side)
        answers = await asyncio.gather(leader, *[side.chat("x", model=model, stream=True) for _ in range(3)])
        assert all("error" in events(answer.text)[-1] and "[DONE]" not in answer.text for answer in answers)
        assert behind.count() == 1


@pytest.mark.parametrize(("spec", "status", "code"), [
    ("status=500;first=0.4", 502, "upstream_error"), ("status=429;after=7", 429, "upstream_rate_limited"),
    ("status=400", 400, "upstream_invalid_request"),
])  # fmt: skip
async def test_an_upstream_error_goes_to_all_and_is_not_kept(serve, behind, spec, status, code):
    """One failed call, the same answer for everybody, `retry-after` included; the next request asks again."""
    async with serve(policies("cache")) as side:
        model = behind.model(f"{spec};headers=0.4")
        answers = await asyncio.gather(*[side.chat("x", model=model, stream=bool(i % 2)) for i in range(10)])
        assert {(a.status_code, a.json()["error"]["code"]) for a in answers} == {(status, code)}
        assert len({a.headers.get("retry-after") for a in answers}) == 1
        assert behind.count() == 1
        assert {row["outcome"] for row in await ended(side, 10)} == {"upstream_error"}
        await side.chat("x", model=model)
        assert behind.count() == 2


async def test_a_broken_stream_is_broken_for_all(serve, behind):
    """What was read stays, then one error frame and no [DONE], for leader and followers; nothing is kept."""
    async with serve(policies("cache")) as side:
        model = behind.model("chunks=6;first=0.4;interval=0.02;cut=rst@chunk3")
        answers = await asyncio.gather(*[side.chat("x", model=model, stream=True) for _ in range(5)])
        for answer in answers:
            *before, last = events(answer.text)
            assert len(before) >= 3 and last["error"]["code"] in ("upstream_error", "upstream_unreachable")
            assert "[DONE]" not in answer.text
        assert behind.count() == 1
        assert not any(row["stored"] for row in await ended(side, 5))


async def test_a_stalled_leader_holds_nobody_up(serve, behind):
    """The pace is the fastest reader's: a leader that reads nothing is dropped in the end, the others get all of it."""
    async with serve(policies({"cache": {"max_entry": "8MiB"}})) as side:
        port = int(str(side.client.base_url).rsplit(":", 1)[1])
        model = behind.model("chunks=100;size=32000;first=0.3")
        leader = RawClient(port, receive_buffer=4096)
        leader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        leader.send(request(body=chat(model, stream=True, text="x")))
        await aloft(side)
        began = time.monotonic()
        answers = await asyncio.gather(*[side.chat("x", model=model, stream=True) for _ in range(2)])
        assert time.monotonic() - began < 5
        assert [len(said(answer)) >= 3_000_000 for answer in answers] == [True, True]
        assert results(answers) == {"coalesced": 2}
        rows = await ended(side, 3)
        assert Counter(row["outcome"] for row in rows) == {"completed": 2, "client_gone": 1}
        assert behind.count() == 1
        leader.close()


async def test_a_stalled_leader_alone_waits(serve, behind):
    """Without anybody to share with, backpressure is what it always was: nothing is read ahead of the client."""
    async with serve(policies({"cache": {"max_entry": "8MiB"}})) as side:
        port = int(str(side.client.base_url).rsplit(":", 1)[1])
        leader = RawClient(port, receive_buffer=4096)
        leader.send(request(body=chat(behind.model("chunks=600;size=32000"), stream=True, text="x")))
        await asyncio.sleep(0.5)
        first = behind.calls()[0]["sent"]
        await asyncio.sleep(0.3)
        assert behind.calls()[0]["sent"] == first < 15_000_000
        leader.close()


async def test_answers_above_max_entry_are_not_joined_any_more(serve, behind):
    """Once an answer is larger than an entry may be, who comes makes a call of its own; nothing is kept."""
    async with serve(policies({"cache": {"max_entry": "20KiB"}})) as side:
        model = behind.model("chunks=20;size=4000;interval=0.04;first=0.4")
        early = [asyncio.create_task(side.chat("x", model=model, stream=True)) for _ in range(2)]
        flight = await aloft(side, 1)
        await until(lambda: flight.full)
        late = await side.chat("x", model=model, stream=True)
        answers = [*await asyncio.gather(*early), late]
        assert [answer.headers["x-llm-cache"] for answer in answers] == ["miss", "coalesced", "miss"]
        assert len({len(said(answer)) for answer in answers}) == 1
        assert behind.count() == 2
        assert not any(row["stored"] for row in await ended(side, 3))


async def test_different_fields_of_no_account_share_a_call(serve, behind):
    """`user`, `metadata`, `stream` and `stream_options` decide nothing about the answer."""
    async with serve(policies("cache")) as side:
        model = behind.model("first=0.4")
        answers = await asyncio.gather(
            side.chat("x", model=model, user="a"), side.chat("x", model=model, metadata={"b": "c"}),
            side.chat("x", model=model, stream=True, stream_options={"include_usage": True}),
        )  # fmt: skip
        assert results(answers) == {"miss": 1, "coalesced": 2}
        assert behind.count() == 1


async def test_a_waiting_follower_hears_keep_alives(serve, behind):
    """A streaming follower whose leader has no byte yet is kept open by comments, as the leader is."""
    async with serve("server: {keep_alive: 100ms}\n" + policies("cache")) as side:
        model = behind.model("first=0.5")
        one, two = await asyncio.gather(*[side.chat("x", model=model, stream=True) for _ in range(2)])
        assert ": keep-alive" in one.text and ": keep-alive" in two.text
        assert said(one) == said(two)
        assert behind.count() == 1
