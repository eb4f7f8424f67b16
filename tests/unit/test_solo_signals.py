"""Signals to a solo worker, which come in its main thread while another one runs its supervisor: none is lost."""

from __future__ import annotations

import signal
from collections import deque
from typing import Any, cast

from celeriac import Celeriac
from celeriac.cli.solo import _Solo


def _solo() -> _Solo:
    app = Celeriac("solo", broker="memory://", set_as_current=False)
    return _Solo(app, lambda nursery, app: cast("Any", None), lambda: None)


def test_a_signal_before_the_start_is_told_after_it() -> None:
    told: list[int] = []
    solo = _solo()
    solo._on_signal(signal.SIGHUP, None)
    solo._on_started(told.append)
    solo._on_signal(signal.SIGTERM, None)
    assert told == [signal.SIGHUP, signal.SIGTERM]


def test_a_signal_at_the_moment_of_the_start_is_told_once() -> None:
    told: list[int] = []
    solo = _solo()

    class Late(deque[int]):
        """The supervisor's thread is quicker than what the main thread is about to do."""

        def append(self, number: int, /) -> None:
            solo._on_started(told.append)
            super().append(number)

    solo._signals = Late()
    solo._on_signal(signal.SIGHUP, None)
    assert told == [signal.SIGHUP]


def test_a_signal_after_the_end_is_no_error() -> None:
    def ended(number: int) -> None:
        raise RuntimeError("Event loop is closed")

    solo = _solo()
    solo._on_started(ended)
    solo._on_signal(signal.SIGTERM, None)
    assert not solo._signals
