"""A workflow as the result store knows it: which task sent which, and how each stands.

`celeriac workflow show` draws what `read_tree` finds. Stored results name their children and their parent; the store is asked
once per level of the tree, in batches, however wide it is.

Invariant: each task stands in the tree once, so that one that is met again (a retry's twin, a cycle) ends its branch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from celeriac import states
from celeriac.group_result import GroupResult
from celeriac.result import result_from_tuple
from celeriac.result_fields import ResultFields
from celeriac.result_set import ResultSet
from celeriac.result_steps import WINDOW
from celeriac.results.base import Record, ResultStore

__all__ = ["Node", "read_tree"]

#: How far up the first task of a workflow is looked for.
MAX_HEIGHT = 10_000


class Node:
    """A task, or a group of tasks.

    Attributes:
        record: What is stored of the task; None for a group and where nothing is stored.
        is_group: Whether it is a group.
        children: What it sent; the members of a group.
    """

    __slots__ = ("children", "id", "is_group", "record")

    def __init__(self, id: str, *, is_group: bool = False) -> None:
        self.id = id
        self.record: Record | None = None
        self.is_group = is_group
        self.children: list[Node] = []

    @property
    def state(self) -> str:
        """The task's state; PENDING where nothing is stored."""
        return states.PENDING if self.record is None else self.record.state

    @property
    def ended_at(self) -> datetime | None:
        """When the task ended."""
        text = None if self.record is None else self.record.date_done
        return datetime.fromisoformat(text) if text else None

    def tasks(self) -> Iterator[Node]:
        """All tasks in this branch, this one first."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            if not node.is_group:
                yield node
            waiting.extend(reversed(node.children))

    def count(self) -> Counter[str]:
        """How many tasks of this branch are in which state."""
        return Counter(node.state for node in self.tasks())


def read_tree(app: Any, id: str) -> Node | None:
    """The whole workflow that a task, or a kept group, is part of; None if nothing is stored under this id."""
    store: ResultStore = app.backend
    record = store.get([id])[0]
    if record is None:
        group = app.GroupResult.restore(id)
        if group is None:
            return None
        root = _node_of(group)
    else:
        root = Node(_first(store, record))
    _grow(app, root)
    return root


def _first(store: ResultStore, record: Record) -> str:
    """The id of the first task above this one of which something is stored."""
    seen = {record.id}
    while record.parent_id and record.parent_id not in seen and len(seen) < MAX_HEIGHT:
        above = store.get([record.parent_id])[0]
        if above is None:
            break
        record = above
        seen.add(record.id)
    return record.id


def _grow(app: Any, root: Node) -> None:
    seen: set[str] = set()
    level = list(_unread(root, seen))
    while level:
        for start in range(0, len(level), WINDOW):
            step = level[start : start + WINDOW]
            for node, record in zip(step, app.backend.get([each.id for each in step]), strict=True):
                node.record = record
                node.children = [_node_of(result_from_tuple(child, app)) for child in _children(record)]
        level = [leaf for node in level for child in node.children for leaf in _unread(child, seen)]


def _children(record: Record | None) -> Sequence[Any]:
    return () if record is None or record.children is None else record.children


def _unread(node: Node, seen: set[str]) -> Iterator[Node]:
    """The tasks of a new branch that were not met before."""
    if not node.is_group:
        if node.id not in seen:
            seen.add(node.id)
            yield node
        return
    for member in node.children:
        yield from _unread(member, seen)


def _node_of(result: ResultFields | ResultSet) -> Node:
    if not isinstance(result, GroupResult):
        return Node(str(result.id))
    node = Node(str(result.id), is_group=True)
    node.children = [_node_of(member) for member in result.results]
    return node
