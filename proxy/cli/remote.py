"""The running sidecar, as the commands that talk to one reach it: LLM_SIDECAR_URL and LLM_SIDECAR_KEY."""

from __future__ import annotations

import os
from typing import Any

URL = "LLM_SIDECAR_URL"
KEY = "LLM_SIDECAR_KEY"


class RemoteError(Exception):
    """The sidecar gave no answer, or refused; the message is a sentence."""


class Remote:
    """One sidecar's address and key, from the environment, ``.env.llm`` or ``.env``; ``url`` is empty without an address.

    Raises:
        ConfigError: one of the files cannot be read.
    """

    def __init__(self, default: str = "") -> None:
        from proxy.config.dotenv import environment

        variables = environment(os.environ, os.getcwd())
        named = variables.get(URL, "").strip()
        self.url = (named or default).rstrip("/").removesuffix("/v1")
        self._hint = "" if named else f"; {URL} names another"
        self._key = variables.get(KEY, "").strip()

    def ask(self, method: str, path: str, expect: str, **more: Any) -> dict[str, Any]:
        """Return the JSON object that the sidecar answers with, which has the key ``expect``.

        ``more`` goes to httpx2 (``params``, ``json``).

        Raises:
            RemoteError: nobody answers, something else does, or the sidecar refuses.
        """
        import httpx2

        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            reply = httpx2.request(method, self.url + path, headers=headers, timeout=10.0, trust_env=False, **more)
            body = reply.json()
        except (httpx2.HTTPError, httpx2.InvalidURL) as failure:
            raise RemoteError(
                f"The sidecar at {self.url} does not answer ({type(failure).__name__}){self._hint}."
            ) from failure
        except ValueError as error:
            raise RemoteError(f"What answers at {self.url} is no llm-sidecar{self._hint}.") from error
        answer: dict[str, Any] = body if isinstance(body, dict) else {}
        if reply.status_code != 200:
            refusal = answer.get("error")
            message = refusal.get("message") if isinstance(refusal, dict) else None
            raise RemoteError(message or f"The sidecar answered {reply.status_code}.")
        if expect not in answer:
            raise RemoteError(f"What answers at {self.url} is no llm-sidecar{self._hint}.")
        return answer
