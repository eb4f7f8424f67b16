"""The page of settings says what the table says."""

from __future__ import annotations

from pathlib import Path

from celeriac.setting_table import TABLE
from celeriac.setting_table_page import settings_page

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == settings_page(), "run: python -m celeriac.config > docs/settings.md"


def test_each_setting_is_on_it_once_with_its_old_names() -> None:
    lines = PAGE.read_text().partition("\n## General\n")[2].splitlines()
    for row in TABLE.values():
        found = [line for line in lines if line.startswith(f"| `{row.name}` |")]
        assert len(found) == 1, row.name
        assert all(f"`{old}`" in found[0] for old in row.old)


def test_the_first_section_tells_why_defaults_differ() -> None:
    section = PAGE.read_text().partition("\n## ")[2].partition("\n## ")[0]
    assert section.startswith("Defaults that differ from Celery's")
    for name in ("broker_url", "result_backend", "task_acks_late", "task_reject_on_worker_lost"):
        assert f"| `{name}` |" in section
