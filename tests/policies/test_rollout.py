"""Gradual rollout by team, and the kill switch."""

import hashlib
import subprocess
import sys

import pytest

from policies.base import ApiError
from policies.rollout import Rollout, bucket
from tests.policies.build import call, kit


def rollout(**config):
    return Rollout(Rollout.Config.model_validate(config), kit())


async def allowed(policy, team, feature):
    try:
        await policy.on_request(call(team=team, feature=feature))
    except ApiError as error:
        assert (error.status, error.code) == (403, "feature_disabled")
        return False
    return True


async def test_percent_of_teams():
    """A feature at 30 % reaches about 30 % of the teams, always the same ones, and more as it grows."""
    teams = [f"team{i}" for i in range(2000)]
    at30 = {t for t in teams if await allowed(rollout(features={"f": {"percent": 30}}), t, "f")}
    at60 = {t for t in teams if await allowed(rollout(features={"f": {"percent": 60}}), t, "f")}
    assert 500 < len(at30) < 700
    assert at30 < at60
    assert not [t for t in teams if await allowed(rollout(features={"f": {"percent": 0}}), t, "f")]
    assert all([await allowed(rollout(features={"f": {"percent": 100}}), t, "f") for t in teams[:50]])


async def test_listed_teams_and_other_features():
    """Teams listed are always in; a call without a feature, or with one not listed, passes."""
    policy = rollout(features={"f": {"percent": 0, "teams": ["first"]}})
    assert await allowed(policy, "first", "f")
    assert not await allowed(policy, "second", "f")
    assert await allowed(policy, "second", "")
    assert await allowed(policy, "second", "g")


async def test_kill_switch():
    """`enabled: false` stops every call, listed teams included."""
    policy = rollout(enabled=False, features={"f": {"percent": 100, "teams": ["first"]}})
    assert not await allowed(policy, "first", "f")
    assert not await allowed(policy, "first", "")


@pytest.mark.parametrize("seed", ["0", "1234"])
def test_the_same_in_every_process(seed):
    """The place of a team is SHA-256's, not Python's hash with its seed per process."""
    code = "from policies.rollout import bucket; print(bucket('f', 'platform'))"
    made = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
    )
    assert int(made.stdout) == bucket("f", "platform") == int(hashlib.sha256(b"f:platform").hexdigest(), 16) % 10_000
