"""What is fuzzed: functions that take any bytes and do with them what a parser's caller would do.

`target` registers one; `run` calls it within limits of CPU time and says what went wrong. `scripts/fuzz.py` runs them under
a coverage-guided fuzzer, `tests/properties/test_fuzz.py` over what was found once and over a few random inputs.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

__all__ = ["SEEDS", "TARGETS", "Finding", "Hang", "Target", "bounds", "run", "seeds_of", "target"]

#: CPU seconds that one input may take. What is meant to be fast takes microseconds.
CPU_SECONDS = 5
#: Bytes that one input may make the process grow by.
MEMORY = 1 << 30
#: Inputs that once did harm, in a folder for each target.
SEEDS = Path(__file__).parent.parent / "properties" / "seeds"

#: CPU seconds that passed since the input began, within `bounds`.
_seconds = [0]

Call = Callable[[bytes], None]


class Hang(BaseException):
    """An input took too much CPU time. Not an Exception, so that no `except` of the code under test takes it."""


class Target(NamedTuple):
    """One thing to fuzz.

    Attributes:
        refuses: The errors that its documentation names.
        modules: What it is to cover.
        starts: Well-formed inputs to begin with.
    """

    name: str
    call: Call
    refuses: tuple[type[Exception], ...]
    modules: tuple[str, ...]
    starts: Callable[[], Iterable[bytes]]


class Finding(NamedTuple):
    """What an input did wrong.

    Attributes:
        place: Where: two findings of one place are one bug.
        report: For people.
    """

    place: str
    report: str


TARGETS: dict[str, Target] = {}


def target(
    *modules: str, refuses: tuple[type[Exception], ...] = (), starts: Callable[[], Iterable[bytes]] = tuple
) -> Callable[[Call], Call]:
    """Register a function as a target; its name is the target's."""

    def register(call: Call) -> Call:
        TARGETS[call.__name__] = Target(call.__name__, call, refuses, modules, starts)
        return call

    return register


def run(found: Target, data: bytes) -> Finding | None:
    """Call a target. None if it took the input, or refused it with one of its documented errors."""
    _seconds[0] = 0
    try:
        found.call(data)
    except found.refuses:
        return None
    except (Exception, Hang) as exc:
        frames = traceback.extract_tb(exc.__traceback__)
        own = [frame for frame in frames if "/celeriac/" in frame.filename] or frames
        where = own[0] if isinstance(exc, Hang) else own[-1]
        place = f"{type(exc).__name__} in {Path(where.filename).name}:{where.lineno} {where.name}"
        return Finding(place, "".join(traceback.format_exception(exc, limit=-12))[-4000:])
    return None


@contextlib.contextmanager
def bounds() -> Iterator[None]:
    """Let each input within take so much CPU time, and this process grow by so much memory."""

    def tick(number: int, frame: FrameType | None) -> None:
        _seconds[0] += 1
        if _seconds[0] > CPU_SECONDS:
            raise Hang(f"more than {CPU_SECONDS} s of CPU time")

    before = signal.signal(signal.SIGVTALRM, tick)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, 1, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def seeds_of(name: str) -> list[Path]:
    """Files with inputs that once did harm to this target."""
    return sorted((SEEDS / name).glob("*"))
