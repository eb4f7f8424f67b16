"""TLS with client certificates to PostgreSQL and MariaDB: by the URL's options, and by `broker_use_ssl`."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import ImproperlyConfigured, OperationalError
from celeriac.message import Settlement
from celeriac.results.sql_settings import parse_url
from celeriac.testing.transport_case import make_message, names
from celeriac.transport.open import open_transport
from tests.support.certificates import make_certificates
from tests.support.mariadb_server import MariadbServer
from tests.support.postgres_server import PostgresServer, open_folder

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        make_certificates(folder)
        yield folder


def server_key(folder: Path, user: str) -> str:
    """A copy of the server's key that only its user may read."""
    key = folder / f"{user}.key"
    key.write_bytes((folder / "server.key").read_bytes())
    key.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(key, pwd.getpwnam(user).pw_uid, -1)
    return str(key)


@pytest.fixture(scope="module")
def postgres(folder: Path) -> Iterator[str]:
    hba = folder / "hba"
    hba.write_text(
        "hostnossl all all 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n"
    )
    files = {"ssl_cert_file": f"{folder}/server.pem", "ssl_ca_file": f"{folder}/ca.pem"}
    key = server_key(folder, "postgres")
    with PostgresServer(folder / "postgres", ssl="on", ssl_key_file=key, hba_file=str(hba), **files) as server:
        yield server.url.replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def mariadb(folder: Path) -> Iterator[str]:
    files = {"ssl_cert": f"{folder}/server.pem", "ssl_ca": f"{folder}/ca.pem", "ssl_key": server_key(folder, "mysql")}
    with MariadbServer(folder / "mariadb", **files) as server:
        with server.connect() as connection, connection.cursor() as cursor:
            cursor.execute("CREATE USER 'secure'@'127.0.0.1' IDENTIFIED BY 'secret' REQUIRE X509")
            cursor.execute("GRANT ALL ON *.* TO 'secure'@'127.0.0.1'")
        yield f"mysql://secure:secret@localhost:{server.port}/celeriac"


@pytest.fixture
def files(folder: Path) -> dict[str, str]:
    return {
        "ca_certs": f"{folder}/ca.pem", "certfile": f"{folder}/client.pem", "keyfile": f"{folder}/client.key"
    }  # fmt: skip


def check(url: str, settings: Any = None) -> None:
    """A message goes there and comes back."""
    transport = open_transport(url, {}, {"broker_use_ssl": settings, "broker_failover_strategy": "round-robin"})
    try:
        transport.publish([make_message("m", "tls")])
        deliveries = transport.fetch(["tls"], 1, 5.0, 30.0)
        assert names(deliveries) == ["m"]
        transport.settle([Settlement(delivery) for delivery in deliveries])
    finally:
        transport.close()


def refused(call: Callable[[], None]) -> None:
    with pytest.raises(OperationalError) as caught:
        call()
    assert "secret" not in str(caught.value)


@slow
@pytest.mark.server("postgres")
def test_postgres(postgres: str, files: dict[str, str]) -> None:
    check(postgres, files)
    query = f"sslmode=verify-full&sslrootcert={files['ca_certs']}&sslcert={files['certfile']}&sslkey={files['keyfile']}"
    check(f"{postgres}?{query}")
    refused(lambda: check(postgres, {"ca_certs": files["ca_certs"]}))  # no certificate of our own
    refused(lambda: check(postgres, {**files, "ca_certs": files["certfile"]}))  # an unknown authority


@slow
@pytest.mark.server("mariadb")
def test_mariadb(mariadb: str, files: dict[str, str]) -> None:
    check(mariadb, files)
    check(f"{mariadb}?ssl_ca={files['ca_certs']}&ssl_cert={files['certfile']}&ssl_key={files['keyfile']}")
    refused(lambda: check(mariadb, {"ca_certs": files["ca_certs"]}))
    refused(lambda: check(mariadb, {**files, "ca_certs": files["certfile"]}))
    refused(lambda: check(mariadb))  # it asks for TLS


@pytest.mark.parametrize(
    ("url", "ssl", "message"),
    [
        ("mysql://h/d", True, "TLS to mysql:// needs ca_certs"),
        ("postgresql://h/d", {"cafile": "x"}, "TLS of postgresql:// has no option 'cafile'"),
        ("mssql://h/d", True, "TLS to mssql:// is set up by options of its client library"),
    ],
)
def test_mistakes_are_named(url: str, ssl: Any, message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        parse_url(url, {"ssl": ssl})


def test_what_the_url_says_has_precedence() -> None:
    assert parse_url("postgresql://h/d?sslmode=prefer", {"ssl": True}).url.endswith("?sslmode=prefer")
    assert parse_url("postgresql://h/d", {"ssl": True}).url.endswith("?sslmode=require")
