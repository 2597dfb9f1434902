"""Reads that bring nothing but text, from Anthropic and Gemini: the short way must say what the long one says."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.chunk import Chunk
from proxy.errors import UpstreamError
from proxy.providers.base import StreamDecoder
from proxy.reply import frames
from proxy.upstream.sse import SseParser
from tests.providers import anthropic_case as claude
from tests.providers import gemini_kit as kit
from tests.providers.recordings import Recordings, reply_bytes


def decoder(vendor: str) -> StreamDecoder:
    """Return a vendor's decoder."""
    return claude.decoder() if vendor == "anthropic" else kit.gemini().decoder(kit.encode(stream=True))


def served(vendor: str, reads: list[bytes], usage: bool, *, short: bool) -> tuple[list[bytes], str, int]:
    """Return what each read makes for the client, what the meter hears, and how many reads went the short way."""
    one, parser = decoder(vendor), SseParser()
    sent, heard, taken = [], "", 0
    for read in [*reads, b""]:
        known = one.lone(read, usage) if short and parser.between else None
        if known is not None:
            heard += known[0]
            sent.append(known[1])
            taken += 1
            continue
        chunks: list[Chunk] = []
        try:
            for event, data in parser.feed(read) if read else parser.flush():
                chunks += one.feed(event, data)
            chunks += () if read else one.close()
        except UpstreamError as error:
            return [*sent, frames(chunks, usage), f"{error.code}: {error.message}".encode()], heard, taken
        heard += "".join(c.choices[0]["delta"].get("content") or "" for c in chunks if c.choices)
        sent.append(frames(chunks, usage))
    return sent, heard, taken


def same(vendor: str, reads: list[bytes], usage: bool) -> int:
    """Assert that both ways say the same, byte for byte; return how many reads went the short way."""
    sent, heard, taken = served(vendor, reads, usage, short=True)
    assert (sent, heard) == served(vendor, reads, usage, short=False)[:2]
    return taken


def claude_event(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


def claude_text(raw: bytes, padding: bytes = b"", index: int = 0) -> bytes:
    """Return the event by which ``raw``, a JSON string, is added, padded as the vendor does."""
    delta = b'{"type":"text_delta","text":%b}' % raw
    data = b'{"type":"content_block_delta","index":%d,"delta":%b%b}' % (index, delta, padding)
    return b"event: content_block_delta\ndata: %b\n\n" % data


def claude_reads(*texts: bytes) -> list[bytes]:
    begin, *end = claude.events()
    block = claude.block(0, claude.text(""))
    opening = claude_event(begin) + claude_event(block[0])
    return [opening, claude_text(b'"Hello"'), *texts, b"".join(map(claude_event, (block[1], *end)))]


def gemini_event(candidate: bytes, counts: str = "3") -> bytes:
    usage = f'{{"promptTokenCount": 5,"candidatesTokenCount": {counts},"totalTokenCount": 8}}'.encode()
    head = b'"modelVersion": "gemini-2.5-flash","responseId": "r1"'
    return b'data: {"candidates": [%b],"usageMetadata": %b,%b}\r\n\r\n' % (candidate, usage, head)


def gemini_text(raw: bytes, counts: str = "3", more: bytes = b"") -> bytes:
    """Return the event by which ``raw``, a JSON string, is added."""
    content = b'{"parts": [{"text": %b}],"role": "model"}' % raw
    return gemini_event(b'{"content": %b,"index": 0%b}' % (content, more), counts)


def gemini_reads(*texts: bytes) -> list[bytes]:
    return [gemini_text(b'"Hello"'), *texts, gemini_text(b'""', "9", b',"finishReason": "STOP"')]


READS = {"anthropic": claude_reads, "gemini": gemini_reads}
TEXT = {"anthropic": claude_text, "gemini": gemini_text}


@pytest.mark.parametrize("usage", [False, True])
def test_text_needs_no_chunk(usage: bool) -> None:
    """Plain text goes the short way, with the vendor's padding and with counts that grow, alone or several in a read."""
    padded = [claude_text(b'"a"', b" " * 7), claude_text('" café {ok}\'"'.encode()), claude_text(b'"b"') * 3]
    assert same("anthropic", claude_reads(*padded), usage) == 4
    counted = [gemini_text(b'"a"', "4"), gemini_text('" \\"café\\" \\n"'.encode(), "5"), gemini_text(b'"b"', "6") * 3]
    assert same("gemini", gemini_reads(*counted), usage) == 3


@pytest.mark.parametrize("vendor", sorted(READS))
@pytest.mark.parametrize("usage", [False, True])
def test_an_event_is_made_like_those_passed_on(vendor: str, usage: bool) -> None:
    """What a filter holds back or changes goes out in an event like its neighbours."""
    one, parser = decoder(vendor), SseParser()
    for read in READS[vendor]()[:-1]:
        for event, data in parser.feed(read):
            one.feed(event, data)
    known = one.lone(TEXT[vendor](b'"x"'), usage)
    assert known is not None and one.choice == 0
    before, behind = one.around(usage)
    assert before + b'"x"' + behind == known[1]


def test_texts_of_several_choices_are_nobodys() -> None:
    """Two candidates' texts in one read belong to no single choice, so that no filter takes one for the other's."""
    one = decoder("gemini")
    two = [gemini_event(b'{"content": {"parts": [{"text": "t"}],"role": "model"},"index": %d}' % n) for n in (0, 1)]
    for event in two:
        one.feed("", event[6:-4])
    assert one.lone(two[0], False) is not None and one.choice == 0
    assert one.lone(two[1], False) is not None and one.choice == 1
    assert one.lone(two[0] + two[1], False) is not None and one.choice == -1
    assert one.lone(two[1] + two[1], False) is not None and one.choice == 1


@given(
    vendor=st.sampled_from(sorted(READS)),
    usage=st.booleans(),
    text=st.text(st.sampled_from('ab {}[],:"\\\n\u2028é😀\x7f\x00') | st.characters(), max_size=12),
    escaped=st.booleans(),
    times=st.integers(1, 3),
    junk=st.sampled_from(
        [b"", b'"', b'","x":"', b'"},"x":{"y":"', b'"}}', b"\xff", b"\\u0041", b"\\ud800", b"\n\ndata: ", b"\r\n\r\ndata: "]
    ),
)  # fmt: skip
def test_the_short_way_says_what_the_long_one_says(
    vendor: str, usage: bool, text: str, escaped: bool, times: int, junk: bytes
) -> None:
    """Whatever the text, client and meter get the same, in this read and in all that follow."""
    string = (json.dumps(text, ensure_ascii=False) if escaped else f'"{text}"').encode("utf-8", "surrogatepass")
    plain = TEXT[vendor](b'"x"')
    same(vendor, READS[vendor](plain, TEXT[vendor](string[:-1] + junk + b'"') * times, plain), usage)


@pytest.mark.parametrize(
    "candidate",
    [
        b'{"content": {"parts": [{"text": "t","thought": true}]},"index": 0}',
        b'{"content": {"parts": [{"text": "t","thoughtSignature": "c2ln"}]},"index": 0}',
        b'{"content": {"parts": [{"text": "t"},{"text": "u"}]},"index": 0}',
        b'{"content": {"parts": [{"functionCall": {"name": "f","args": {"n": 123456789012345678901234}}}]},"index": 0}',
        b'{"content": {"parts": [{"text": "t"}]},"index": 0,"logprobsResult": {"chosenCandidates": []}}',
        b'{"content": {"parts": [{"text": "t"}]},"index": 1}',
        b'{"content": {"parts": [{"text": "t"}]},"index": {}}',
        b'{"content": {"parts": [{"text": "t"}]}},{"content": {"parts": [{"text": "u"}]},"index": 1}',
        b'{"content": {"parts": [{"text": "t"}]},"finishReason": "STOP","index": 0}',
        b'{"content": {"parts": [{"text": 7}]},"index": 0}',
        b'{"content": {"parts": ["text"]},"index": 0}',
        b'"text"',
    ],
)  # fmt: skip
def test_what_gemini_says_besides_text_goes_the_long_way(candidate: bytes) -> None:
    """Thoughts, signatures, calls, probabilities, ends and nonsense among the text lose nothing; what follows is as ever."""
    plain = gemini_text(b'"x"')
    assert same("gemini", gemini_reads(plain, gemini_event(candidate), plain), False) <= 2
    assert same("gemini", gemini_reads(plain + gemini_event(candidate), plain), True) <= 1


def test_gemini_text_after_a_finish_word_takes_it_back() -> None:
    """A stand-in says `STOP` with every event; one whose stream then breaks off behind text was cut off."""
    stop = gemini_text(b'"x"', more=b',"finishReason": "STOP"')
    reads = [gemini_text(b'"Hello"'), stop, gemini_text(b'"y"')]
    assert same("gemini", reads, False) == 1
    assert b"upstream_error" in served("gemini", reads, False, short=True)[0][-1]


def test_counts_that_make_no_sense_are_an_error_of_the_answer() -> None:
    """A count object that is none is refused like in any other event."""
    odd = gemini_text(b'"x"').replace(
        b'{"promptTokenCount": 5,"candidatesTokenCount": 3,"totalTokenCount": 8}', b'"many"'
    )
    assert same("gemini", gemini_reads(odd), False) == 0
    assert b"upstream_invalid_response" in served("gemini", gemini_reads(odd), False, short=True)[0][-1]


def test_anthropics_text_goes_the_short_way_in_an_open_text_block_only() -> None:
    """Not before the message starts, not in a block that is closed or another's, not after the end; thoughts and calls never."""
    begin, *end = claude.events()
    start, stop = (claude_event(one) for one in claude.block(0, claude.text("")))
    text, other = claude_text(b'"x"'), claude_text(b'"x"', index=1)
    assert same("anthropic", [start, text], False) == 0
    assert same("anthropic", [claude_event(begin), start, stop, text], False) == 0
    assert same("anthropic", [claude_event(begin), start, text, other], False) == 1
    assert same("anthropic", [*claude_reads(text), text], False) == 2
    steps = [*claude.block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "t"})]
    steps += [*claude.texts(1, "a", "b"), *claude.tool(2, "f", '{"n":', "1}"), *claude.texts(3, "c")]
    assert same("anthropic", [claude_event(one) for one in (begin, *steps, *end)], False) == 3


def test_a_refusal_holds_the_text_that_went_the_short_way() -> None:
    """Where the vendor refuses without a word of its own, the refusal is all that was said."""
    reads = claude_reads(claude_text(b'" there"'))
    reads[-1] = reads[-1].replace(b"end_turn", b"refusal")
    assert same("anthropic", reads, False) == 2
    assert b'"refusal":"Hello there"' in served("anthropic", reads, False, short=True)[0][-2]


@pytest.mark.parametrize("vendor", ["anthropic", "gemini"])
def test_recorded_streams_say_the_same_either_way(recordings: Recordings, vendor: str) -> None:
    """Every recorded stream, one event a read and then two, reaches the client byte for byte the same."""
    taken = events = 0
    for exchange in recordings.exchanges(vendor):
        if exchange["response"]["status"] != 200 or "sse" not in exchange["response"]:
            continue
        mark = b"\r\n\r\n" if b"\r\n\r\n" in reply_bytes(exchange) else b"\n\n"
        reads = [event + mark for event in reply_bytes(exchange).split(mark) if event]
        pairs = [b"".join(reads[n : n + 2]) for n in range(0, len(reads), 2)]
        taken += same(vendor, reads, False)
        events += len(reads)
        same(vendor, pairs, True)
    assert taken > events / 4
