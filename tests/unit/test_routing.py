"""Which queue a routing key reaches: the pure function against a plain model of AMQP's rules."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from celeriac.routing import Exchange, Queue, binding_matches

words = st.sampled_from(["a", "b", "log", "x-y", "ä", "a+b", "$"])
keys = st.lists(words, min_size=1, max_size=5)
patterns = st.lists(words | st.sampled_from(["*", "#"]), min_size=1, max_size=5)


def matches(pattern: list[str], key: list[str]) -> bool:
    """AMQP's rule, word by word: `*` is one word, `#` is none or more."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(matches(pattern[1:], key[count:]) for count in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and matches(pattern[1:], key[1:])


@given(patterns, keys)
def test_topics_follow_the_rule(pattern: list[str], key: list[str]) -> None:
    assume(["#", "#"] not in [pattern[i : i + 2] for i in range(len(pattern))])
    assert binding_matches("topic", ".".join(pattern), ".".join(key)) == matches(pattern, key)


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("log.*", "log.error", True),
        ("log.*", "log", False),
        ("log.*", "log.error.disk", False),
        ("log.#", "log", True),
        ("log.#", "log.error.disk", True),
        ("log.#", "logger", False),
        ("#.error", "error", True),
        ("#.error", "a.b.error", True),
        ("#.error", "terror", False),
        ("a.#.z", "a.z", True),
        ("a.#.z", "a.b.c.z", True),
        ("a.#.z", "az", False),
        ("#", "", True),
        ("#", "a.b", True),
        ("*", "a", True),
        ("*", "a.b", False),
        ("a.b", "a.b", True),
        ("a.b", "axb", False),
        ("a[1].(b)", "a[1].(b)", True),
    ],
)
def test_topics(pattern: str, key: str, expected: bool) -> None:
    assert binding_matches("topic", pattern, key) is expected


def test_no_key_makes_a_pattern_take_long() -> None:
    """Trying all ways to share these words among the hashes would take years."""
    assert not binding_matches("topic", "#." + "a.#." * 30 + "b", ".".join("a" * 120))


def test_two_hashes_mean_the_same_as_one() -> None:
    assert binding_matches("topic", "#.#.a", "a")


@given(words, words)
def test_direct_and_fanout(binding: str, key: str) -> None:
    assert binding_matches("direct", binding, key) == (binding == key)
    assert binding_matches("fanout", binding, key)


def test_patterns_mean_nothing_in_a_direct_exchange() -> None:
    assert not binding_matches("direct", "log.*", "log.error")
    assert binding_matches("direct", "log.*", "log.*")


def test_a_queue_is_bound_to_the_default_exchange_by_default() -> None:
    assert Queue("q").exchange == Exchange("", "direct")
