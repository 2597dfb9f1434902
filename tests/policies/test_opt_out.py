"""Users and teams that opted out, by settings and by a file that changes."""

import os

import pytest

from policies.base import ApiError
from policies.opt_out import OptOut
from proxy.config.model import TeamSettings
from tests.fakes.clock import StillClock
from tests.policies.build import call, kit, runtime_of

TEAM = TeamSettings()


async def out(policy, team="default", user="local"):
    """Tell whether the caller is refused as opted out."""
    try:
        await policy.on_request(call(team=team, user=user))
    except ApiError as error:
        assert (error.status, error.code) == (403, "opted_out")
        return True
    return False


async def test_settings_teams_and_users():
    """The policy's own lists, the teams' and the users' switches all count; a user listed as team/user only there."""
    runtime = await runtime_of(
        """
policies: [{opt_out: {teams: [legal], users: [bob, sales/carol]}}]
teams: {legal: {}, sales: {}, quiet: {opt_out: true}, mixed: {users: {alice: {opt_out: true}}}}
"""
    )
    policy = runtime.policies[0]
    assert await out(policy, "legal")
    assert await out(policy, "quiet")
    assert await out(policy, "sales", "bob")
    assert await out(policy, "sales", "carol")
    assert not await out(policy, "mixed", "carol")
    assert await out(policy, "mixed", "alice")
    assert not await out(policy, "sales", "alice")
    await runtime.store.aclose()


async def test_a_default_team_that_opted_out_covers_unlisted_teams():
    """Teams that llm.yml does not list follow the default team's switch."""
    runtime = await runtime_of("policies: [opt_out]\nteams: {default: {opt_out: true}, in: {}}")
    assert await out(runtime.policies[0], "anyone")
    assert not await out(runtime.policies[0], "in")
    await runtime.store.aclose()


async def test_the_file_is_read_again_when_it_changes_and_kept_when_it_breaks(tmp_path):
    """A changed file holds within a second; a broken or missing one opts nobody in again."""
    file = tmp_path / "out.txt"
    file.write_text("team:legal  # said so in May\nuser:x/dora\n")
    clock = StillClock()
    policy = OptOut(OptOut.Config(file="out.txt"), kit(folder=str(tmp_path), clock=clock))
    assert await out(policy, "legal")
    assert await out(policy, "x", "dora")
    assert not await out(policy, "y", "dora")
    file.write_text("user:zoe\n")
    clock.advance(2)
    assert not await out(policy, "legal")
    assert await out(policy, "any", "zoe")
    file.write_text("nonsense\n")
    clock.advance(2)
    assert await out(policy, "any", "zoe")
    os.unlink(file)
    clock.advance(2)
    assert await out(policy, "any", "zoe")


def test_a_file_that_cannot_be_read_at_start_is_an_error(tmp_path):
    """A sidecar does not start without the list it was told to honour."""
    with pytest.raises(OSError):
        OptOut(OptOut.Config(file="missing"), kit(folder=str(tmp_path)))


async def test_a_mistyped_team_in_the_file_is_a_warning(tmp_path):
    """`check` says which team of the file nobody can be of."""
    (tmp_path / "out.txt").write_text("team:legal\nteam:leagl\nuser:slaes/ann\nuser:bob\n")
    policy = OptOut(
        OptOut.Config(file="out.txt"), kit(folder=str(tmp_path), teams=dict.fromkeys(("legal", "sales"), TEAM))
    )
    assert policy.warnings() == [f"out.txt: there is no team `{team}` under `teams:`" for team in ("leagl", "slaes")]
    assert OptOut(OptOut.Config(file="out.txt"), kit(folder=str(tmp_path))).warnings() == []
