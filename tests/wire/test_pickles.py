"""Pickles put together from pickles load as if they had been written in one go."""

from __future__ import annotations

import datetime as dt
import io
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.wire.pickles import pickle_splice

shared = ["shared", {"key": "shared"}]
looped: list[Any] = [1]
looped.append(looped)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=20,
)


def spliced(*parts: Any, **plain: Any) -> bytes:
    return pickle_splice(plain, {f"v{n}": pickle.dumps(part, protocol=4) for n, part in enumerate(parts)})


@settings(deadline=None)
@given(st.lists(values, min_size=1, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "é"]), values))
def test_any_values(parts: list[Any], plain: dict[str, Any]) -> None:
    data = spliced(*parts, **plain)
    expected = {**{f"v{n}": part for n, part in enumerate(parts)}, **plain}
    assert pickle.loads(data) == expected
    assert pickle._Unpickler(io.BytesIO(data)).load() == expected, "the decoder in Python is stricter about frames"


@pytest.mark.parametrize("size", [0, 3, 60_000, 65_535, 65_536, 70_000, 200_000])
@pytest.mark.parametrize("kind", [bytes, str, bytearray])
def test_values_that_do_not_fit_into_one_frame(size: int, kind: Any) -> None:
    large = "x" * size if kind is str else kind(size)
    value = [large, shared, large, shared, dt.date(2026, 1, 2)]
    loaded = pickle.loads(spliced(value, value, task_id="1"))
    assert loaded == {"v0": value, "v1": value, "task_id": "1"}
    assert loaded["v0"][1] is loaded["v0"][3]


def test_values_of_many_frames() -> None:
    value = [str(number) for number in range(40_000)]
    assert pickle.loads(spliced(value, value)) == {"v0": value, "v1": value}


def test_references_stay_within_their_value() -> None:
    loaded = pickle.loads(spliced([shared, shared], [shared, looped]))
    assert loaded["v1"][1][1] is loaded["v1"][1]
    assert loaded["v0"] == [shared, shared]
