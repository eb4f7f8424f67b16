"""Whatever is claimed, in whatever order: never more holders than the limit; and any text is a rate or a clear error."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.coordination.base import Claim, decide
from celeriac.errors import ImproperlyConfigured
from celeriac.rates import interval_of, parse_rate, take, tolerance_of
from celeriac.task_limits import OPTIONS, check_option, is_named, mark_of

LIMIT = 3
names, holders = st.sampled_from("ab"), st.sampled_from("uvwxyz")
claims = st.builds(Claim, name=names, holder=holders, seconds=st.floats(0.1, 5), limit=st.just(LIMIT))
steps = st.lists(st.tuples(st.floats(0, 3), st.lists(claims, min_size=1, max_size=6)), max_size=20)


@given(steps)
@settings(deadline=None)
def test_there_are_never_more_holders_than_the_limit(steps: list[tuple[float, list[Claim]]]) -> None:
    rows: dict[str, dict[str, float]] = {}
    now = 1000.0
    for pause, wanted in steps:
        now += pause
        answers, changes = decide(wanted, rows, now)
        for (name, holder), at in changes.items():
            if at is None:
                del rows[name][holder]
            else:
                rows.setdefault(name, {})[holder] = at
        alive = {name: {h for h, at in held.items() if at > now} for name, held in rows.items()}
        assert all(len(held) <= LIMIT for held in alive.values())
        for claim, answer in zip(wanted, answers, strict=True):
            if answer:
                assert answer in alive[claim.name] and len(alive[claim.name]) == LIMIT
            else:
                assert claim.holder in alive[claim.name]


rates = st.floats(0.01, 1000)


@given(rates, st.lists(st.tuples(st.floats(0, 2), st.integers(0, 50)), max_size=40))
@settings(deadline=None)
def test_a_bucket_never_gives_more_than_its_rate(rate: float, asked: list[tuple[float, int]]) -> None:
    interval = interval_of(rate)
    now, next_at, granted = 1000.0, 0.0, []
    for pause, wanted in asked:
        now += pause
        taken = take(next_at, now, interval, tolerance_of(interval), wanted)
        assert 0 <= taken.granted <= wanted
        assert 0 <= taken.wait <= interval * (1 + 1e-9) + 1e-6
        next_at = taken.next_at
        granted += [now] * taken.granted
    if granted:
        span = granted[-1] - granted[0]
        assert len(granted) <= span / interval + tolerance_of(interval) / interval + 2


@given(st.text() | st.floats() | st.integers() | st.binary() | st.none() | st.booleans())
@settings(deadline=None)
def test_any_value_is_a_rate_or_a_clear_error(value: Any) -> None:
    try:
        rate = parse_rate(value)
    except ValueError as exc:
        assert "is no rate limit" in str(exc) and "\n" not in str(exc)
    else:
        assert 0 <= rate < float("inf")


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
anything = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(st.sampled_from(sorted(OPTIONS)), anything)
@settings(deadline=None)
def test_any_value_of_an_option_is_taken_or_named(option: str, value: Any) -> None:
    try:
        check_option("shop.add", option, value)
    except ImproperlyConfigured as exc:
        assert str(exc).startswith(f"task 'shop.add': {option}: ")


fields = ["key", "unique", "until", "conflict", "is_held", "ttl", "ends_at", "is_named"]


@given(anything | st.dictionaries(st.sampled_from(fields), anything))
@settings(deadline=None)
def test_any_header_is_read_or_passed_over(value: Any) -> None:
    headers = {"celeriac-limits": value}
    mark_of(headers)
    is_named(headers)
