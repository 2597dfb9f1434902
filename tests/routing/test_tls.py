"""T27 through the sidecar: a provider whose certificate or version is not right is no provider."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from tests.core.inline import inline
from tests.fakes.scripted import VENDORS, Scripted, llm_yml, providers, say
from tests.upstream.authority import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


WRONG: dict[str, dict[str, Any]] = {
    "another name": {"name": "elsewhere.invalid"},
    "expired": {"expired": True},
    "TLS 1.2 only": {"newest": ssl.TLSVersion.TLSv1_2},
}


@pytest.mark.parametrize("why", [*WRONG, "an unknown authority"])
async def test_t27_a_bad_handshake_is_a_502_and_counts(authority: Authority, stranger: Authority, why: str) -> None:
    """Every vendor: 502 `upstream_tls`, no byte of the request sent, and the breaker opens."""
    signer = stranger if why == "an unknown authority" else authority
    async with Scripted(say, signer.context(**WRONG.get(why, {})), host="localhost") as provider:
        entries = providers(
            provider.url, tls={"ca_file": authority.file}, breaker={"failures": 1, "open": "60s"}, max_retries=3
        )
        async with inline(llm_yml(entries)) as sidecar:
            for vendor in VENDORS:
                reply = await sidecar.chat("hi", model=f"{vendor}/m")
                assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_tls"), reply.text
                again = await sidecar.chat("hi", model=f"{vendor}/m", stream=True)
                assert again.json()["error"]["code"] == "circuit_open"
            lines = await sidecar.lines()
            assert all(line["prompt_tokens"] == 0 for line in lines), "nothing was sent, nothing is paid"
        assert provider.calls == []


async def test_t27_a_good_one_serves(authority: Authority) -> None:
    """The same with a certificate of the authority that `ca_file` names; TLS 1.2 where the file allows it."""
    for context, tls in (
        (authority.context(), {"ca_file": authority.file}),
        (authority.context(newest=ssl.TLSVersion.TLSv1_2), {"ca_file": authority.file, "min_version": "1.2"}),
    ):
        async with (
            Scripted(say, context, host="localhost") as provider,
            inline(llm_yml(providers(provider.url, tls=tls))) as sidecar,
        ):
            for vendor in VENDORS:
                reply = await sidecar.chat("hi", model=f"{vendor}/m", stream=True)
                assert reply.text.endswith("data: [DONE]\n\n")


def test_plain_http_is_said() -> None:
    """A provider beyond loopback without TLS is served as written, with a warning that says what it gives away."""
    from proxy.config.load import load_text

    config = load_text(llm_yml(providers("http://vllm.internal.example:8000", "openai")))
    assert any("unencrypted" in warning for warning in map(str, config.warnings))
