"""Looking at a process from inside: its threads, its memory, and what blocks it. Celery's documented `utils.debug`.

Memory is read from the system's accounts (Linux), or by psutil where that is installed. Nothing of ours uses this.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from types import FrameType
from typing import Any, TextIO

from celeriac.local import try_import

__all__ = ["blockdetection", "cry", "humanbytes", "mem_rss", "memdump", "ps", "sample", "sample_mem"]

#: Samples of the memory in use, the newest last.
_samples: deque[str] = deque(maxlen=10_000)

_UNITS = ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "KB"))


def humanbytes(s: float) -> str:
    """A number of bytes in the largest unit that fits: "2KB"."""
    return next((f"{s / size:.1f}".removesuffix(".0") + unit for size, unit in _UNITS if s >= size), f"{s}b")


def mem_rss() -> str | None:
    """The memory that this process has in use, in words; None where the system does not tell."""
    found = _rss()
    return None if found is None else humanbytes(found)


def _rss() -> int | None:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        process = ps()
        return None if process is None else int(process.memory_info().rss)


def ps() -> Any:
    """This process as psutil sees it; None where that is not installed."""
    psutil = try_import("psutil")  # an extra
    return None if psutil is None else psutil.Process(os.getpid())


def sample_mem() -> str | None:
    """Take a sample of the memory in use, for `memdump`; returns it."""
    now = mem_rss()
    if now is not None:
        _samples.append(now)
    return now


def memdump(samples: int = 10, file: TextIO | None = None) -> None:
    """Write some of the samples, evenly chosen, and the memory in use now; then forget them."""
    out = file or sys.stderr
    if ps() is None and _rss() is None:
        out.write("- rss: this system does not tell (psutil would)\n")
        return
    before = list(_samples)
    _samples.clear()
    if before:
        out.write("- rss (sample):\n")
        out.writelines(f"-    > {text},\n" for text in sample(before, samples))
    out.write(f"- rss (end): {mem_rss()}.\n")


def sample(x: Sequence[Any], n: int, k: int = 0) -> Iterable[Any]:
    """`n` items of a sequence, evenly spaced from position `k` on."""
    step = max(1, len(x) // n)
    return (x[at] for at in range(k, min(len(x), k + step * n), step))


def cry(out: TextIO | None = None, sepchr: str = "=", seplen: int = 49) -> str | None:
    """The stacks of all threads, written to `out`, or returned if there is none."""
    target = out if out is not None else StringIO()
    line = sepchr * seplen
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        target.write(f"{names.get(ident, 'a thread without a name')}\n{line}\n")
        traceback.print_stack(frame, file=target)
        target.write("\n")
    return target.getvalue() if isinstance(target, StringIO) and out is None else None


@contextmanager
def blockdetection(timeout: int) -> Iterator[None]:
    """Raise RuntimeError in the block if it has not ended after `timeout` seconds. In the main thread only."""
    if not timeout:
        yield
        return

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise RuntimeError(f"the block has not ended after {timeout} seconds")

    before = signal.signal(signal.SIGALRM, on_alarm)
    rest = signal.alarm(timeout)
    try:
        yield
    finally:
        signal.alarm(rest)
        signal.signal(signal.SIGALRM, before)
