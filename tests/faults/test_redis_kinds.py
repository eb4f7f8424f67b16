"""Redis reached in other ways: by TLS, a Unix socket, with a password, behind sentinels with a failover, as a cluster."""

from __future__ import annotations

import datetime
import ipaddress
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from celeriac.errors import OperationalError
from celeriac.message import Settlement
from celeriac.results.base import Record
from celeriac.results.redis import RedisStore
from celeriac.testing.results import ResultStoreSuite
from celeriac.testing.transports import AheadTests, FetchingCommitTests, TransportSuite, make_message
from celeriac.transport.base import Commit
from celeriac.transport.redis import RedisTransport
from tests.support.redis_server import RedisServer
from tests.support.server import free_port

pytestmark = pytest.mark.faults

PATIENCE = 30.0


def check_all(url: str, options: dict[str, Any] | None = None) -> None:
    """A message on its whole way."""
    transport, store = RedisTransport(url, options), RedisStore(url, options)
    assert transport.commits_with(store)
    transport.publish([make_message("m", "celery")])
    [delivery] = transport.fetch(["celery"], 1, 5, 60)
    record = Record(id="m", state="SUCCESS", result=b"x" * 100_000, content_type="text/plain")
    assert transport.commit([Commit(Settlement(delivery), record)]) == []
    assert store.wait(["m"], 5) == [record]
    transport.close()
    store.close()


def certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "redis")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip


def test_tls(tmp_path: Path) -> None:
    certificate(tmp_path)
    port = free_port()
    files = [f"{tmp_path}/cert.pem", f"{tmp_path}/key.pem"]
    options = ["--tls-port", str(port), "--tls-cert-file", files[0], "--tls-key-file", files[1]]
    options += ["--tls-ca-cert-file", files[0], "--tls-auth-clients", "optional"]
    with RedisServer(tmp_path / "data", options=options):
        url = f"rediss://127.0.0.1:{port}/1"
        check_all(f"{url}?ssl_ca_certs={files[0]}")
        check_all(url, {"ssl_cert_reqs": "none"})
        check_all(f"redis://127.0.0.1:{port}", {"ssl": {"ssl_ca_certs": files[0]}})
        with pytest.raises(OperationalError, match=r"(?i)certificate"):
            check_all(url)
        with pytest.raises(OperationalError):
            check_all(f"redis://127.0.0.1:{port}/1", {"timeout": 1})


def test_unix_socket(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "data", options=["--unixsocket", f"{tmp_path}/r.sock"]) as server:
        check_all(f"redis+socket://{tmp_path}/r.sock?virtual_host=2")
        assert server.call("EXISTS", "celery-task-meta-m", db=2) == 1
        with pytest.raises(OperationalError, match="Can't connect to redis.socket:///no/such"):
            RedisTransport("redis+socket:///no/such").publish([make_message("m", "celery")])


def test_passwords(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "data") as server:
        server.call("ACL", "SETUSER", "worker", "on", ">s3cret", "~*", "&*", "+@all")
        check_all(f"redis://worker:s3cret@127.0.0.1:{server.port}/0")
        with pytest.raises(OperationalError, match="user name or password are wrong") as failure:
            check_all(f"redis://worker:wr0ng@127.0.0.1:{server.port}/0")
        assert "wr0ng" not in str(failure.value)
        server.call("ACL", "SETUSER", "default", "off")
        with pytest.raises(OperationalError, match="wants a password"):
            check_all(server.url())
        server.kill()


class Sentinel(RedisServer):
    """One sentinel, for which its own word is enough."""

    def __init__(self, folder: Path, master: int) -> None:
        super().__init__(folder)
        self.master = master

    def prepare(self) -> None:
        (self.folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor main 127.0.0.1 {self.master} 1\n"
            "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
        )

    def command(self) -> list[str]:
        return [super().command()[0], str(self.folder / "sentinel.conf"), "--sentinel"]


def eventually(action: Any) -> Any:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return action()
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_a_failover_by_sentinels(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "first") as first:
        options = ["--replicaof", "127.0.0.1", str(first.port), "--repl-diskless-sync-delay", "0"]
        with RedisServer(tmp_path / "second", options=options) as second:
            first.call("CONFIG", "SET", "repl-diskless-sync-delay", "0")
            with Sentinel(tmp_path / "sentinel", first.port) as sentinel:
                url = f"sentinel://127.0.0.1:1;sentinel://127.0.0.1:{sentinel.port}/0"
                transport = RedisTransport(url, {"master_name": "main", "timeout": 2})
                transport.publish([make_message("before", "celery")])
                assert first.call("WAIT", 1, 20_000) >= 0
                deadline = time.monotonic() + PATIENCE
                while second.call("LLEN", "celery") != 1 or not knows_replica(sentinel):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                first.kill()
                eventually(lambda: transport.publish([make_message("after", "celery")]))
                came = eventually(lambda: transport.fetch(["celery"], 10, 1, 60))
                assert [each.message.id for each in came] == ["before", "after"]
                transport.close()
                with pytest.raises(OperationalError, match="no sentinel answers and knows a master 'other'"):
                    RedisTransport(url, {"master_name": "other"}).size("celery")


def knows_replica(sentinel: Sentinel) -> bool:
    replicas = sentinel.call("SENTINEL", "REPLICAS", "main")
    return bool(replicas) and b"slave" in replicas[0] and b"s_down" not in b" ".join(replicas[0])


class Cluster(RedisServer):
    """A cluster of one node, which has all slots."""

    def answers(self) -> bool:
        if b"cluster_slots_assigned:16384" not in self.call("CLUSTER", "INFO"):
            self.call("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        return b"cluster_state:ok" in self.call("CLUSTER", "INFO")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster"), options=["--cluster-enabled", "yes"]) as cluster:
        yield cluster


@pytest.fixture
def cluster_url(cluster: Cluster) -> Iterator[str]:
    yield f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.port}?hash_tag=app"
    keys = cluster.call("KEYS", "*")
    assert all(key.startswith(b"{app}:") for key in keys), keys
    cluster.call("FLUSHALL")


class TestClusterTransport(AheadTests, FetchingCommitTests, TransportSuite):
    @pytest.fixture
    def transport(self, cluster_url: str) -> Iterator[RedisTransport]:
        transport = RedisTransport(cluster_url, {"delay_at_publish": True})
        yield transport
        transport.close()

    @pytest.fixture
    def other(self, cluster_url: str) -> Iterator[RedisTransport]:
        other = RedisTransport(cluster_url, {"delay_at_publish": True})
        yield other
        other.close()

    @pytest.fixture
    def store(self, cluster_url: str) -> Iterator[RedisStore]:
        store = RedisStore(cluster_url)
        yield store
        store.close()


class TestClusterStore(ResultStoreSuite):
    @pytest.fixture
    def store(self, cluster_url: str) -> Iterator[RedisStore]:
        store = RedisStore(cluster_url)
        yield store
        store.close()

    @pytest.fixture
    def other(self, cluster_url: str) -> Iterator[RedisStore]:
        other = RedisStore(cluster_url)
        yield other
        other.close()


def test_a_plain_url_of_a_cluster_is_explained(cluster: Cluster) -> None:
    transport = RedisTransport(cluster.url())
    with pytest.raises(OperationalError, match=r"redis\+cluster://"):
        transport.fetch(["celery"], 1, 0, 60)
    transport.close()
