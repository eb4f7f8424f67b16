"""The names of message files: all that a broker has to know about a message besides its content stands in them.

The filesystem transport calls it. Since every change of a message's state is then one `rename`, which the system does
whole or not at all, and for one process only, a crash can't leave a message half-way, and no lock is needed.

In the data folder a name is `<order>_<id>.d<deliveries>s<starts>.<queue>.msg`; one that stock Celery wrote lacks the counts.
Where state has a moment (a lease's end, when a message is due), that stands before it.
"""

from __future__ import annotations

import itertools
import os
import re
import time

import msgspec

__all__ = ["Lease", "Name", "new_name", "parse_due", "parse_lease"]

_NAME = re.compile(r"(\d+)_([0-9a-f-]+)(?:\.d(\d+)s(\d+))?\.(.+)\.msg", re.DOTALL)
_LEASE = re.compile(r"(\d+)\.(\w+)\.(\w+)\.(.*)", re.DOTALL)
_DUE = re.compile(r"(\d+)\.(.*)", re.DOTALL)
#: Digits of an order: 3 for the priority (255 minus it), 20 for the time (ns), 6 for the place in one process.
_DIGITS = 29
_places = itertools.count()


class Name(msgspec.Struct, frozen=True):
    """What a message file's name says."""

    order: str
    id: str
    queue: str
    deliveries: int = 0
    starts: int = 0

    @classmethod
    def parse(cls, text: str) -> Name | None:
        """The name in a text; None if it is no message's."""
        found = _NAME.fullmatch(text)
        if found is None:
            return None
        order, id, deliveries, starts, queue = found.groups()
        if len(order) < _DIGITS:  # stock Celery's: no priority, and a time of its own
            order = "255" + order.zfill(_DIGITS - 3)
        return cls(order, id, queue.replace("%2F", "/").replace("%25", "%"), int(deliveries or 0), int(starts or 0))

    def __str__(self) -> str:
        queue = self.queue.replace("%", "%25").replace("/", "%2F")
        return f"{self.order}_{self.id}.d{self.deliveries}s{self.starts}.{queue}.msg"

    def counted(self, deliveries: int, starts: int) -> Name:
        """The same message with other counts."""
        return Name(self.order, self.id, self.queue, deliveries, starts)


class Lease(msgspec.Struct, frozen=True):
    """A message on lease: until when (monotonic milliseconds of this boot of the machine), and whose it is."""

    until_ms: int
    boot: str
    token: str
    name: Name

    def __str__(self) -> str:
        return f"{self.until_ms:015d}.{self.boot}.{self.token}.{self.name}"

    def is_over(self, boot: str, monotonic: float) -> bool:
        """Whether others may take the message. No lease outlives the machine that it was given on."""
        return self.boot != boot or self.until_ms <= monotonic * 1000


def new_name(queue: str, priority: int) -> Name:
    """A name for a new message, behind all that were made before."""
    rank = 255 - min(max(priority, 0), 255)
    order = f"{rank:03d}{time.time_ns():020d}{next(_places) % 1_000_000:06d}"
    return Name(order, os.urandom(16).hex(), queue)


def parse_lease(text: str) -> Lease | None:
    """The lease in the name of a file among those on lease."""
    found = _LEASE.fullmatch(text)
    name = Name.parse(found[4]) if found else None
    return Lease(int(found[1]), found[2], found[3], name) if found and name else None


def parse_due(text: str) -> tuple[int, Name] | None:
    """When a delayed message is due (milliseconds since 1970), and its name. Dead letters are named alike."""
    found = _DUE.fullmatch(text)
    name = Name.parse(found[2]) if found else None
    return (int(found[1]), name) if found and name else None
