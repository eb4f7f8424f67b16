"""The script that says which documented behaviours have no test."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.behaviours import count_tests, main, named_in, read_table

SOURCE = '''
import pytest

pytestmark = pytest.mark.behaviour("B-APP-001")

class TestBucket:
    @pytest.mark.behaviour("B-RATE-003", "B-RATE-004")
    def test_by_marker(self):
        """[B-LOG-001]: in text. B-LOG-002 differs on purpose."""

    async def test_b_rate_001_and_b_rate_002_in_its_name(self):
        pass

def helper_b_rate_009():
    """B-RATE-010 here is no test."""
'''


def test_names_docstrings_and_markers_of_tests_count() -> None:
    named = {"B-APP-001", "B-RATE-003", "B-RATE-004", "B-LOG-001", "B-LOG-002", "B-RATE-001", "B-RATE-002"}
    assert sorted(named_in(SOURCE)) == sorted(named)


def test_each_place_counts_once(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(SOURCE)
    (tmp_path / "test_b.py").write_text(SOURCE)
    (tmp_path / "helper.py").write_text(SOURCE)
    assert count_tests(tmp_path)["B-RATE-001"] == 2


def test_a_table_with_a_broken_or_double_line_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "behaviours.txt"
    table.write_text("B-RATE-001 one space\n")
    with pytest.raises(ValueError, match="behaviours.txt:1"):
        read_table(table)
    table.write_text("B-RATE-001  one\nB-RATE-001  again\n")
    with pytest.raises(ValueError, match="twice"):
        read_table(table)


def test_no_test_names_an_unknown_behaviour(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--family", "B-RATE"]) == 0, capsys.readouterr().out
    assert "B-RATE" in capsys.readouterr().out
