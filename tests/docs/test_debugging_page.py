"""The page about debugging: its program stops where it says, its names and defaults are those of the module."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import environment
from tests.support.talk import Talk

PAGE = (Path(__file__).parents[2] / "docs" / "debugging.md").read_text("utf-8")


def test_its_session_goes_as_it_is_shown(tmp_path: Path) -> None:
    program = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    said = re.search(r"(a debugger waits .*: telnet )", PAGE)
    assert program is not None
    assert said is not None
    (tmp_path / "tasks.py").write_text(f"{program[1]}\nif __name__ == '__main__':\n    print(total([39.97, 2.0]))\n")
    with subprocess.Popen(
        [sys.executable, "tasks.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**environment(), "CELERY_RDB_PORT": "0"},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        line = process.stderr.readline()
        assert re.sub(r"\d+", "N", line).startswith(re.sub(r"\d+", "N", said[1]))
        with Talk(int(line.split()[-1])) as talk:
            shown = talk.say("n") if sys.version_info >= (3, 13) else talk.greeting
            where, line = shown.splitlines()[-2:]
            assert where.endswith("tasks.py(11)total()")
            assert line in PAGE
            assert talk.say("p found").strip() in PAGE
            talk.leave("c")
        assert process.communicate(timeout=30)[0] == "41.97\n"


@pytest.mark.parametrize(
    "name", ["CELERY_RDB_HOST", "CELERY_RDB_PORT", "CELERY_RDBSIG", "rdb.set_trace()", "rdb.debugger()"]
)
def test_it_names_what_there_is(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_its_defaults_are_those_of_the_module() -> None:
    show = "from celeriac.contrib import rdb; print(rdb.CELERY_RDB_HOST, rdb.CELERY_RDB_PORT, rdb.PORTS)"
    done = subprocess.run([sys.executable, "-c", show], env=environment(), capture_output=True, text=True, check=True)
    host, port, ports = done.stdout.split()
    assert f"| `CELERY_RDB_HOST` | `{host}` |" in PAGE
    assert f"| `CELERY_RDB_PORT` | {port} | the first port that is tried; up to {ports} are" in PAGE
