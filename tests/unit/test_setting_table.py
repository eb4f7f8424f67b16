"""The table of settings: names, old names, defaults, types; and settings that drivers add."""

from __future__ import annotations

import json
import subprocess
import sys
import typing
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from celeriac.config import Settings, load, register_setting
from celeriac.errors import AlreadyRegistered, ImproperlyConfigured
from celeriac.setting_table import OLD_NAMES, TABLE, SettingTable

CELERY: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "settings.json").read_text())


def read(source: Any = None, **options: Any) -> Settings:
    """`load` with an empty environment."""
    return load(source, **{"environ": {}, **options})


@pytest.fixture
def config_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Writes modules that can be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    written = []

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


@pytest.fixture
def own_setting() -> Iterator[str]:
    """A setting that a driver adds."""
    name = "mydriver_timeout"
    register_setting(name, float | None, 2.0, "Longest wait.", unit="s", above=0, old="MYDRIVER_TIMEOUT")
    yield name
    del TABLE[name], OLD_NAMES["MYDRIVER_TIMEOUT"]


@pytest.mark.parametrize("name", CELERY)
def test_each_documented_setting_exists_with_its_old_names(name: str) -> None:
    assert name in TABLE
    assert [old for old in CELERY[name]["old"] if OLD_NAMES.get(old) != name] == []


@pytest.mark.parametrize("name", CELERY)
def test_a_default_is_celerys_or_says_why_it_differs(name: str) -> None:
    row = TABLE[name]
    allowed = [*CELERY[name]["defaults"]]
    if row.fallback:
        assert f"={row.fallback}" in allowed or None in allowed
        return
    default = row.default
    if isinstance(default, timedelta):
        default = f"timedelta({default.total_seconds():.0f} s)"
    if default == float("inf"):
        default = "inf"
    # Where Celery has None for "no options" or "off", an empty dict or False says the same.
    same = default in allowed or (None in allowed and default in ({}, False))
    assert same is not bool(row.differs), (default, allowed)


def test_the_defaults_that_keep_tasks_are_on() -> None:
    conf = read()
    assert conf.task_acks_late is True
    assert conf.task_reject_on_worker_lost is True
    assert conf.task_max_deliveries == 5
    assert conf.broker_url == conf.result_backend == "sqlite:///celeriac.db"
    assert (conf.task_lease, conf.publish_timeout, conf.task_unknown_delay) == (30.0, 5.0, 10.0)
    assert (conf.message_max_bytes, conf.message_max_unpacked_bytes) == (16 << 20, 256 << 20)
    assert (conf.worker_shutdown_grace, conf.worker_processes, conf.worker_hard_memory_per_child) == (25.0, None, None)
    assert (conf.worker_concurrency, conf.task_track_enqueued, conf.strict_settings) == (None, False, True)


def test_an_old_name_belongs_to_one_setting() -> None:
    olds = [old for row in TABLE.values() for old in row.old]
    assert len(olds) == len(set(olds)) == len(OLD_NAMES)


def test_each_row_has_a_meaning_and_a_default_of_its_own_kind() -> None:
    for row in TABLE.values():
        assert row.meaning.endswith("."), row.name
        assert "\n" not in row.meaning
        if not row.fallback:
            assert row.check(row.default) == row.default, row.name


def test_the_attributes_of_the_table_class_are_the_rows() -> None:
    assert set(typing.get_type_hints(SettingTable)) == {
        name for name, row in TABLE.items() if row.group != "Extensions"
    }


# registered settings


def test_drivers_add_settings(own_setting: str) -> None:
    conf = read({own_setting: 5})
    assert conf[own_setting] == conf.mydriver_timeout == 5.0  # type: ignore[attr-defined]
    with pytest.raises(ImproperlyConfigured, match="mydriver_timeout must be a number above 0 or None"):
        read({own_setting: -1})
    with pytest.warns(FutureWarning):
        assert read({"MYDRIVER_TIMEOUT": 6})[own_setting] == 6.0


def test_a_setting_registered_late_is_seen() -> None:
    conf = read()
    register_setting("late_option", int, 3, "Something.")
    try:
        assert conf.late_option == conf["late_option"] == 3  # type: ignore[attr-defined]
        register_setting("late_option", int, 3, "Something.")
        with pytest.raises(AlreadyRegistered, match="late_option"):
            register_setting("late_option", str, "x", "Something else.")
    finally:
        del TABLE["late_option"]
    with pytest.raises(ValueError, match="lower-case identifier"):
        register_setting("Not-A-Name", int, 3, "Something.")
    with pytest.raises(TypeError, match="complex"):
        register_setting("odd_option", complex, 0j, "Something.")


def test_installed_packages_name_the_module_that_registers(config_module: Any, tmp_path: Path) -> None:
    config_module(
        "mydriver_settings",
        "from celeriac.config import register_setting\nregister_setting('mydriver_size', int, 1, 'Its size.', low=1)\n",
    )
    info = tmp_path / "mydriver-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mydriver\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[celeriac.settings]\nmydriver = mydriver_settings\n")
    try:
        assert read({"mydriver_size": 2})["mydriver_size"] == 2
    finally:
        TABLE.pop("mydriver_size", None)


# types


def test_type_checkers_know_the_type_of_each_setting(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(
        "from celeriac.config import Settings\n"
        "def f(conf: Settings) -> None:\n"
        "    reveal_type(conf.task_serializer)\n"
        "    reveal_type(conf.task_time_limit)\n"
        "    reveal_type(conf.task_default_exchange)\n"
        "    reveal_type(conf.accept_content)\n"
        "    conf.task_ack_late\n"
    )
    # Errors of other modules are not this test's business: their bodies are not looked at.
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--follow-imports=silent",
        "--cache-dir",
        str(tmp_path / "cache"),
        "program.py",
    ]
    environment = {"MYPYPATH": str(Path(__file__).parents[2] / "src"), "PATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    revealed = [line.split('"')[1] for line in done.stdout.splitlines() if "Revealed type" in line]
    assert [text.replace("builtins.", "") for text in revealed] == ["str", "float | None", "str", "list[str]"]
    assert '"Settings" has no attribute "task_ack_late"' in done.stdout
