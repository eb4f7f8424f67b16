"""A kept group that gets further members: pure changes of what is stored, which each store makes in one step.

Used by the verb `grow_group` of stores, for chords that run and for groups. Values are JSON, as `launching` writes them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from celeriac.errors import CeleriacError, DecodeError

__all__ = ["PartBits", "grown", "with_members"]


def grown(value: bytes | None, group_id: str, task_id: str, is_chord: bool = False) -> tuple[int, bytes | None]:
    """Where a member stands in a group, and the group's new value; None if it has it already.

    Args:
        value: The result tuple that is kept; None if nothing is.

    Raises:
        CeleriacError: The group is a chord's header, and not kept.
        DecodeError: The value is no result tuple in JSON.
    """
    if value is None and is_chord:
        raise CeleriacError(f"chord {group_id} is over, or has expired: nothing can be added to it")
    group = _group(value, group_id)
    members = group[1]
    for index in range(len(members) - 1, -1, -1):  # it is one of the last
        if _id_of(members[index]) == task_id:
            return index, None
    members.append([[task_id, None], None])
    return len(members) - 1, msgspec.json.encode(group)


def with_members(value: bytes | None, group_id: str, task_ids: list[str]) -> bytes | None:
    """A group's value with further members behind its own; None if there are neither."""
    for task_id in task_ids:
        value = grown(value, group_id, task_id)[1] or value
    return value


def _group(value: bytes | None, group_id: str) -> list[Any]:
    if value is None:
        return [[group_id, None], []]
    try:
        group = msgspec.json.decode(value)
    except msgspec.DecodeError:
        group = None
    if not isinstance(group, list) or len(group) != 2 or not isinstance(group[1], list):
        raise DecodeError(
            f"group {group_id} is kept in a form that can't be added to: result_serializer has to be json"
        )
    return group


def _id_of(member: Any) -> Any:
    head = member[0] if isinstance(member, list) and member else None
    return head[0] if isinstance(head, list) and head else head


class PartBits(msgspec.Struct, frozen=True):
    """Which parts of a chord have ended, and which were added to it, as bits of two numbers: the count of file-like stores.

    Counting a part is a single write, so no death can come between the note that a part has ended and the count.
    """

    ended: int = 0
    added: int = 0

    @classmethod
    def read(cls, stored: bytes | None) -> PartBits:
        """What is stored, if anything is."""
        ended, _, added = (stored or b"0").partition(b"+")
        return cls(int(ended, 16), int(added or b"0", 16))

    def written(self) -> bytes:
        """What to store."""
        return b"%x+%x" % (self.ended, self.added) if self.added else b"%x" % self.ended

    def with_ended(self, index: int) -> PartBits:
        """This part has ended, too."""
        return PartBits(self.ended | 1 << index, self.added)

    def with_added(self, index: int) -> PartBits:
        """This part is expected, too."""
        return PartBits(self.ended, self.added | 1 << index)

    def is_over(self, size: int) -> bool:
        """Whether all parts of a chord have ended that began with so many."""
        return size > 0 and size + self.added.bit_count() <= self.ended.bit_count()
