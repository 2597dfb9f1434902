"""What a reload must never open: the file that is gone, the section that is gone."""

from types import SimpleNamespace

import pytest

from proxy.config.load import load
from proxy.dryrun import dry_runtime
from proxy.reload import Reloader

KEYS = 'auth: {keys: [{id: a, key: "key-a-0123456789abcdef", roles: [manage]}]}\n'
FILE = "providers: {echo: {}}\nserver: {listen: 0.0.0.0:0}\npolicies: [{allowlist: {models: [echo]}}]\n" + KEYS


@pytest.fixture
async def reloader(tmp_path, monkeypatch):
    """A reloader of a sidecar that began with ./llm.yml, in an environment that would do alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    monkeypatch.delenv("LLM_SIDECAR_CONFIG", raising=False)
    (tmp_path / "llm.yml").write_text(FILE)
    runtime = await dry_runtime(load())
    side = SimpleNamespace(runtime=runtime, calls=set())
    side.configure = lambda new: setattr(side, "runtime", new)
    yield Reloader(side, None, None)
    await runtime.store.aclose(1.0)


async def test_a_file_that_is_gone_is_not_replaced_by_the_environment(reloader, tmp_path):
    """Without its rules and keys nobody is served: the last good file holds, and the answer says what is wrong."""
    before = reloader._side.runtime
    (tmp_path / "llm.yml").unlink()
    problems, _ = await reloader()
    assert problems == ["llm.yml: the file cannot be read (No such file or directory)"]
    assert reloader._side.runtime is before


async def test_auth_cannot_go_while_other_machines_reach_the_listener(reloader, tmp_path):
    """A new loopback `listen` needs a restart, so that the old listener would stand open to everyone."""
    before = reloader._side.runtime
    (tmp_path / "llm.yml").write_text(FILE.replace(KEYS, "").replace("0.0.0.0:0", "127.0.0.1:0"))
    problems, _ = await reloader()
    assert len(problems) == 1
    assert "auth: other machines can reach 0.0.0.0:0" in problems[0]
    assert reloader._side.runtime is before


async def test_what_needs_a_restart_is_said_until_it_happens(reloader, tmp_path):
    """Each reload compares with what the process began with, not with the last reload."""
    (tmp_path / "llm.yml").write_text(FILE.replace("0.0.0.0:0", "127.0.0.1:0"))
    for _ in range(2):
        assert await reloader() == ([], ["`server.listen` has changed; restart the sidecar for it to take effect."])
    (tmp_path / "llm.yml").write_text(FILE)
    assert await reloader() == ([], [])


async def test_whether_users_are_hashed_in_the_ledger_is_settled_at_the_start(reloader, tmp_path):
    """`usage:` belongs to the store, which a reload keeps: nobody believes that names are hashed from now on."""
    (tmp_path / "llm.yml").write_text(FILE + "usage: {hash_users: true}")
    assert await reloader() == ([], ["`usage` has changed; restart the sidecar for it to take effect."])
