"""Reload under load (R20): old calls keep the old rules, new calls get the new ones, a broken file changes nothing."""

import asyncio
import signal
import time

import pytest

from tests.fakes.process import Upstream
from tests.fakes.rawclient import chat, request
from tests.fakes.sidecar import CLIENT_KEY, OPS_KEY, Sidecar, config

GOOD = [{"allowlist": {"models": ["*"]}}]
CLOSED = [{"allowlist": {"models": ["nothing-else"]}}]


@pytest.fixture(scope="module")
def changed(upstream: Upstream):
    """A sidecar of this file's own, since its configuration changes."""
    side = Sidecar(config(upstream.base(), policies=GOOD))
    side.expect("config_reload_failed")
    try:
        yield side
        side.stop()
    finally:
        side.cleanup()


@pytest.fixture
def running(changed, upstream):
    """The same, as it began."""
    yield changed
    written(changed, upstream, GOOD)
    assert changed.reload().status == 200


def written(side, upstream, policies, **more):
    side.write(config(upstream.base(), policies=policies, **more))


def test_a_new_rule_holds_for_new_calls_and_not_for_running_ones(running, upstream):
    """A stream that began before the reload ends under the rules it began with."""
    with running.raw() as client:
        client.send(request(body=chat("gpt-4o;chunks=20;interval=0.05", stream=True), key=CLIENT_KEY))
        time.sleep(0.3)
        written(running, upstream, CLOSED)
        assert running.reload().status == 200
        refused = running.chat("gpt-4o")
        assert (refused.status, refused.json()["error"]["code"]) == (403, "model_not_allowed")
        reply = client.reply(timeout=10)
    assert reply.status == 200
    assert reply.body.endswith(b"data: [DONE]\n\n")


def test_a_broken_file_changes_nothing_and_says_where(running, upstream):
    """The last good configuration stays; the answer, the log and the metric say what is wrong."""
    failed = len(running.log("config_reload_failed"))
    running.write("policies: [alowlist]\n")
    reply = running.reload()
    assert reply.status == 409
    problems = reply.json()["problems"]
    assert any("alowlist" in p and "allowlist" in p and "llm.yml:1" in p for p in problems)
    assert running.chat("gpt-4o").status == 200
    assert running.metrics().sum("llm_config_reload_success") == 0
    limit = time.monotonic() + 5
    while len(running.log("config_reload_failed")) <= failed and time.monotonic() < limit:
        time.sleep(0.02)  # a line is written a moment after the reply
    assert len(running.log("config_reload_failed")) == failed + 1
    written(running, upstream, GOOD)
    assert running.reload().status == 200
    assert running.metrics().sum("llm_config_reload_success") == 1


@pytest.mark.parametrize("how", ["signal", "file"])
def test_sighup_and_a_changed_file_reload_too(running, upstream, how):
    """SIGHUP reloads at once, a changed file within a few seconds."""
    written(running, upstream, CLOSED)
    if how == "signal":
        running.signal(signal.SIGHUP)
    limit = time.monotonic() + 6
    while (status := running.chat("gpt-4o").status) == 200 and time.monotonic() < limit:
        time.sleep(0.05)
    assert status == 403


def test_what_needs_a_restart_is_named(running, upstream):
    """Settings that a running sidecar cannot take up are named by the reload's answer."""
    written(running, upstream, GOOD, server={"drain_delay": "1s"})
    assert any("server.drain_delay" in note for note in running.reload().json()["notes"])


def test_reload_needs_permission(running):
    """A key without llm:manage may not reload."""
    assert running.ask("POST", "/admin/reload", key=CLIENT_KEY).status == 403


async def storm(side, upstream, reloads, every, streams, rate):
    """Reload again and again under calls and streams; return statuses and the number of broken streams."""
    statuses: list[int] = []
    broken = 0
    stop = False

    async def calls():
        while not stop:
            reply = await asyncio.to_thread(side.chat, "gpt-4o")
            statuses.append(reply.status)
            await asyncio.sleep(1 / rate)

    async def stream():
        nonlocal broken
        while not stop:
            reply = await asyncio.to_thread(side.chat, "gpt-4o;chunks=20;interval=0.02", stream=True)
            if reply.status != 200 or not reply.body.endswith(b"data: [DONE]\n\n"):
                broken += 1

    tasks = [asyncio.create_task(calls())] + [asyncio.create_task(stream()) for _ in range(streams)]
    for n in range(reloads):
        if n % 5 == 4:
            side.write("policies: [alowlist]\n")
        else:
            written(side, upstream, [{"prompt_limit": {"max_tokens": 1000 + n}}, *GOOD])
        reply = await asyncio.to_thread(side.reload)
        assert reply.status == (409 if n % 5 == 4 else 200)
        await asyncio.sleep(every)
    stop = True
    await asyncio.gather(*tasks)
    return statuses, broken


async def test_reloads_under_load_drop_nothing(running, upstream):
    """Twenty reloads, every fifth broken, while calls and streams run: no error, nothing dropped."""
    failed = len(running.log("config_reload_failed"))
    statuses, broken = await storm(running, upstream, 20, 0.05, 4, 50)
    assert set(statuses) == {200}
    assert broken == 0
    assert len(running.log("config_reload_failed")) == failed + 4


@pytest.mark.slow
async def test_r20(running, upstream):
    """100 reloads in 60 s under load drop nothing; 1,000 leave memory (+ 20 MiB at most) and descriptors flat."""
    statuses, broken = await storm(running, upstream, 100, 0.5, 20, 200)
    assert set(statuses) == {200}
    assert broken == 0
    rss, fds = running.rss, running.fds
    for n in range(1000):
        written(running, upstream, [{"prompt_limit": {"max_tokens": 1000 + n}}, *GOOD])
        assert running.reload().status == 200
    time.sleep(3)
    assert running.rss - rss < 20 * 1024 * 1024
    assert running.fds <= fds + 4


def test_admin_shows_the_running_order_and_masks_secrets(running):
    """/admin/policies is the running order, /admin/config the whole file, every secret masked."""
    order = running.ask("GET", "/admin/policies", key=OPS_KEY).json()
    assert [row["name"] for row in order["policies"]] == ["allowlist"]
    shown = running.ask("GET", "/admin/config", key=OPS_KEY)
    assert shown.status == 200
    assert b"CANARY" not in shown.body
    assert running.ask("GET", "/admin/config", key=CLIENT_KEY).status == 403


def test_a_policy_that_cannot_be_built_is_named(running, upstream):
    """A list of opted out users that is not there: the answer names the line, the policy and the file."""
    written(running, upstream, [*GOOD, {"opt_out": {"file": "gone.txt"}}])
    reply = running.reload()
    assert reply.status == 409
    (problem,) = reply.json()["problems"]
    assert "llm.yml:" in problem
    assert "policies[1].opt_out: the file " in problem
    assert "gone.txt cannot be read (No such file or directory)" in problem
    assert running.chat("gpt-4o").status == 200


@pytest.mark.parametrize("line", ["raise SystemExit(3)", "def __init__(self, *args): raise SystemExit(3)"])
def test_no_module_ends_a_running_sidecar(running, upstream, line):
    """A provider's module or constructor that calls `sys.exit` is a broken file: the sidecar serves on."""
    name = f"ending_{len(line)}"
    (running.folder / f"{name}.py").write_text(
        f"from proxy.providers.openai import OpenAI\nclass P(OpenAI):\n    {line}\n"
    )
    own = {"own": {"kind": f"{name}:P", "base_url": upstream.base(), "api_key": "sk-0123456789"}}
    written(running, upstream, GOOD, providers=own)
    reply = running.reload()
    assert reply.status == 409
    assert "SystemExit" in reply.json()["problems"][0]
    assert running.chat("gpt-4o").status == 200
