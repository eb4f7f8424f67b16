"""What `celeriac doctor` says: one finding, and how bad it is. Used by all parts of the examination."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Finding", "Level"]


class Level(enum.Enum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"  #: works, but may surprise or lose something
    FAIL = "fail"  #: does not work


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination.

    Attributes:
        topic: What was looked at, in a word or two.
        text: What was found, in one sentence.
        advice: What to do about it; "" where there is nothing to do.
    """

    level: Level
    topic: str
    text: str
    advice: str = ""
