"""The running sidecar, as the commands that talk to one reach it: LLM_SIDECAR_URL and LLM_SIDECAR_KEY."""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.config.model import Address, Config

URL = "LLM_SIDECAR_URL"
KEY = "LLM_SIDECAR_KEY"


class RemoteError(Exception):
    """The sidecar gave no answer, or refused; the message is a sentence."""


def configured(path: str | None) -> Config | None:
    """Return the configuration of the sidecar on this machine; None without a file, for then it listens where it does.

    Raises:
        ConfigError: the file has mistakes. A note says how to do without it.
    """
    from proxy.config.dotenv import environment
    from proxy.config.load import find, load
    from proxy.config.problem import ConfigError

    folder = os.getcwd()
    if find(path, environment(os.environ, folder), folder) is None:
        return None
    try:
        return load(path)
    except ConfigError as error:
        error.add_note(f"With {URL} set to the sidecar's address, no llm.yml is read.")
        raise


def reach(listen: Address) -> str:
    """Return the URL by which this machine reaches what listens on ``listen``.

    Raises:
        RemoteError: its port is any that was free.
    """
    if not listen.port:
        raise RemoteError(
            f"`server.listen` names port 0, so the sidecar took any free port; set {URL} to the address that it printed."
        )
    try:
        address = ip_address(listen.host)
    except ValueError:  # a name
        return f"http://{listen}"
    if address.is_unspecified:  # every address of its family, and of no other
        listen = listen._replace(host="127.0.0.1" if address.version == 4 else "::1")
    return f"http://{listen}"


def told(error: Exception) -> str:
    """Return what a command says of ``error``: its message, and the notes that came on the way."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


class Remote:
    """One sidecar's address and key, from the environment, ``.env.llm`` or ``.env``; ``url`` is empty without an address.

    Raises:
        ConfigError: one of the files cannot be read.
    """

    def __init__(self) -> None:
        from proxy.config.dotenv import environment

        variables = environment(os.environ, os.getcwd())
        named = variables.get(URL, "").strip()
        self.url = named.rstrip("/").removesuffix("/v1")
        self._hint = "" if named else f"; {URL} names another"
        self._key = variables.get(KEY, "").strip()

    def look_here(self, config: Config | None) -> None:
        """Take the sidecar on this machine, which listens where ``config``, or without one the default, says.

        Raises:
            RemoteError: that is not known.
        """
        from proxy.config.model import ServerSettings

        self.url = reach((config.server if config is not None else ServerSettings()).listen)

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
