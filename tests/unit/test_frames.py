"""Frames between supervisor and runners come out as they went in, wherever the stream is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celeriac.runner.protocol import FrameReader, Kind, decode_frame, encode_frame


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(0, 400), max_size=12))
def test_frames_survive_any_cut_of_the_stream(values: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(encode_frame(Kind.READY, value) for value in values)
    places = sorted(min(cut, len(stream)) for cut in cuts)
    reader = FrameReader()
    frames = []
    for begin, end in zip([0, *places], [*places, len(stream)], strict=True):
        frames += reader.feed(stream[begin:end])
    assert [decode_frame(kind, body) for kind, body in frames] == values
    assert reader.feed(encode_frame(Kind.READY, b"next"))[0][0] == Kind.READY
