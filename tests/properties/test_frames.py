"""Frames survive any way in which a stream cuts or joins them, and cells tell what was written."""

from __future__ import annotations

import itertools
import os

from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.message import Message
from celeriac.outcome import Execution
from celeriac.runner.protocol import FrameReader, Kind, decode_frame, encode_frame, make_cells

_BODY = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=300), lambda inner: st.lists(inner, max_size=3)
)
_FRAMES = st.lists(st.tuples(st.sampled_from([Kind.READY, Kind.SPAWNED, Kind.EXITED]), _BODY), max_size=12)


@given(frames=_FRAMES, cuts=st.lists(st.integers(0, 4000), max_size=30))
@settings(deadline=None)
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    frames: list[tuple[Kind, object]], cuts: list[int]
) -> None:
    stream = b"".join(encode_frame(kind, value) for kind, value in frames)
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    reader, got = FrameReader(), []
    for start, end in itertools.pairwise(places):
        got += reader.feed(stream[start:end])
    assert [(kind, decode_frame(kind, body)) for kind, body in got] == frames


@given(frames=_FRAMES, missing=st.integers(1, 5))
@settings(deadline=None)
def test_an_incomplete_frame_is_kept_until_the_rest_comes(frames: list[tuple[Kind, object]], missing: int) -> None:
    last = encode_frame(Kind.READY, b"the last one")
    stream = b"".join(encode_frame(kind, value) for kind, value in frames) + last
    reader = FrameReader()
    assert len(reader.feed(stream[:-missing])) == len(frames)
    ((kind, body),) = reader.feed(stream[-missing:])
    assert (kind, decode_frame(kind, body)) == (Kind.READY, b"the last one")


@given(
    body=st.binary(max_size=1000),
    priority=st.none() | st.integers(0, 255),
    eta=st.none() | st.floats(0, 1e10),
    headers=st.dictionaries(st.text("abc"), st.none() | st.integers(0, 9) | st.text("xyz")),
    serial=st.integers(1, 2**62),
)
@settings(deadline=None)
def test_an_execution_survives_its_frame(
    body: bytes, priority: int | None, eta: float | None, headers: dict[str, object], serial: int
) -> None:
    message = Message(id="i", headers=headers, body=body, priority=priority, eta=eta)
    execution = Execution(serial, 3, message, "celery", 2)
    ((kind, frame),) = FrameReader().feed(encode_frame(Kind.RUN, execution))
    assert decode_frame(kind, frame) == execution


@given(
    running=st.tuples(st.integers(1, 2**62), st.floats(0, 1e9)),
    recalled=st.tuples(st.integers(0, 100), st.integers(0, 100)),
    serial=st.integers(0, 120),
)
@settings(deadline=None)
def test_cells_tell_what_was_written_slot_by_slot(
    running: tuple[int, float], recalled: tuple[int, int], serial: int
) -> None:
    fd, cells = make_cells(2)
    try:
        cells.begin(1, *running)
        cells.recall(1, *recalled)
        assert cells.running(1) == running
        assert cells.running(0) == (0, 0.0)
        assert cells.is_recalled(1, serial) is (recalled[0] <= serial < recalled[1])
        assert not cells.is_recalled(0, serial)
        cells.limit_softly(1, running[0])
        assert cells.is_soft_limited(1)
        assert not cells.is_soft_limited(0)
        cells.end(1)
        assert cells.running(1)[0] == 0
        assert not cells.is_soft_limited(1)
    finally:
        cells.close()
        os.close(fd)
