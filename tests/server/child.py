"""A server in a process of its own, for tests with real signals: ``python -m tests.server.child '{options}'``."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

from proxy.server.options import ServerOptions
from proxy.server.serve import Server
from tests.server.stub import Stub


def say(**what: Any) -> None:
    """Tell the test something, one JSON line."""
    print(json.dumps(what), flush=True)


class Blocking(Stub):
    """A stub one of whose routes blocks the whole loop, as a bad policy would."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/block":
            say(blocked=True)
            time.sleep(30)
        await super().__call__(scope, receive, send)


def main() -> int:
    """Serve until told to stop; say what happened."""
    options = json.loads(sys.argv[1])
    files = options.pop("files", None)
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    stub = Blocking()
    server = Server(
        stub,
        ServerOptions(**{"listen": "127.0.0.1:0", **options}),
        on_started=lambda urls, ops: say(urls=urls),
        on_drain=lambda: say(draining=server.draining),
        on_reload=lambda: say(reload=True),
    )
    code = server.run()
    say(closed=stub.closed, reasons=[call.reason for call in stub.calls], ended=stub.ended, seen=len(stub.seen))
    return code


if __name__ == "__main__":
    sys.exit(main())
