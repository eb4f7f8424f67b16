"""The project as a newcomer meets it: the version, the first screen, the sizes, the links, what an import costs."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from celeriac import __version__
from scripts.check_tree import MACHINE_PATH, REGISTRY, check_docstring, check_sizes, findings, tracked_files

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
PAGES = [path for path in tracked_files(ROOT) if path.suffix == ".md"]


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_version_is_the_same_everywhere() -> None:
    path = ROOT / PROJECT["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{__version__}"' in path.read_text("utf-8")
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", __version__)
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_readme_begins_with_the_two_commands() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text("utf-8").splitlines()[:45])
    for text in ("make demo", "make test", "add.delay(2, 3).get(", "celeriac -A tasks worker"):
        assert text in first_screen


def test_every_make_target_that_the_pages_name_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for page in PAGES:
        for target in re.findall(r"`make ([a-z]+)`", page.read_text("utf-8")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name} names make {target}"


def test_core_dependencies_are_two() -> None:
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in PROJECT["project"]["dependencies"]}  # type: ignore[index]
    assert names == {"click", "msgspec"}


def test_all_is_every_extra() -> None:
    aliases = {name for name, needs in EXTRAS.items() if all(need.startswith("celeriac[") for need in needs)} - {"all"}
    in_all = {name for need in EXTRAS["all"] for name in re.split(r"[\[\],]", need)[1:-1]}
    assert in_all == set(EXTRAS) - {"all", "dev", "fuzz"} - aliases


def test_every_dependency_is_documented() -> None:
    page = (ROOT / "docs/dependencies.md").read_text("utf-8")
    assert [name for name in EXTRAS if f"`{name}`" not in page] == []


def test_constraints_are_names_and_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    entries = [line for line in lines if line and not line.startswith("#")]
    assert [entry for entry in entries if not re.fullmatch(r"[\w.-]+==[\w.]+", entry)] == []
    pinned = {entry.partition("==")[0].lower().replace("_", "-") for entry in entries}
    wanted = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in EXTRAS["dev"] + EXTRAS["fuzz"]}  # type: ignore[index]
    assert wanted <= pinned


def test_sizes_docstrings_and_addresses() -> None:
    assert findings(ROOT) == []


def test_a_long_function_and_a_long_file_are_found() -> None:
    body = "\n    x = 1" * 61
    docstring = '    """' + "\n" * 30 + '    """'
    assert len(list(check_sizes(Path("a.py"), f"def f():{body}\n"))) == 1
    assert len(list(check_sizes(Path("a.py"), "x = 1\n" * 601))) == 1
    assert list(check_sizes(Path("a.py"), f"def f():\n{docstring}{body[:-20]}\n")) == []


def test_a_missing_docstring_is_found() -> None:
    assert list(check_docstring(Path("a.py"), "x = 1\n")) == ["a.py:1: the module has no docstring"]
    assert list(check_docstring(Path("__init__.py"), "")) == []


@pytest.mark.parametrize("text", ["see /" + "home/ann/x", "in /" + "work/x", "'/" + "root/.cache'"])
def test_machine_paths_are_found(text: str) -> None:
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ["https://example.org/home/x", "/tmp/x", "a/work/b", "/proc/self", "sqlite:////tmp/x"])
def test_other_paths_are_fine(text: str) -> None:
    assert not MACHINE_PATH.search(text)


def test_registry_addresses_are_found() -> None:
    assert REGISTRY.search("https://py" + "pi.org/simple")
    assert not REGISTRY.search("published on PyPI")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_import_is_light() -> None:
    heavy = ["asyncio", "sqlite3", "click", "multiprocessing", "ssl", "yaml", "redis"]
    done = run_python("-c", f"import celeriac, sys; print([name for name in {heavy} if name in sys.modules])")
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_layers_are_kept() -> None:
    check = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True, no_logo=True))"
    done = run_python("-c", check)
    assert done.returncode == 0, done.stdout + done.stderr
