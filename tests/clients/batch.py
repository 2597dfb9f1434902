"""Gemini's batchEmbedContents before aimock, which knows embedContent only: one question to it for each text."""

from __future__ import annotations

import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mock = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
        path, _, method = self.path.rpartition(":")
        if method != "batchEmbedContents":
            return self._answer(404, {"error": {"code": 404, "message": f"no {method} here", "status": "NOT_FOUND"}})
        embeddings = []
        for request in body["requests"]:
            status, one = self._ask(f"{path}:embedContent", request)
            if status != 200:
                return self._answer(status, one)
            embeddings.append(one["embedding"])
        self._answer(200, {"embeddings": embeddings})

    def _ask(self, path: str, body: Any) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.mock, timeout=10)
        try:
            headers = {"content-type": "application/json", "x-goog-api-key": self.headers.get("x-goog-api-key") or ""}
            connection.request("POST", path, json.dumps(body), headers)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


def start(mock: int) -> ThreadingHTTPServer:
    """Serve on a free port of loopback, in a thread that ends with the process; ``mock`` is aimock's port."""
    handler = type("Handler", (_Handler,), {"mock": mock})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
