"""What the page about Sphinx shows, Sphinx can build."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.command import environment

PAGE = (Path(__file__).parents[2] / "docs" / "sphinx.md").read_text("utf-8")
TASKS = '''
from celeriac import shared_task

@shared_task
def ship(order_id: int) -> None:
    """Send a parcel."""
'''


def test_its_settings_and_directives_make_pages(tmp_path: Path) -> None:
    conf, rst = (re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) for kind in ("python", "rst"))
    assert conf is not None
    assert rst is not None
    (tmp_path / "conf.py").write_text(conf[1])
    # The same task is there twice, which Sphinx would warn of.
    text = rst[1].replace(".. autotask:: shop.tasks.ship\n", ".. autotask:: shop.tasks.ship\n   :no-index:\n")
    (tmp_path / "index.rst").write_text(f"Shop\n====\n\n{text}")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/tasks.py").write_text(TASKS)
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "text", ".", "made"],
        cwd=tmp_path, env={**environment(), "PYTHONPATH": f"{tmp_path}:{environment()['PYTHONPATH']}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    made = (tmp_path / "made/index.txt").read_text()
    assert made.count("(task) shop.tasks.ship(order_id: int) -> None") == 2
    assert "(task) shop.tasks.refund(order_id)" in made
