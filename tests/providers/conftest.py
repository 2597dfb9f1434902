"""Fixtures over the recorded provider traffic that lies beside the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.providers.recordings import Recordings, shared


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Recordings:
    """The recorded exchanges, unpacked once; skips where they are absent."""
    return Recordings.unpack(tmp_path_factory)


@pytest.fixture(scope="session")
def schemas() -> Path:
    """The folder of OpenAI's JSON Schemas; skips where it is absent."""
    return shared("schemas")
