"""The contract of coordination drivers. A driver's test is a subclass with the fixtures `place` and `other`.

Example:
    class TestMine(CoordinationSuite):
        @pytest.fixture
        def place(self, url):
            yield MyCoordination(url)
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from celeriac.coordination.base import FOREVER, Claim, Coordination

__all__ = ["CoordinationSuite"]

#: Seconds until something has to have happened.
PATIENCE = 10.0


def claim(name: str, holder: str, seconds: float = 30.0, limit: int = 1, *, replaces: bool = False) -> Claim:
    """A claim."""
    return Claim(name=name, holder=holder, seconds=seconds, limit=limit, replaces=replaces)


def until(is_so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


class CoordinationSuite:
    """What every driver promises. `other` is a second client of the same place."""

    @pytest.fixture
    def name(self) -> str:
        """A name that no other test uses."""
        return f"täsk:{uuid.uuid4()}"

    def test_one_holder_at_a_time(self, place: Coordination, other: Coordination, name: str) -> None:
        """The second is told who is in the way, until the first gives it back."""
        assert place.acquire([claim(name, "a")]) == [""]
        assert other.acquire([claim(name, "b")]) == ["a"]
        other.release([claim(name, "b")])  # what it doesn't hold
        assert other.acquire([claim(name, "b")]) == ["a"]
        place.release([claim(name, "a")])
        assert other.acquire([claim(name, "b")]) == [""]

    def test_names_differ_by_case_and_by_their_ends(self, place: Coordination, name: str) -> None:
        """Long names with a common beginning, other cases, blanks at the end: all different."""
        names = [name, name.upper(), name + " ", name + "x" * 300 + "1", name + "x" * 300 + "2", name + "%'\""]
        assert place.acquire([claim(each, str(number)) for number, each in enumerate(names)]) == [""] * len(names)

    def test_as_many_as_the_limit_says(self, place: Coordination, other: Coordination, name: str) -> None:
        """Three of five; the answers are in the order of the claims."""
        answers = place.acquire([claim(name, f"h{number}", limit=3) for number in range(5)])
        assert [not answer for answer in answers] == [True, True, True, False, False]
        assert set(other.holders(name)) == {"h0", "h1", "h2"}

    def test_no_limit(self, place: Coordination, name: str) -> None:
        """A limit of 0 lets anybody in."""
        assert place.acquire([claim(name, f"h{number}", limit=0) for number in range(20)]) == [""] * 20

    def test_a_holder_renews_also_above_a_lowered_limit(self, place: Coordination, name: str) -> None:
        """Who is in stays in; nobody else comes in."""
        place.acquire([claim(name, "a", limit=2), claim(name, "b", limit=2)])
        assert place.acquire([claim(name, "a"), claim(name, "b"), claim(name, "c")])[:2] == ["", ""]
        assert set(place.holders(name)) == {"a", "b"}

    def test_a_claim_ends_with_its_seconds(self, place: Coordination, other: Coordination, name: str) -> None:
        """Nobody has to give it back."""
        place.acquire([claim(name, "a", 0.2)])
        until(lambda: other.acquire([claim(name, "b")]) == [""])
        assert set(place.holders(name)) == {"b"}
        assert place.acquire([claim(name, "a")]) == ["b"]

    def test_renewing_counts_from_the_renewal(self, place: Coordination, name: str) -> None:
        """Longer, then shorter."""
        place.acquire([claim(name, "a", 0.3)])
        place.acquire([claim(name, "a", 100)])
        first = place.holders(name)["a"]
        place.acquire([claim(name, "a", 50)])
        assert 40 < first - place.holders(name)["a"] < 60
        place.acquire([claim(name, "a", FOREVER)])
        assert place.holders(name)["a"] > time.time() + 1e10

    def test_replacing_takes_it_away(self, place: Coordination, other: Coordination, name: str) -> None:
        """The old holder is in nobody's way any more."""
        place.acquire([claim(name, "a")])
        assert other.acquire([claim(name, "b", replaces=True)]) == [""]
        assert place.acquire([claim(name, "a")]) == ["b"]
        place.release([claim(name, "a")])
        assert set(place.holders(name)) == {"b"}

    def test_a_race_has_as_many_winners_as_the_limit_says(
        self, place: Coordination, other: Coordination, name: str
    ) -> None:
        """Many threads, two clients."""

        def attempt(number: int) -> bool:
            client = place if number % 2 else other
            return client.acquire([claim(name, f"h{number}", limit=3)]) == [""]

        with ThreadPoolExecutor(8) as threads:
            assert sum(threads.map(attempt, range(40))) == 3
        assert len(place.holders(name)) == 3

    def test_claims_in_any_order_do_not_block_each_other(
        self, place: Coordination, other: Coordination, name: str
    ) -> None:
        """Batches with the same names in opposite orders."""
        names = [f"{name}:{number}" for number in range(6)]

        def attempt(number: int) -> None:
            order = names if number % 2 else names[::-1]
            (place if number % 3 else other).acquire([claim(each, f"h{number}", limit=0) for each in order])

        with ThreadPoolExecutor(6) as threads:
            list(threads.map(attempt, range(30)))
        assert all(len(place.holders(each)) == 30 for each in names)

    def test_a_bucket_gives_one_start_per_interval(self, place: Coordination, other: Coordination, name: str) -> None:
        """No burst, whoever asks."""
        assert place.take(name, 60.0, 5).granted == 1
        again = other.take(name, 60.0, 5)
        assert again.granted == 0
        assert 55 < again.wait <= 60

    def test_close_starts_come_in_small_groups(self, place: Coordination, name: str) -> None:
        """50 ms of unused time are made up for, no more."""
        place.take(name, 0.001, 1)
        until(lambda: place.take(name, 0.001, 0).wait == 0)
        time.sleep(0.1)  # unused time, twice what is made up for
        assert 40 <= place.take(name, 0.001, 1000).granted <= 51

    def test_a_raised_limit_applies_at_once(self, place: Coordination, name: str) -> None:
        """What is left of a long interval does not hold up a short one."""
        place.take(name, 3600.0, 1)
        assert place.take(name, 0.5, 1).wait <= 0.5

    def test_two_threads_do_not_both_get_the_one_start(
        self, place: Coordination, other: Coordination, name: str
    ) -> None:
        """A bucket is taken from in one step."""
        with ThreadPoolExecutor(6) as threads:
            taken = threads.map(lambda number: (place if number % 2 else other).take(name, 60.0, 1).granted, range(24))
        assert sum(taken) == 1

    def test_it_may_be_used_again_after_close(self, place: Coordination, name: str) -> None:
        """Closing releases connections only."""
        place.acquire([claim(name, "a")])
        place.close()
        assert set(place.holders(name)) == {"a"}

    def test_nothing_asked_is_nothing_done(self, place: Coordination) -> None:
        """Empty batches."""
        assert place.acquire([]) == []
        place.release([])
