"""Workflows beside Celery's, on Redis as broker and result store: time from sending to the result, bytes, memory.

`benchmarks/run.py` calls `measure`; `python -m benchmarks.canvas [--quick] [--rounds N] [section …]` runs it alone. Both sides
run the same program (`peers/canvas_side.py`), each with a worker of two processes. Rounds alternate, medians are shown.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / part) for part in ("src", ".")]

from benchmarks.brokers import Figures, Row, folder, print_row  # noqa: E402
from benchmarks.brokers_servers import Redis, redis  # noqa: E402
from benchmarks.brokers_sides import CELERIAC, CELERY, Side  # noqa: E402
from benchmarks.brokers_worker import running  # noqa: E402
from benchmarks.canvas_bytes import watched  # noqa: E402
from benchmarks.measure import median, run_json  # noqa: E402

__all__ = ["measure"]

_CLIENT = "benchmarks.peers.canvas_client"
_SIDES = [
    replace(side, command=[part.replace(side.module, "canvas_side") for part in side.command])
    for side in (CELERIAC, CELERY)
]


class CanvasBench:
    """Runs the benchmarks and collects rows.

    Args:
        server: The private Redis.
        rounds: Of everything that is timed.
        show: Called with each row as soon as it is known.
    """

    def __init__(self, server: Redis, rounds: int, show: Callable[[Row], None]) -> None:
        self.rounds = rounds
        self.rows: list[Row] = []
        self._server = server
        self._show = show

    def times(self, title: str, mode: str, count: int, wanted: str, *, works: bool = True) -> None:
        """Milliseconds of both sides in turn; with `works`, beside a worker of the side."""

        def run(side: Side) -> Figures:
            if not works:
                return self._client(side, mode, count)
            with running(side, self._environment(side)):
                return self._client(side, mode, count)

        ours, theirs = self._rounds(run)
        self._add(title, "celeriac", f"{ours['ms']:,.0f} ms", wanted)
        self._add(title, "Celery", f"{theirs['ms']:,.0f} ms", f"{theirs['ms'] / ours['ms']:.1f}× faster")

    def bytes(self, title: str, mode: str, count: int) -> None:
        """Of the first message and of all that the workflow's clients and workers send. They don't vary."""
        found = []
        for side in _SIDES:
            self._server.clear()
            with running(side, self._environment(side)), watched(self._server.server.port) as sizes:
                self._client(side, mode, count)
            found.append(sizes)
        ours, theirs = found
        for name, sizes in (("celeriac", ours), ("Celery", theirs)):
            first, whole = sizes[0], sum(sizes)
            beside = "never larger" if sizes is ours else f"{ours[0] / first:.2f}×, {sum(ours) / whole:.2f}× in all"
            self._add(title, name, f"first {first:,}, all {len(sizes):,} {whole:,}", beside)

    def memory(self, title: str, mode: str, count: int, wanted: str, sides: Sequence[Side]) -> None:
        """Growth of a client that sends a group; nobody works."""
        for side in sides:
            grown = self._client(side, mode, count)["mb"]
            self._add(title, side.name, f"{grown:.0f} MB", wanted if side is _SIDES[0] else "")

    def _rounds(self, run: Callable[[Side], Figures]) -> list[Figures]:
        found: list[list[Figures]] = [[], []]
        for _ in range(self.rounds):
            for side, figures in zip(_SIDES, found, strict=True):
                self._server.clear()
                figures.append(run(side))
        return [median(figures) for figures in found]

    def _environment(self, side: Side) -> dict[str, str]:
        return {**side.environment(self._server.url), "BENCH_LIBRARY": side.name.lower()}

    def _client(self, side: Side, mode: str, count: int) -> Figures:
        if mode in ("send", "memory", "memory_of_list"):
            self._server.clear()
        try:
            return run_json([side.python, "-m", _CLIENT, mode, count], self._environment(side))
        except subprocess.CalledProcessError as exc:
            raise RuntimeError(f"the client of {side.name} failed: {exc.stderr[-1000:]}") from exc

    def _add(self, *row: str) -> None:
        title, side, figures, beside = row
        self.rows.append((title, side, figures, beside))
        self._show(self.rows[-1])


def times(bench: CanvasBench) -> None:
    """From sending to the result."""
    bench.times("chord of 1,000, send → result", "chord", 1000, "at least 8× faster")
    bench.times("chain of 100, send → result", "chain", 100, "at least 3× faster")
    bench.times("group of 10,000, send", "send", 10_000, "at least 20× faster", works=False)
    bench.times("group of 10,000, send → results", "group", 10_000, "at least 10× faster")


def sizes(bench: CanvasBench) -> None:
    """Bytes of messages."""
    bench.bytes("chain of 100, bytes", "one_chain", 100)
    bench.bytes("chain of 10 chords of 10, bytes", "chain_of_chords", 10)
    bench.bytes("nested chords of depth 5, bytes", "nested", 5)
    bench.bytes("group of 1,000, bytes", "one_group", 1000)


def memory(bench: CanvasBench) -> None:
    """What a large group takes."""
    both = _SIDES if bench.rounds > 1 else _SIDES[:1]  # Celery's takes half a minute
    bench.memory("client's memory for a group of 100,000", "memory", 100_000, "below 150 MB", both)
    bench.memory("the same, made of a list", "memory_of_list", 100_000, "below 150 MB", _SIDES[:1])


SECTIONS = {"times": times, "bytes": sizes, "memory": memory}


def measure(rounds: int, show: Callable[[Row], None], sections: Sequence[str] = ()) -> list[Row]:
    """All of it, or only "times", "bytes", "memory"; returns the rows."""
    with folder() as path, redis(path) as server:
        bench = CanvasBench(server, rounds, show)
        for name, section in SECTIONS.items():
            if not sections or name in sections:
                section(bench)
        return bench.rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of each")
    parser.add_argument("--rounds", type=int, default=3, help="of each")
    parser.add_argument("sections", nargs="*", help="times, bytes, memory")
    options = parser.parse_args()
    measure(1 if options.quick else options.rounds, print_row, options.sections)


if __name__ == "__main__":
    main()
