"""Clients for plain HTTP on loopback that load no certificates, which would take longer than most tests."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import openai

#: A TLS context without authorities, for clients that will not speak TLS.
BARE: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def openai_client(base_url: str, key: str = "any", *, retries: int = 0, timeout: float = 20.0) -> openai.OpenAI:
    """Return OpenAI's own client with its own transport and defaults, but for retries and time."""
    import openai

    http = openai.DefaultHttpxClient(verify=BARE)
    return openai.OpenAI(base_url=base_url, api_key=key, max_retries=retries, timeout=timeout, http_client=http)


def async_openai_client(base_url: str, key: str = "any", *, timeout: float = 20.0) -> openai.AsyncOpenAI:
    """Return OpenAI's own async client likewise, without retries."""
    import openai

    http = openai.DefaultAsyncHttpxClient(verify=BARE)
    return openai.AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0, timeout=timeout, http_client=http)
