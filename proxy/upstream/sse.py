"""Server-sent events, incrementally (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

from typing import Final

import orjson

from proxy.upstream import faults

MAX_EVENT: Final = 8 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"
_MAX_NAMES: Final = 64

Events = list[tuple[str, bytes]]


class SseParser:
    """Turn a body, cut anywhere, into events ``(name, data)``; the name is ``""`` where the stream gives none.

    Lines may end in LF, CRLF or CR; several data lines are joined with LF; comments, ``id`` and ``retry``
    are ignored. ``max_event`` bounds an event's bytes, comments included.
    """

    __slots__ = ("_after_cr", "_begun", "_max_event", "_names", "_newline", "_parts", "_size")

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._parts: list[bytes] = []
        self._size = 0
        self._newline = False
        """The last byte kept is an LF: another one ends the event."""
        self._after_cr = False
        self._begun = False
        self._names: dict[bytes, str] = {}

    @property
    def between(self) -> bool:
        """Tell whether the next byte begins an event: nothing is held."""
        return self._begun and not self._parts and not self._after_cr

    def feed(self, data: bytes) -> Events:
        """Return the events that ``data`` completes.

        Raises:
            UpstreamError: ``upstream_invalid_response``, an event is larger than ``max_event``.
        """
        if (
            data[-2:] == b"\n\n" and data[:6] == b"data: " and data.find(b"\n") == len(data) - 2 and b"\r" not in data
            and self._begun and not self._parts and not self._after_cr and len(data) <= self._max_event
        ):  # fmt: skip
            return [("", data[6:-2])]  # nearly every read: one event of one data line
        if not data:
            return []
        if not self._begun:
            data = self._begin(data)
            if not data:
                return []
        if self._after_cr:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
                if not data:
                    return []
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not self._parts and data.endswith(b"\n\n") and len(data) <= self._max_event:
            # Several such events. Splitting at one byte is twice as fast as at two.
            lines = data.split(b"\n")
            if not any(lines[1::2]):
                lines = lines[:-1:2]
                events = [("", line[6:]) for line in lines if line.startswith(b"data: ")]
                if len(events) == len(lines):
                    return events
        if self._parts:
            if b"\n\n" not in data and not (self._newline and data.startswith(b"\n")):
                self._hold(data)
                return []
            self._parts.append(data)
            data = b"".join(self._parts)
            self._parts.clear()
            self._size = 0
        blocks = data.split(b"\n\n")
        tail = blocks.pop()
        if tail:
            self._hold(tail)
        events = []
        if len(data) > self._max_event:
            self._check(blocks)
        for block in blocks:
            if block.startswith(b"data: ") and b"\n" not in block:
                events.append(("", block[6:]))
            elif block:
                self._event(block, events)
        return events

    def flush(self) -> Events:
        """Return the last event at the body's proper end.

        The standard drops an event without its blank line, but many servers leave that out after their
        last one. So it counts if its last line is whole: ended by a line break, or data that is ``[DONE]``
        or complete JSON. A line cut in its middle is dropped, and the stream then found truncated.
        """
        block = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if block in (b"", _BOM[: len(block)]):
            return []
        if not block.endswith(b"\n"):
            whole, _, line = block.rpartition(b"\n")
            value = line[5:].strip() if line.startswith(b"data:") else b""
            if value != b"[DONE]" and not _is_json(value):
                block = whole
        events: Events = []
        self._event(block, events)
        return events

    def _begin(self, data: bytes) -> bytes:
        """Return what follows a byte order mark, which may itself arrive in pieces."""
        if self._parts:
            data = b"".join(self._parts) + data
            self._parts.clear()
            self._size = 0
        if len(data) < 3 and _BOM.startswith(data):
            self._hold(data)
            return b""
        self._begun = True
        return data[3:] if data.startswith(_BOM) else data

    def _hold(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        self._newline = data.endswith(b"\n")
        if self._size - self._newline > self._max_event:
            self._too_large()

    def _check(self, blocks: list[bytes]) -> None:
        for block in blocks:
            if len(block) > self._max_event:
                self._too_large()

    def _too_large(self) -> None:
        raise faults.invalid(f"an event of its stream is larger than {self._max_event} bytes")

    def _event(self, block: bytes, events: Events) -> None:
        """Append the event that the lines of ``block`` make, if any holds data."""
        if block.startswith(b"event: "):  # the two-line form of Anthropic, as fast as it gets
            first, _, rest = block.partition(b"\n")
            if rest.startswith(b"data: ") and b"\n" not in rest:
                events.append((self._name(first[7:]), rest[6:]))
                return
        name = ""
        values: list[bytes] = []
        for line in block.split(b"\n"):
            field, _, value = line.partition(b":")
            if value.startswith(b" "):
                value = value[1:]
            if field == b"data":
                values.append(value)
            elif field == b"event":
                name = self._name(value)
        if values:
            events.append((name, values[0] if len(values) == 1 else b"\n".join(values)))

    def _name(self, raw: bytes) -> str:
        name = self._names.get(raw)
        if name is None:
            name = raw.decode("utf-8", "replace")
            if len(self._names) < _MAX_NAMES and len(raw) <= 64:
                self._names[raw] = name
        return name


def _is_json(value: bytes) -> bool:
    if not value.startswith((b"{", b"[")):
        return False
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    return True
