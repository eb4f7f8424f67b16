"""What the benchmarks share: where things are, running a child that prints its figures as JSON, medians."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["PYTHON", "ROOT", "environment", "median", "run_json"]

ROOT = Path(__file__).resolve().parent.parent
PYTHON = [sys.executable]


def environment(**added: str) -> dict[str, str]:
    """The environment of a child that imports celeriac, the benchmarks and the test enablers."""
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", **added}


def run_json(command: Sequence[Any], env: Mapping[str, str]) -> dict[str, float]:
    """Run a child to its end and return what it printed."""
    done = subprocess.run([str(part) for part in command], env=env, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def median(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
