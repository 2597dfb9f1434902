"""Standard output and error that may fail: a full disk, a reader that has gone, a stream that was closed."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, Final, TextIO

#: What a shell reports of a program that SIGPIPE ended: 128 and the signal's number.
BROKEN_PIPE: Final = 141
_CLOSED: Final = "it is closed"


class Output:
    """A stream that remembers why it could not be written; ``quiet``: a write then does nothing instead of raising."""

    def __init__(self, stream: TextIO | None, *, quiet: bool = False) -> None:
        self._stream: Any = stream
        self._quiet = quiet
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            self.error = OSError(errno.EBADF, _CLOSED)
            raise self.error
        return int(self._stream.fileno())

    def write(self, text: str) -> int:
        return self._do("write", text) or 0

    def flush(self) -> None:
        if self._stream is not None:
            self._do("flush")

    def _do(self, name: str, *values: str) -> Any:
        try:
            if self._stream is None:
                raise OSError(errno.EBADF, _CLOSED)
            return getattr(self._stream, name)(*values)
        except OSError as error:
            self.error = self.error or error
            if not self._quiet:
                raise
            return None

    def abandon(self) -> None:
        """Let what is still buffered go nowhere: the interpreter would try it again at its end, and complain."""
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def standard_streams() -> Iterator[tuple[Output, Output]]:
    """Stand in for standard output and error, and for an input that is closed; yield the first two."""
    out, err = Output(sys.stdout), Output(sys.stderr, quiet=True)
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 - as long as the process lives
    with redirect_stdout(out), redirect_stderr(err):
        yield out, err
