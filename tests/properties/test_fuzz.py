"""What comes from outside is decoded, or refused by the error that is documented: within bounds of time and memory.

Every target of tests/fuzz gets the inputs that once did harm (tests/properties/seeds), well-formed ones, and a few at random.
`make fuzz` goes on from there, guided by coverage.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import grammars, messages, results
from tests.fuzz.target import SEEDS, TARGETS, Target, bounds, run, seeds_of

assert grammars and messages and results

_SEEDS = [(name, path) for name in TARGETS for path in seeds_of(name)]


#: Warnings are no finding: `re` and `cryptography` warn of much that they take.
pytestmark = [pytest.mark.linux, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _within_bounds() -> Iterator[None]:
    """What is dropped is logged; that is tested elsewhere."""
    logging.disable(logging.CRITICAL)
    with bounds():
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("name", "path"), _SEEDS, ids=[f"{name}-{path.name}" for name, path in _SEEDS])
def test_what_did_harm_once_does_none(name: str, path: Path) -> None:
    found = run(TARGETS[name], path.read_bytes())
    assert found is None, found.report


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_well_formed_inputs_are_taken(target: Target) -> None:
    for data in target.starts():
        found = run(target, data)
        assert found is None, found.report


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_any_input_is_decoded_or_refused(target: Target) -> None:
    @given(st.binary(max_size=200))
    @settings(deadline=None, max_examples=40, database=None)
    def check(data: bytes) -> None:
        found = run(target, data)
        assert found is None, found.report

    check()


def test_every_folder_of_seeds_belongs_to_a_target() -> None:
    assert {path.name for path in SEEDS.iterdir()} <= set(TARGETS)
