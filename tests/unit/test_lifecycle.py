"""What signals mean for a worker's end: one pure function."""

from __future__ import annotations

import signal

import pytest

from celeriac.worker.lifecycle import Phase, next_phase


def _after(*numbers: int, environ: dict[str, str] | None = None) -> list[Phase]:
    phase, phases = Phase.RUNNING, []
    for number in numbers:
        phase = next_phase(phase, number, environ or {})
        phases.append(phase)
    return phases


def test_term_is_warm_and_more_of_them_change_nothing() -> None:
    """[B-WORKER-002, B-WORKER-005]"""
    assert _after(signal.SIGTERM, signal.SIGTERM, signal.SIGTERM) == [Phase.WARM] * 3


def test_quit_is_cold_at_once_and_from_warm() -> None:
    """[B-WORKER-003]"""
    assert _after(signal.SIGQUIT, signal.SIGQUIT) == [Phase.COLD] * 2
    assert _after(signal.SIGTERM, signal.SIGQUIT) == [Phase.WARM, Phase.COLD]


def test_each_int_goes_one_further() -> None:
    """[B-WORKER-004]"""
    assert _after(signal.SIGINT, signal.SIGINT, signal.SIGINT, signal.SIGINT) == [
        Phase.WARM, Phase.COLD, Phase.HARD, Phase.HARD,
    ]  # fmt: skip
    assert _after(signal.SIGTERM, signal.SIGINT) == [Phase.WARM, Phase.COLD]


def test_term_never_goes_back() -> None:
    """[B-WORKER-005]"""
    assert _after(signal.SIGQUIT, signal.SIGTERM) == [Phase.COLD] * 2


def test_term_can_be_made_cold() -> None:
    """[B-WORKER-006]"""
    assert _after(signal.SIGTERM, environ={"REMAP_SIGTERM": "SIGQUIT"}) == [Phase.COLD]
    assert _after(signal.SIGTERM, environ={"REMAP_SIGTERM": "SIGTERM"}) == [Phase.WARM]


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_no_signal_makes_an_end_warmer(phase: Phase, number: int) -> None:
    assert next_phase(phase, number, {}) >= phase
