"""The page about result stores names every scheme and every option."""

from __future__ import annotations

from pathlib import Path

import pytest

from celeriac.results import filesystem, memcached, open, sql_settings
from celeriac.transport import filesystem_url

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text()


@pytest.mark.parametrize("scheme", sorted(open.STORES))
def test_schemes(scheme: str) -> None:
    assert scheme.removesuffix("*") in PAGE


@pytest.mark.parametrize(
    "option",
    sorted({
        *memcached._OWN, *filesystem._OPTIONS, *filesystem_url._OPTIONS, *sql_settings.OPTIONS, "global_keyprefix",
        "synchronous", "busy_timeout",
    }),
)  # fmt: skip
def test_options(option: str) -> None:
    assert f"`{option}`" in PAGE
