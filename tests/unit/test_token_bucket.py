"""The token bucket of kombu's documentation."""

from __future__ import annotations

import pytest

from celeriac.token_bucket import TokenBucket
from tests.support.clock import ManualClock


def test_tokens_come_back_with_time() -> None:
    clock = ManualClock()
    bucket = TokenBucket(2, capacity=3, clock=clock.monotonic)
    assert [bucket.can_consume() for _ in range(4)] == [True, True, True, False]
    assert bucket.expected_time() == 0.5
    clock.advance(0.5)
    assert bucket.expected_time() == 0
    assert not bucket.can_consume(2)
    assert bucket.can_consume()
    clock.advance(60)
    assert bucket.can_consume(3) and not bucket.can_consume()


def test_what_waits_is_first_in_first_out() -> None:
    bucket = TokenBucket(1)
    bucket.add("a")
    bucket.add("b")
    assert bucket.pop() == "a"
    bucket.clear_pending()
    with pytest.raises(IndexError):
        bucket.pop()
