"""A process looked at from inside."""

from __future__ import annotations

import io
import re
import signal
import threading

import pytest

from celeriac import debugging


def test_bytes_in_words() -> None:
    words = [debugging.humanbytes(n) for n in (0, 1023, 1024, 1536, 3 * 2**20, 2**30, 2**40)]
    assert words == ["0b", "1023b", "1KB", "1.5KB", "3MB", "1GB", "1TB"]


@pytest.mark.linux
def test_memory_is_sampled_and_written_down() -> None:
    assert re.fullmatch(r"[\d.]+[MG]B", debugging.mem_rss() or "")
    sampled = [debugging.sample_mem() for _ in range(30)]
    assert None not in sampled
    out = io.StringIO()
    debugging.memdump(samples=3, file=out)
    lines = out.getvalue().splitlines()
    assert lines[0] == "- rss (sample):" and len(lines) == 5
    assert lines[-1].startswith("- rss (end): ")
    again = io.StringIO()
    debugging.memdump(file=again)  # the samples were forgotten
    assert again.getvalue().startswith("- rss (end)")


def test_samples_are_evenly_spaced() -> None:
    assert list(debugging.sample(range(10), 3)) == [0, 3, 6]
    assert list(debugging.sample(range(10), 2, k=4)) == [4, 9]
    assert list(debugging.sample([1, 2], 5)) == [1, 2]


def test_cry_shows_the_stack_of_each_thread() -> None:
    go_on = threading.Event()
    began = threading.Event()

    def wait_here() -> None:
        began.set()
        go_on.wait(60)

    thread = threading.Thread(target=wait_here, name="the-other-thread")
    thread.start()
    began.wait(60)
    text = debugging.cry() or ""
    out = io.StringIO()
    assert debugging.cry(out, sepchr="-", seplen=3) is None
    go_on.set()
    thread.join()
    for found in (text, out.getvalue()):
        assert "the-other-thread" in found and "wait_here" in found
    assert "the-other-thread\n---\n" in out.getvalue()


def test_a_block_that_does_not_end_is_left() -> None:
    with pytest.raises(RuntimeError, match="has not ended after 60 seconds"), debugging.blockdetection(60):
        signal.raise_signal(signal.SIGALRM)  # the time has come
    with debugging.blockdetection(60):
        pass
    with debugging.blockdetection(0):
        pass
