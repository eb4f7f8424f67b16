"""Network brokers, beside the peers of each: draining, enqueueing, the time from sending to the result, tasks of a millisecond.

`benchmarks/run.py` calls `measure`; `python -m benchmarks.brokers [--quick] [section …]` runs it alone. Servers are private ones
on loopback. Rounds of all sides alternate, so that they see the same machine, and medians are shown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / part) for part in ("src", ".")]

from benchmarks.brokers_servers import Broker, RabbitMQ, Redis, postgres, rabbitmq, redis  # noqa: E402
from benchmarks.brokers_sides import CELERIAC, CELERY, DRAMATIQ, HUEY, PROCRASTINATE, TASKIQ, Side  # noqa: E402
from benchmarks.brokers_worker import drained, running  # noqa: E402
from benchmarks.measure import median  # noqa: E402

__all__ = ["measure", "print_row"]

#: What is measured, who, what came out, and celeriac's share of it.
Row = tuple[str, str, str, str]

Figures = dict[str, float]
#: How many tasks each side drains: between one and two seconds of work.
COUNTS = {"celeriac": 20_000, "Celery": 2400, "Huey": 10_000, "taskiq": 6000, "dramatiq": 6000, "procrastinate": 1000}


class BrokerBench:
    """Runs the benchmarks and collects rows.

    Args:
        rounds: Of everything.
        show: Called with each row as soon as it is known.
    """

    def __init__(self, rounds: int, show: Callable[[Row], None]) -> None:
        self.rounds = rounds
        self.rows: list[Row] = []
        self._show = show

    def compare(self, title: str, wanted: str, sides: Sequence[Side], run: Callable[[Side], Figures]) -> None:
        """Rounds of all sides in turn; a row for each. The first side is ours; the quick mode takes two others."""
        if self.rounds == 1:
            sides = sides[:3]
        found: dict[Side, list[Figures]] = {side: [] for side in sides}
        for _ in range(self.rounds):
            for side in sides:
                try:
                    found[side].append(run(side))
                except RuntimeError as exc:
                    print(f"{title}: a round of {side.name} is left out: {exc}", file=sys.stderr)
        medians = {side: median(rounds) for side, rounds in found.items() if rounds}
        ours = medians.get(sides[0])
        for side, figures in medians.items():
            beside = wanted if side is sides[0] else ratios(ours, figures) if ours else ""
            row = (title, side.name, shown(figures), beside)
            self.rows.append(row)
            self._show(row)

    def drain(self, broker: Broker, sides: Sequence[Side], results: str, wanted: str) -> None:
        """No-ops that wait in a full queue."""

        def run(side: Side) -> Figures:
            count = COUNTS[side.name]
            broker.fill(side, count, results)
            return drained(
                side, count, broker.url, results, broker.server.pid, lambda: broker.is_settled(side, count, bool(results))
            )  # fmt: skip

        self.compare(f"{broker.name}, drain, {'results stored' if results else 'no results'}", wanted, sides, run)

    def enqueue(self, broker: Broker, sides: Sequence[Side], mode: str, count: int, wanted: str) -> None:
        """Sending only, one by one or (mode "fill") as many at once as the side can."""

        def run(side: Side) -> Figures:
            broker.clear()
            return side.client(mode, count, side.environment(broker.url))

        title = "enqueue one by one" if mode == "enqueue" else "enqueue many at once"
        self.compare(f"{broker.name}, {title}", wanted, sides, run)

    def ask(self, broker: Broker, sides: Sequence[Side], results: Callable[[Side], str], wanted: str) -> None:
        """One task in flight: from sending to having its result."""

        def run(side: Side) -> Figures:
            broker.clear()
            with tempfile.TemporaryDirectory() as counts:
                env = side.environment(broker.url, results(side), counts)
                with running(side, env):
                    return side.client("ask", 300, env)

        self.compare(f"{broker.name}, send → result, one in flight", wanted, sides, run)

    def milliseconds(self, broker: Broker, sides: Sequence[Side], wanted: str) -> None:
        """Tasks of one millisecond of CPU: what part of two processes' time is theirs."""

        def run(side: Side) -> Figures:
            broker.clear()
            count = 4000
            side.client("fill_milliseconds", count, side.environment(broker.url))
            found = drained(
                side, count, broker.url, "", broker.server.pid, lambda: broker.is_settled(side, count, False)
            )
            return {"share": found["rate"] / 2000 * 100, "busy": 1000 / found["cpu"] * 100}

        self.compare(f"{broker.name}, tasks of 1 ms CPU on 2 processes", wanted, sides, run)


def shown(figures: Figures) -> str:
    """Figures as text."""
    if "share" in figures:
        return f"{figures['share']:.0f} % of the ideal rate, {figures['busy']:.0f} % of the worker's CPU"
    if "p50" in figures:
        return f"p50 {figures['p50']:.2f} ms, p99 {figures['p99']:.2f} ms"
    text = f"{figures['rate']:,.0f}/s, {figures['cpu']:.0f} µs CPU"
    return f"{text}, server {figures['server']:.0f} µs" if "server" in figures else text


def ratios(ours: Figures, theirs: Figures) -> str:
    """Ours against theirs."""
    if "share" in ours:
        return f"{ours['share'] / theirs['share']:.2f}× the rate"
    if "p50" in ours:
        return f"p50 {ours['p50'] / theirs['p50']:.2f}×, p99 {ours['p99'] / theirs['p99']:.2f}×"
    return f"{ours['rate'] / theirs['rate']:.1f}× the rate, {ours['cpu'] / theirs['cpu']:.2f}× the CPU"


def on_redis(bench: BrokerBench, path: Path) -> None:
    """Redis."""
    with redis(path) as server:
        _on_redis(bench, server)


def _on_redis(bench: BrokerBench, server: Redis) -> None:
    peers = [CELERIAC, CELERY, HUEY, TASKIQ, DRAMATIQ]
    bench.drain(server, peers, "", "at most 50 µs; 12× Celery's rate, 2× the best peer's")
    bench.drain(server, peers, server.url, "at most 80 µs; 10× Celery's rate")
    bench.enqueue(server, [CELERIAC, CELERY, HUEY], "enqueue", 4000, "at most 60 µs")
    bench.enqueue(server, [CELERIAC], "fill", 50_000, "at least 100,000/s")
    bench.ask(server, [CELERIAC, CELERY, DRAMATIQ, TASKIQ], lambda side: server.url, "p50 0.5× Celery's, p99 1×")
    bench.milliseconds(server, [CELERIAC, CELERY], "at least 90 %")


def on_rabbitmq(bench: BrokerBench, path: Path) -> None:
    """RabbitMQ, with results by rpc or in Redis."""
    with rabbitmq(path) as server, redis(path) as store:
        _on_rabbitmq(bench, server, store.url)


def on_postgres(bench: BrokerBench, path: Path) -> None:
    """PostgreSQL."""
    with postgres(path) as server:
        bench.drain(server, [CELERIAC, PROCRASTINATE], "", "10× procrastinate's rate")


SECTIONS = {"redis": on_redis, "rabbitmq": on_rabbitmq, "postgres": on_postgres}


def _on_rabbitmq(bench: BrokerBench, server: RabbitMQ, redis_url: str) -> None:
    bench.drain(server, [CELERIAC, CELERY, DRAMATIQ], "", "at most 60 µs; 3× Celery's rate, 1.5× dramatiq's")
    bench.enqueue(server, [CELERIAC], "fill", 20_000, "at least 10,000/s, confirmed")
    by_rpc = {CELERIAC: "rpc://", CELERY: "rpc://"}
    bench.ask(
        server, [CELERIAC, CELERY, DRAMATIQ], lambda side: by_rpc.get(side, redis_url), "p50 0.5× Celery's, p99 1×"
    )


def measure(rounds: int, show: Callable[[Row], None], sections: Sequence[str] = ()) -> list[Row]:
    """All of it, or only "redis", "rabbitmq", "postgres"; returns the rows. What has no server here is left out."""
    bench = BrokerBench(rounds, show)
    for name, section in SECTIONS.items():
        if not sections or name in sections:
            try:
                with folder() as path:
                    section(bench, path)
            except pytest.skip.Exception as exc:
                print(f"{name} is left out: {exc}", file=sys.stderr)
    return bench.rows


@contextmanager
def folder() -> Iterator[Path]:
    """For the data of all servers; PostgreSQL's user may enter it."""
    with tempfile.TemporaryDirectory(prefix="celeriac-bench-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def print_row(row: Row) -> None:
    """One line."""
    print("{:48} {:14} {:44} {}".format(*row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of each")
    parser.add_argument("sections", nargs="*", help="redis, rabbitmq, postgres")
    options = parser.parse_args()
    measure(1 if options.quick else 3, print_row, options.sections)


if __name__ == "__main__":
    main()
