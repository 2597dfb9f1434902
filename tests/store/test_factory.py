"""Which store a URL opens, and that it costs no import that it does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proxy.store.address import parse
from proxy.store.embedded import EmbeddedStore
from proxy.store.factory import open_store
from proxy.store.redis import RedisStore


def test_urls_open_what_they_name(tmp_path: Path) -> None:
    """Memory, a file by its absolute path, Redis in its three forms."""
    assert open_store("memory").kind == "memory"
    file = open_store(f"sqlite://{tmp_path}/s.db")
    assert isinstance(file, EmbeddedStore)
    assert file.path == f"{tmp_path}/s.db"
    for url in ("redis://h", "rediss://u:p@h:1/2", "redis+sentinel://a,b:1/main/3"):
        assert isinstance(open_store(url), RedisStore)


@pytest.mark.parametrize(
    "url", ["", "mysql://h", "sqlite://", "sqlite:///", "sqlite://relative.db", "sqlite:///folder/", "redis://", "redis://h:x",
            "redis://h/a", "redis+sentinel://h", "redis://h?timeout=3"],
)  # fmt: skip
def test_other_urls_are_refused_in_a_sentence(url: str) -> None:
    """ValueError, ending in a full stop or telling the forms."""
    with pytest.raises(ValueError, match=r"store|Redis|URL|sentinel"):
        open_store(url)


def test_an_addresses_parts() -> None:
    """User, password, hosts, database, service and certificates; a repr shows no password."""
    address = parse("rediss+sentinel://us%40er:p%2Fw@one:1,two/mymaster/4?ca_file=/ca.pem&sentinel_password=sp")
    assert address.hosts == (("one", 1), ("two", 26379))
    assert (address.user, address.password, address.service, address.db) == ("us@er", "p/w", "mymaster", 4)
    assert (address.tls, address.ca_file, address.sentinel_password) == (True, "/ca.pem", "sp")
    assert "p/w" not in repr(address) + str(address)
    assert "'sp'" not in repr(address)
    assert parse("redis://:secret@h").password == "secret"
    assert parse("redis://[::1]:7").hosts == (("::1", 7),)


def test_nothing_is_imported_in_vain() -> None:
    """A store in memory does not import hiredis; no store imports redis-py."""
    code = (
        "import sys\nfrom proxy.store.factory import open_store\nopen_store('memory')\n"
        "assert 'hiredis' not in sys.modules\nopen_store('redis://h')\nassert 'redis' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
