"""All benchmarks: prints tables and writes them to benchmarks/results.md. `make bench` runs it; takes twelve to twenty minutes.

SQLite and the worker itself here, network brokers in `brokers.py`, workflows in `canvas.py`. Peers run in an environment of
their own (.bench-venv), which is made here if it is not there. Rounds of celeriac and of the peers alternate, so that all see
the same machine, and medians are shown. `--quick` runs one round of each, beside fewer peers, in four minutes.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / part) for part in ("src", ".")]

from benchmarks import brokers, canvas, footprint  # noqa: E402
from benchmarks.drain import celeriac_drain, huey_drain, huey_environment  # noqa: E402
from benchmarks.measure import PYTHON, ROOT, environment, median, run_json  # noqa: E402

BENCH_VENV = ROOT / ".bench-venv"
RESULTS = ROOT / "benchmarks/results.md"

#: As in the Makefile.
PEERS = [
    "celery[redis]==5.7.0", "dramatiq[redis,rabbitmq]", "hiredis", "huey", "procrastinate", "psycopg[binary]", "taskiq",
    "taskiq-redis",
]  # fmt: skip

#: What is measured, ours, the peer's, and what was asked for.
Row = tuple[str, str, str, str]


class Bench:
    """Runs the benchmarks and collects rows."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.rows: list[Row] = []
        self.broker_rows: list[Row] = []
        self.canvas_rows: list[Row] = []
        self.peer = peer_python()

    def add(self, *row: str) -> None:
        """Note a row and show it at once."""
        title, ours, peer, wanted = row
        self.rows.append((title, ours, peer, wanted))
        print(f"{title:58} {ours:>26} {peer:>26}   {wanted}", flush=True)

    def against_huey(
        self,
        title: str,
        ours: Callable[[Path], dict[str, float]],
        theirs: Callable[[Path], dict[str, float]],
        wanted: str,
        rounds: int,
    ) -> None:
        """Both in turn; medians of each."""
        found: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
        for _ in range(rounds):
            for name, run in (("theirs", theirs), ("ours", ours)):
                with tempfile.TemporaryDirectory() as folder:
                    found[name].append(run(Path(folder)))
        mine, other = median(found["ours"]), median(found["theirs"])
        ratio = mine["rate"] / other["rate"]
        self.add(title, f"{shown(mine)}", f"{shown(other)}", f"{wanted}: {ratio:.2f}×")

    def enqueue(self, synchronous: str, wanted: str) -> None:
        """`delay()` one at a time."""
        count = 5000

        def ours(folder: Path) -> dict[str, float]:
            url = f"sqlite:///{folder}/ours.db?synchronous={synchronous}"
            return run_json([*PYTHON, "-m", "benchmarks.enqueue", count], environment(BENCH_URL=url))

        def theirs(folder: Path) -> dict[str, float]:
            env = huey_environment(folder / "huey.db", synchronous)
            return run_json([self.peer, ROOT / "benchmarks/huey_peer.py", count], env)

        self.against_huey(
            f"enqueue one at a time, synchronous={synchronous}", ours, theirs, wanted, 2 * self.rounds - 1
        )

    def drain(self, synchronous: str, wanted: str) -> None:
        """20,000 no-ops, two processes, results stored."""
        self.against_huey(
            f"drain 20,000 no-ops, results stored, synchronous={synchronous}",
            lambda folder: celeriac_drain(folder, 20_000, synchronous),
            lambda folder: huey_drain(self.peer, folder, 20_000, synchronous),
            wanted,
            self.rounds,
        )

    def supervisor(self, task: str, title: str) -> None:
        """CPU of the supervisor's process alone."""
        command = [*PYTHON, "-m", "benchmarks.supervisor_cpu", task, 50_000]
        found = median([run_json(command, environment(BENCH_URL="memory://bench")) for _ in range(self.rounds)])
        self.add(f"supervisor alone, memory://, {title}", shown(found), "", "at most 60 µs")

    def footprint(self) -> None:
        """What it takes when it does little."""
        grown, _ = footprint.eta_memory(100_000)
        self.add("a worker with 100,000 messages with an ETA grows by", f"{grown:.1f} MB", "", "less than 5 MB")
        self.add("import celeriac, CPU", f"{footprint.import_cost(5 * self.rounds):.0f} ms", "", "at most 60 ms")
        self.add("worker ready after", f"{footprint.ready(self.rounds):.2f} s", "", "at most 1 s")
        memory, percent = footprint.idle(10)
        self.add("idle worker, 2 runners, memory (PSS)", f"{memory:.0f} MB", "", "below 70 MB")
        self.add("idle worker, CPU over 10 s", f"{percent:.2f} % of a core", "", "below 1 %")
        half, most = footprint.latency(200)
        self.add("delay() to running on SQLite, p50 (p95)", f"{half:.2f} ms ({most:.2f} ms)", "", "p50 below 10 ms")

    def brokers(self) -> None:
        """Network brokers beside several peers."""
        self.broker_rows = brokers.measure(self.rounds, brokers.print_row)

    def canvas(self) -> None:
        """Workflows beside Celery's."""
        self.canvas_rows = canvas.measure(self.rounds, brokers.print_row)

    def write(self) -> None:
        """Write results.md."""
        lines = [
            "# Results",
            "",
            "Written by `make bench`; what each figure means is in [performance](../docs/performance.md).",
            "",
            f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores, {platform.machine()};"
            f" medians of {self.rounds} or more rounds in turn with the peer, Huey.",
            "",
            "| | celeriac | Huey | asked for |",
            "| --- | ---: | ---: | --- |",
            *(f"| {' | '.join(row)} |" for row in self.rows),
            "",
            "## Network brokers",
            "",
            f"Medians of {self.rounds} round(s) of all sides in turn; celeriac's row says what was asked for, a peer's how"
            " celeriac compares.",
            "",
            "| | | measured | |",
            "| --- | --- | ---: | --- |",
            *(f"| {' | '.join(row)} |" for row in self.broker_rows),
            "",
            "## Workflows",
            "",
            f"Redis is broker and result store. Times are medians of {self.rounds} round(s) of both sides in turn; bytes and"
            " memory don't vary.",
            "",
            "| | | measured | |",
            "| --- | --- | ---: | --- |",
            *(f"| {' | '.join(row)} |" for row in self.canvas_rows),
        ]
        RESULTS.write_text("\n".join(lines) + "\n", "utf-8")


def shown(figures: dict[str, float]) -> str:
    """Rate and CPU as text."""
    return f"{figures['rate']:,.0f}/s, {figures['cpu']:.0f} µs CPU"


def peer_python() -> Path:
    """The interpreter of the peers; their environment is made if it is not there."""
    python = BENCH_VENV / "bin/python"
    if not all((BENCH_VENV / "bin" / name).exists() for name in ("huey_consumer", "celery", "taskiq")):
        subprocess.run([sys.executable, "-m", "venv", str(BENCH_VENV)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, *PEERS], check=True)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of each")
    bench = Bench(1 if parser.parse_args().quick else 3)
    bench.enqueue("NORMAL", "at least 1×")
    bench.enqueue("FULL", "")
    bench.drain("FULL", "at least 3×")
    bench.drain("NORMAL", "")
    bench.supervisor("noop", "results stored")
    bench.supervisor("quiet", "no results")
    bench.footprint()
    bench.brokers()
    bench.canvas()
    bench.write()


if __name__ == "__main__":
    main()
