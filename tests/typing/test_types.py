"""The public interface under mypy --strict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def _mypy(file: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_public_types_are_what_they_should_be(tmp_path: Path) -> None:
    """Errors that must be errors are ignored in the file; mypy reports an ignore that is not needed."""
    pytest.importorskip("mypy")
    checked = _mypy(ROOT / "tests/typing/public_api.py", tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "no issues found in 1 source file" in checked.stdout


def test_the_file_says_enough_to_fail() -> None:
    """So that the test above can't pass by an empty file."""
    text = (ROOT / "tests/typing/public_api.py").read_text()
    assert text.count("assert_type(") > 30
    assert text.count("# type: ignore[") > 15
