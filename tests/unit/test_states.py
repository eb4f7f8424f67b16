"""The states of a task, their sets and their order."""

from __future__ import annotations

import pytest

from celeriac import states
from celeriac.states import precedence, state


def test_every_state_is_ready_or_unready() -> None:
    assert not states.READY_STATES & states.UNREADY_STATES
    assert states.READY_STATES | states.UNREADY_STATES >= states.ALL_STATES
    assert states.PROPAGATE_STATES < states.READY_STATES
    assert states.PROPAGATE_STATES < states.EXCEPTION_STATES


def test_ready_states_are_the_three_final_ones() -> None:
    assert {"SUCCESS", "FAILURE", "REVOKED"} == states.READY_STATES


def test_precedence_goes_from_final_to_waiting() -> None:
    ordered = ["SUCCESS", "FAILURE", "REVOKED", "STARTED", "RECEIVED", "REJECTED", "RETRY", "PENDING"]
    assert sorted(ordered, key=precedence) == ordered


def test_a_custom_state_ranks_between_failure_and_revoked() -> None:
    assert precedence("FAILURE") < precedence("PROGRESS") < precedence("REVOKED")
    assert precedence("PROGRESS") == states.NONE_PRECEDENCE


@pytest.mark.parametrize(
    ("lower", "higher"), [("PENDING", "SUCCESS"), ("STARTED", "FAILURE"), ("RETRY", "STARTED"), ("PENDING", "PROGRESS")]
)
def test_state_compares_by_precedence(lower: str, higher: str) -> None:
    assert state(lower) < state(higher)
    assert state(lower) <= state(higher)
    assert state(higher) > state(lower)
    assert state(higher) >= state(lower)
    assert not state(lower) > state(higher)


def test_state_is_its_text() -> None:
    assert state("SUCCESS") == "SUCCESS"
    assert {state("SUCCESS"): 1}["SUCCESS"] == 1
    assert state("SUCCESS") >= state("SUCCESS")
    assert not state("SUCCESS") > state("SUCCESS")
