"""Runs the tests in three processes side by side, since most of their time is waiting for servers and leases.

`make test` calls it: `python scripts/run_tests.py [pytest's arguments] -- FOLDER...`. One process takes the tests that break
servers (BROKERS), one those that kill workers or have stock ones (SLOW), one the rest; they share nothing but the machine. The
first one's output is shown as it comes, the others' when they have ended. The last line adds them up. Exits with the worst code.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Tests that break servers all the time, and folders of those that kill workers or wait for stock ones.
BROKERS = "tests/faults/brokers"
SLOW = ("faults", "mixed")
#: pytest's codes for "no tests were collected": nothing is wrong with half a selection.
NOTHING_COLLECTED = 5

CLOSING = re.compile(r"^=* ?(\d+ .*) in [0-9.]+s")
COUNT = re.compile(r"(\d+) (\w+)")


def start(folders: Sequence[str], arguments: Sequence[str], output: int | None) -> subprocess.Popen[bytes]:
    """One pytest."""
    command = [sys.executable, "-m", "pytest", *folders, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT if output is not None else None)


def counts(text: str) -> Counter[str]:
    """What the closing line of a report counts: passed, failed …"""
    for line in reversed(text.splitlines()):
        found = CLOSING.match(line)
        if found is not None:
            return Counter({word.removesuffix("s"): int(number) for number, word in COUNT.findall(found[1])})
    return Counter()


def main(argv: list[str]) -> int:
    """Run all and add up."""
    at = argv.index("--")
    arguments, folders = argv[:at], argv[at + 1 :]
    slow = [folder for folder in folders if Path(folder).name in SLOW]
    brokers = [BROKERS] if "tests/faults" in slow else []
    rest = [folder for folder in folders if folder not in slow]
    groups = [group for group in (brokers, [*slow, f"--ignore={BROKERS}"] if slow else [], rest) if group]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        logs = [Path(place) / f"{number}.log" for number in range(len(groups))]
        running = []
        for group, log in zip(groups, logs, strict=True):
            with log.open("wb") as file:
                running.append(start(group, arguments, file.fileno()))
        codes = []
        for process, log in zip(running, logs, strict=True):
            codes.append(follow(process, log))
        texts = [log.read_text(errors="replace") for log in logs]
    total: Counter[str] = sum((counts(text) for text in texts), Counter())
    told = ", ".join(
        f"{total[word]} {word}" for word in ("failed", "error", "passed", "skipped", "deselected") if total[word]
    )
    print(f"====== {told or 'no tests ran'} in {time.monotonic() - began:.2f}s ======", flush=True)
    wrong = [code for code in codes if code not in (0, NOTHING_COLLECTED)]
    return max(wrong, default=0 if 0 in codes else NOTHING_COLLECTED)


def follow(process: subprocess.Popen[bytes], log: Path) -> int:
    """Show what a process writes until it ends."""
    with log.open("rb") as file:
        while True:
            is_over = process.poll() is not None
            data = file.read()
            if data:
                os.write(1, data)
            elif is_over:
                return process.returncode
            else:
                time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
