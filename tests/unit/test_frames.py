"""Frames between supervisor and runners come out as they went in, wherever the stream is cut."""

from __future__ import annotations

import socket
import threading

from hypothesis import given
from hypothesis import strategies as st

from celeriac.runner.protocol import PIECE, FrameReader, Kind, decode_frame, encode_frame


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


def test_frames_that_are_longer_than_a_read_come_whole_and_the_end_is_told() -> None:
    values = [b"short", b"x" * (3 * PIECE), b"last"]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sending = threading.Thread(
            target=lambda: (
                theirs.sendall(b"".join(encode_frame(Kind.READY, value) for value in values)),
                theirs.close(),
            )
        )
        sending.start()
        reader, frames = FrameReader(), []
        while (more := reader.receive(ours)) is not None:
            frames += more
        sending.join()
    assert [decode_frame(kind, body) for kind, body in frames] == values
