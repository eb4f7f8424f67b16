"""Workflows: one program for celeriac and for Celery, since their canvas is the same. BENCH_LIBRARY names the package.

Imported by the workers of both. BENCH_BROKER is broker and result store.
"""

from __future__ import annotations

import importlib
import os

library = importlib.import_module(os.environ["BENCH_LIBRARY"])
chain, chord, group = library.chain, library.chord, library.group

app = getattr(library, "Celeriac" if library.__name__ == "celeriac" else "Celery")(
    "bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BROKER"]
)


@app.task(name="noop")
def noop():
    return 1


@app.task(name="add")
def add(x, y):
    return x + y


@app.task(name="total")
def total(values):
    return sum(values)


def noops(count):
    return (noop.s() for _ in range(count))


def chain_of(steps):
    return chain(*(add.s(1) for _ in range(steps)))


def chain_of_chords(chords):
    """Ten parts each, every one of which gets what the chord before it has made."""
    return chain(*(chord([add.s(number) for number in range(10)], total.s()) for _ in range(chords)))


def nested(depth):
    """A chord of two chords of two chords …: 2 ** depth calls at the bottom."""
    return chord([nested(depth - 1), nested(depth - 1)], total.s()) if depth else noop.s()
