"""Drivers are found by URL, and what is wrong with a URL or an option is said in one line."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from celeriac.config import Settings
from celeriac.errors import ImproperlyConfigured
from celeriac.results import drivers
from celeriac.results.memory import MemoryStore
from celeriac.results.open import STORES, open_store
from celeriac.results.sqlite import SqliteStore
from celeriac.results.sqlite_database import parse_url
from celeriac.transport.memory import MemoryTransport
from celeriac.transport.open import TRANSPORTS, open_transport
from celeriac.transport.redis import RedisTransport
from celeriac.transport.sqlite import SqliteTransport


@pytest.mark.parametrize("scheme", ["sqlite", "sqla+sqlite", "db+sqlite"])
def test_sqlite_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.chdir(tmp_path)
    relative, absolute = f"{scheme}:///a%20b.db", f"{scheme}:///{tmp_path}/a b.db"
    transport, store = open_transport(relative), open_store(absolute, {})
    assert isinstance(transport, SqliteTransport)
    assert isinstance(store, SqliteStore)
    assert transport.path == store.path == str(tmp_path / "a b.db")
    assert not list(tmp_path.iterdir()), "opening doesn't connect"


def test_a_later_chdir_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    transport = open_transport("sqlite:///a.db")
    monkeypatch.chdir("/")
    transport.size("q")
    transport.close()
    assert (tmp_path / "a.db").exists()


def test_memory_urls() -> None:
    assert isinstance(open_transport("memory://"), MemoryTransport)
    store = open_store("cache+memory://name/")
    assert isinstance(store, MemoryStore)
    assert store.name == "name"


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("sqlite://", {}, "'sqlite://' names no file, as in 'sqlite:///celeriac.db'. In memory only: 'memory://'."),
        ("sqlite:///", {}, "names no file"),
        ("sqlite:///:memory:", {}, "In memory only: 'memory://'."),
        ("sqlite://a.db", {}, "'sqlite://a.db' has too few slashes: 'sqlite:///a.db' is the file 'a.db'."),
        ("sqlite:///a.db?synchronus=FULL", {}, "SQLite has no option 'synchronus'; it has busy_timeout, synchronous. Did you"),
        ("sqlite:///a.db", {"bussy_timeout": 1}, "Did you mean 'busy_timeout'?"),
        ("sqlite:///a.db?synchronous=OFF", {}, "synchronous is FULL or NORMAL, not 'OFF'."),
        ("sqlite:///a.db?busy_timeout=long", {}, "busy_timeout is a number of seconds from 0 to 3600, not 'long'."),
        ("sqlite:///a.db", {"busy_timeout": -1}, "not -1."),
        ("memory://?x=1", {}, "memory:// has no option 'x'"),
        ("sqlit:///a.db", {}, "No broker driver for 'sqlit' in 'sqlit:///a.db'; known are "),
        ("sqlit:///a.db", {}, "Did you mean 'sqlite'?"),
        ("memory", {}, "'memory' is not a broker URL: it must start with 'scheme://', as 'sqlite:///celeriac.db' does. Write 'memory://'."),
        ("", {}, "'' is not a broker URL: it must start with 'scheme://'"),
        (None, {}, "The broker URL must be text such as 'sqlite:///celeriac.db', not None."),
    ],
)  # fmt: skip
def test_mistakes_are_named(url: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        open_transport(url, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stores_say_result_backend() -> None:
    with pytest.raises(ImproperlyConfigured, match="No result backend driver for 'nothing'"):
        open_store("nothing://")


def test_options_of_the_url_have_precedence() -> None:
    settings = parse_url("sqlite:///a.db?synchronous=normal", {"synchronous": "FULL", "busy_timeout": "2.5"})
    assert (settings.synchronous, settings.busy_timeout) == ("NORMAL", 2.5)


def test_options_that_mean_something_to_other_brokers_only() -> None:
    assert parse_url("sqlite:///a.db", {"visibility_timeout": 3600, "max_retries": 3}).busy_timeout == 5.0


def test_secrets_never_reach_a_message() -> None:
    for url in ("nothing://user:secret@host", "nothing://h?password=secret", "user:secret@host", "x:secret"):
        with pytest.raises(ImproperlyConfigured) as caught:
            open_transport(url)
        assert "secret" not in str(caught.value)


def test_third_parties_add_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "celeriac.transport.memory:MemoryTransport", "celeriac.transports")
    monkeypatch.setattr(drivers, "entry_points", lambda group: [entry] if group == entry.group else [])
    assert isinstance(open_transport("mine://x"), MemoryTransport)
    with pytest.raises(ImproperlyConfigured, match="Did you mean 'mine'"):
        open_transport("mini://x")


@pytest.mark.behaviour("B-RESULT-043")
@pytest.mark.parametrize(
    "driver", ["celeriac.results.memory.MemoryStore", "celeriac.results.memory:MemoryStore", MemoryStore]
)
def test_a_setting_overrides_result_stores(driver: object) -> None:
    settings = {"override_backends": {"redis": driver}}
    assert isinstance(open_store("redis://somewhere", {}, settings), MemoryStore)
    with pytest.raises(ImproperlyConfigured, match=r"override_backends\['mine'\]: can't import 'nowhere.Store'"):
        open_store("mine://", {}, {"override_backends": {"mine": "nowhere.Store"}})


def test_an_unknown_result_store_is_named() -> None:
    """[B-RESULT-044 differs on purpose]: bad settings are always ImproperlyConfigured."""
    with pytest.raises(ImproperlyConfigured, match=r"No result backend driver for 'rediz'.*Did you mean 'redis'"):
        open_store("rediz://")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "no_such_library.driver:Transport", "celeriac.transports")
    monkeypatch.setattr(drivers, "entry_points", lambda group: [entry])
    with pytest.raises(ImproperlyConfigured, match="mine:// needs the package 'no_such_library'"):
        open_transport("mine://x")


def test_every_driver_of_the_tables_can_be_found() -> None:
    for table in (TRANSPORTS, STORES):
        for target in table.values():
            module, _, name = target.partition(":")
            assert Path(drivers.__file__).parent.parent.joinpath(*module.split(".")[1:]).with_suffix(".py").exists()
            assert name


def test_only_the_driver_that_is_used_is_loaded() -> None:
    code = (
        "import sys; from celeriac.transport.open import open_transport; from celeriac.results.open import open_store\n"
        "open_transport('memory://'), open_store('memory://')\n"
        "assert not {'celeriac.transport.sqlite', 'sqlite3', 'asyncio'} & set(sys.modules)"
    )
    source = Path(drivers.__file__).parent.parent.parent
    subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(source)!r}); {code}"], check=True)


def test_an_old_sqlite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 34, 1))
    with pytest.raises(ImproperlyConfigured, match="'sqlite:///a.db' needs SQLite 3.35; this Python has"):
        open_transport("sqlite:///a.db")


def test_settings_are_options_of_the_driver() -> None:
    settings = Settings({"broker_connection_timeout": 1.5, "broker_pool_limit": 3})
    transport = open_transport("redis://h/0", {"timeout": 2.0}, settings)
    assert isinstance(transport, RedisTransport)
    connection = transport.settings
    assert (connection.timeout, connection.connect_timeout, connection.max_connections) == (2.0, 1.5, 3)
    transport = open_transport("redis://h/0", {"timeout": 2.0}, Settings({"broker_pool_limit": None}))
    assert isinstance(transport, RedisTransport)
    connection = transport.settings
    assert (connection.timeout, connection.connect_timeout, connection.max_connections) == (2.0, 2.0, 10)
