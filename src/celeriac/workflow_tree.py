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

import msgspec

from celeriac import states
from celeriac.group_result import GroupResult
from celeriac.result import result_from_tuple
from celeriac.result_fields import ResultFields
from celeriac.result_set import ResultSet
from celeriac.result_steps import WINDOW
from celeriac.results.base import Record, ResultStore, header_id

__all__ = ["Node", "read_tree"]

#: How far up the first task of a workflow is looked for.
MAX_HEIGHT = 10_000


class Node:
    """A task, or a group of tasks.

    Attributes:
        record: What is stored of the task; None for a group and where nothing is stored.
        is_group: Whether it is a group.
        children: What it sent; the members of a group.
        after: What comes after a group: the body of a chord.
    """

    __slots__ = ("after", "children", "id", "is_group", "record")

    def __init__(self, id: str, *, is_group: bool = False) -> None:
        self.id = id
        self.record: Record | None = None
        self.is_group = is_group
        self.children: list[Node] = []
        self.after: list[Node] = []

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
        """All tasks in this branch, this one first, each once."""
        waiting, seen = [self], set()
        while waiting:
            node = waiting.pop()
            if not node.is_group and node.id not in seen:
                seen.add(node.id)
                yield node
            waiting.extend(reversed([*node.children, *node.after]))

    def count(self) -> Counter[str]:
        """How many tasks of this branch are in which state."""
        return Counter(node.state for node in self.tasks())

    def members(self) -> Counter[str]:
        """How many tasks of a group are in which state, without what comes after it."""
        return sum((member.count() for member in self.children), Counter[str]())


def read_tree(app: Any, id: str) -> Node | None:
    """The whole workflow that a task, or a kept group, is part of; None if nothing is stored under this id."""
    store: ResultStore = app.backend
    record = store.get([id])[0]
    if record is None:
        group = _kept(app, id)
        if group is None:
            return None
        root = _branch(group)
        _grow(app, root)
        return root
    way = _way_up(store, record)
    root = _header(app, way[-1]) or Node(way[-1].id)
    _grow(app, root)
    _attach(app, root, way)
    return root


def _header(app: Any, record: Record) -> Node | None:
    """The group, or chord's header, that the first task of a workflow belongs to, if it is kept."""
    group = _kept(app, record.group_id) if record.group_id else None
    found = None if group is None else _branch(group)
    return found if found is not None and any(node.id == record.id for node in found.tasks()) else None


def _kept(app: Any, group_id: str) -> Any:
    group = app.GroupResult.restore(group_id)
    if group is not None:
        return group
    [kept] = app.backend.get([header_id(group_id)])
    return None if kept is None else result_from_tuple(msgspec.json.decode(kept.result), app)


def _way_up(store: ResultStore, record: Record) -> list[Record]:
    """The task and those above it, as far as something is stored of them."""
    way, seen = [record], {record.id}
    while record.parent_id and record.parent_id not in seen and len(seen) < MAX_HEIGHT:
        above = store.get([record.parent_id])[0]
        if above is None:
            break
        record = above
        way.append(record)
        seen.add(record.id)
    return way


def _attach(app: Any, root: Node, way: list[Record]) -> None:
    """The body of a chord is no child of the part that ended last, but its parent all the same: show it below that part."""
    known = {node.id: node for node in root.tasks()}
    for above, record in zip(reversed(way[1:]), reversed(way[:-1]), strict=True):
        if record.id not in known:
            node = Node(record.id)
            if root.is_group and above.group_id == root.id:  # the body: it comes after the whole header
                root.after.append(node)
            else:
                known[above.id].children.append(node)
            _grow(app, node)
            known |= {each.id: each for each in node.tasks()}


def _grow(app: Any, root: Node) -> None:
    seen: set[str] = set()
    level = list(_unread(root, seen))
    while level:
        for start in range(0, len(level), WINDOW):
            step = level[start : start + WINDOW]
            for node, record in zip(step, app.backend.get([each.id for each in step]), strict=True):
                node.record = record
        level = [leaf for node in level for child in _add_children(app, node) for leaf in _unread(child, seen)]


def _add_children(app: Any, node: Node) -> list[Node]:
    """What the record of a task names; returns the branches that are new."""
    stored: Sequence[Any] = () if node.record is None or node.record.children is None else node.record.children
    known = {child.id for child in node.children}
    found = [_branch(result_from_tuple(child, app), node.id) for child in stored]
    new = [child for child in found if child.id not in known]
    node.children.extend(new)
    return new


def _unread(branch: Node, seen: set[str]) -> Iterator[Node]:
    """The tasks of a new branch that were not met before."""
    waiting = [branch]
    while waiting:
        node = waiting.pop()
        waiting.extend(reversed([*node.children, *node.after]))
        if not node.is_group and node.id not in seen:
            seen.add(node.id)
            yield node


def _branch(result: Any, above: str = "") -> Node:
    """A result, below those that come before it in its chain, up to the task `above`."""
    node = _node_of(result)
    while result.parent is not None and result.parent.id != above:
        result = result.parent
        before = _node_of(result)
        (before.after if before.is_group else before.children).append(node)
        node = before
    return node


def _node_of(result: ResultFields | ResultSet) -> Node:
    if not isinstance(result, GroupResult):
        return Node(str(result.id))
    node = Node(str(result.id), is_group=True)
    node.children = [_node_of(member) for member in result.results]
    return node
