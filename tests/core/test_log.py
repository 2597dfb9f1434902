"""Log lines never block a call: what cannot be written waits a little, then is dropped and counted."""

import asyncio
import json
import logging
import os
import time
from datetime import UTC, datetime
from types import SimpleNamespace

from proxy.telemetry.log import JsonHandler, LineWriter
from proxy.telemetry.metrics import Counter


def test_a_full_pipe_blocks_nobody():
    """With nobody reading, writing a thousand lines takes no time; a reader that comes back gets whole lines."""
    read, write = os.pipe()
    dropped = Counter("d", "")
    writer = LineWriter(write, dropped)
    line = b'{"a":"' + b"x" * 1000 + b'"}\n'
    began = time.perf_counter()
    for _ in range(1000):
        writer.write(line)
    assert time.perf_counter() - began < 0.5
    os.set_blocking(read, False)
    got = b""
    for _ in range(2000):
        writer.flush()
        try:
            got += os.read(read, 1 << 16)
        except BlockingIOError:
            break
    assert got == line * 1000
    assert dropped.values[()] == 0
    os.close(read)
    os.close(write)


def test_what_is_too_much_is_dropped_and_counted():
    """The memory for waiting lines is bounded; every line lost is counted."""
    read, write = os.pipe()
    dropped = Counter("d", "")
    writer = LineWriter(write, dropped)
    line = b"x" * 9999 + b"\n"
    for _ in range(2000):
        writer.write(line)
    assert 1000 < dropped.values[()] < 2000
    os.close(read)
    os.close(write)


def test_a_reader_that_is_gone_costs_lines_not_calls():
    """A closed pipe drops the lines, counts them and raises nothing."""
    read, write = os.pipe()
    os.close(read)
    dropped = Counter("d", "")
    writer = LineWriter(write, dropped)
    writer.write(b"lost\n")
    assert dropped.values[()] == 1
    os.close(write)


async def test_lines_are_batched_on_the_loop_and_flushed_at_the_end():
    """Lines of one moment leave in one write, within milliseconds, and none is lost on close."""
    read, write = os.pipe()
    writer = LineWriter(write, Counter("d", ""))
    writer.attach(asyncio.get_running_loop())
    writer.write(b"a\n")
    writer.write(b"b\n")
    await asyncio.sleep(0.05)
    assert os.read(read, 100) == b"a\nb\n"
    writer.write(b"c\n")
    writer.close()
    assert os.read(read, 100) == b"c\n"
    os.close(read)
    os.close(write)


def test_an_exceptions_text_never_reaches_the_log():
    """A traceback is its type and frames: texts may hold keys and prompts (E11)."""
    read, write = os.pipe()
    log = logging.getLogger("test.exceptions")
    log.propagate = False
    log.addHandler(JsonHandler(LineWriter(write, Counter("d", ""))))
    try:
        raise ValueError("sk-secret prompt text")
    except ValueError:
        log.exception("failed", extra={"fields": {"n": 1, "text": 'quote " \n{"level":"error"'}})
    raw = os.read(read, 10000)
    assert raw.count(b"\n") == 1
    row = json.loads(raw)
    assert (row["event"], row["error"], row["n"]) == ("failed", "ValueError", 1)
    assert b"secret" not in raw
    os.close(read)
    os.close(write)


def test_a_line_bears_the_moment_of_its_record():
    """Whatever comes before or after it, a line says when it was logged: to the millisecond, in UTC."""
    lines: list[bytes] = []
    handler = JsonHandler(SimpleNamespace(write=lines.append))  # type: ignore[arg-type]
    moments = [1_700_000_000.0, 1_700_000_000.9994, 1_699_999_999.25, 1_700_000_001.5, 0.001]
    for moment in moments:
        record = logging.LogRecord("llm_sidecar", logging.WARNING, "", 0, "said", None, None)
        record.created = moment
        handler.emit(record)
    stamps = [json.loads(line)["ts"] for line in lines]
    assert stamps == [f"{datetime.fromtimestamp(m, UTC):%Y-%m-%dT%H:%M:%S}.{int(m % 1 * 1000):03d}Z" for m in moments]
