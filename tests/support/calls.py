"""Counting Python calls, so that a budget such as "25 calls in 7 files for one delay()" is a test.

A call counts when a Python function is entered, ours or the standard library's; calls of C functions do not. Resuming
a generator counts too. Comprehensions are calls in Python 3.11 and none in 3.12 and later.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import celeriac

__all__ = ["Call", "CallCount", "count_calls"]

_PACKAGE = Path(celeriac.__file__).resolve().parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a Python function."""

    depth: int
    function: str
    file: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCount:
    """The calls that one callable made in its thread, in order, without the call of itself."""

    result: Any
    made: tuple[Call, ...]

    @property
    def calls(self) -> int:
        """How many there were."""
        return len(self.made)

    @property
    def package_calls(self) -> int:
        """How many of them were of functions of celeriac."""
        return sum(call.file.startswith("celeriac/") for call in self.made)

    @property
    def files(self) -> list[str]:
        """Files of celeriac that were passed, by name."""
        return sorted({call.file for call in self.made if call.file.startswith("celeriac/")})

    @property
    def listing(self) -> str:
        """One line per call, indented by depth: what a failed budget test should show."""
        lines = [f"{'  ' * call.depth}{call.function}  ({call.file}:{call.line})" for call in self.made]
        head = f"{self.calls} calls, {self.package_calls} of celeriac in {len(self.files)} files"
        return "\n".join([head, *lines])


def count_calls(function: Callable[[], Any]) -> CallCount:
    """Call a Python function, best a lambda, and tell which Python calls it made.

    Make the same call once before, to leave out what is done only the first time.
    """
    made: list[Call] = []
    depth = -1

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal depth
        if event == "call":
            if depth >= 0:
                code = frame.f_code
                place = _file_name(code.co_filename)
                made.append(Call(depth=depth, function=code.co_qualname, file=place, line=code.co_firstlineno))
            depth += 1
        elif event == "return":
            depth -= 1

    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()  # what dies of earlier tests, and runs code of its own at that, is none of the calls
    sys.setprofile(profile)
    try:
        result = function()
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()
    return CallCount(result=result, made=tuple(made))


def _file_name(path: str) -> str:
    try:
        return f"celeriac/{Path(path).relative_to(_PACKAGE).as_posix()}"
    except ValueError:
        return Path(path).name
