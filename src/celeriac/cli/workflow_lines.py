"""The lines of `celeriac workflow show`: a tree with a task per line, and one line for many members that are alike.

Members of a large group are told apart by what they are called, how they stand and what went wrong; those that are the only one
of their kind, or have branches of their own, are shown themselves. What has not succeeded comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import click

from celeriac import states
from celeriac.app import Celeriac
from celeriac.cli.problems import one_line
from celeriac.errors import CeleriacError
from celeriac.wire.results import decode_result
from celeriac.workflow_tree import Node

__all__ = ["error_of", "lines", "summary"]

#: Characters of an error that are shown.
_ERROR = 100
_COLOURS = {states.SUCCESS: "green", states.FAILURE: "red", states.REVOKED: "red", states.RETRY: "yellow"}
#: In which order members of a large group are shown; other states, those of running tasks, come between.
_FIRST, _LAST = (states.FAILURE, states.REVOKED, states.RETRY), (states.PENDING, states.SUCCESS)


def lines(app: Celeriac, root: Node, asked: str, limit: int) -> Iterator[str]:
    """The tree, a task per line. Walks without recursion: chains may be longer than Python's stack."""
    waiting: list[tuple[Node | str, str, str]] = [(root, "", "")]
    while waiting:
        node, before, below = waiting.pop()
        if isinstance(node, str):
            yield before + node
            continue
        mark = "  ◀" if node.id == asked and node is not root else ""
        yield before + _about(app, node) + mark
        shown = _shown(app, node.children, asked, limit)
        waiting.extend((each, below + "↓ ", below) for each in reversed(node.after))
        # A chain goes straight down: only branches are indented.
        if len(shown) == 1 and not node.is_group:
            waiting.append((shown[0], below + "↓ ", below))
            continue
        ends = [(each, below + "├─ ", below + "│  ") for each in shown[:-1]]
        ends += [(each, below + "└─ ", below + "   ") for each in shown[-1:]]
        waiting.extend(reversed(ends))


def _shown(app: Celeriac, members: Sequence[Node], asked: str, limit: int) -> list[Node | str]:
    """The members themselves, or where there are too many, what they have in common."""
    if len(members) <= limit:
        return list(members)
    kinds: dict[tuple[str, ...], list[Node]] = {}
    for member in members:
        is_special = member.is_group or member.children or member.after or member.id == asked
        kind = ("", member.id) if is_special else (member.state, _name(member), error_of(app, member))
        kinds.setdefault(kind, []).append(member)
    alike = sorted(kinds.values(), key=_urgency)
    left = sum(map(len, alike[limit:]))
    more = (
        [f"… {left} more: {_counted(Counter(each.state for kind in alike[limit:] for each in kind))}"] if left else []
    )
    return [*(kind[0] if len(kind) == 1 else _together(app, kind) for kind in alike[:limit]), *more]


def _urgency(alike: list[Node]) -> int:
    first, state = alike[0], alike[0].state
    if not first.is_group and state in _FIRST:
        return _FIRST.index(state)
    if first.is_group or first.children or first.after:
        return len(_FIRST)
    return len(_FIRST) + 1 + (_LAST.index(state) + 1 if state in _LAST else 0)


def _together(app: Celeriac, alike: list[Node]) -> str:
    """One line for members of one kind."""
    first = alike[0]
    ends = sorted(node.ended_at for node in alike if node.ended_at is not None)
    name = _name(first)
    parts = [
        f"{len(alike)} × {name}" if name else f"{len(alike)} tasks",
        click.style(first.state, fg=_COLOURS.get(first.state)),
    ]
    if ends:
        parts.append(_moment(ends[0]) if ends[0] == ends[-1] else f"{_moment(ends[0])} … {_moment(ends[-1])[11:]}")
    parts.append(error_of(app, first))
    if first.state in states.EXCEPTION_STATES:
        parts.append(f"such as {first.id}")
    return "  ".join(part for part in parts if part)


def _about(app: Celeriac, node: Node) -> str:
    if node.is_group:
        return f"group {node.id}  {_counted_tasks(node.members())}"
    name = f"{_name(node)} " if _name(node) else ""
    parts = [name + node.id, click.style(node.state, fg=_COLOURS.get(node.state)), _moment(node.ended_at)]
    parts.append(error_of(app, node))
    return "  ".join(part for part in parts if part)


def _name(node: Node) -> str:
    return "" if node.record is None else node.record.name or ""


def _moment(ended_at: datetime | None) -> str:
    return "" if ended_at is None else ended_at.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def error_of(app: Celeriac, node: Node) -> str:
    """What went wrong with a task, in one line; "" if nothing did."""
    record = node.record
    if record is None or record.state not in states.EXCEPTION_STATES:
        return ""
    try:
        error: Any = decode_result(record, app.result_accept)
    except CeleriacError as exc:
        return f"(its error can't be read: {one_line(exc)})"
    text = one_line(f"{type(error).__name__}: {error}")
    return text if len(text) <= _ERROR else text[: _ERROR - 1] + "…"


def _counted(states_of: Counter[str]) -> str:
    return ", ".join(f"{number} {state}" for state, number in states_of.most_common())


def _counted_tasks(states_of: Counter[str]) -> str:
    total = states_of.total()
    return f"{total} task{'' if total == 1 else 's'}: {_counted(states_of)}" if total else "no tasks"


def summary(root: Node) -> str:
    """How many tasks there are, in which states, and from when to when they ended."""
    ends = [node.ended_at for node in root.tasks() if node.ended_at is not None]
    text = _counted_tasks(root.count())
    if len(ends) > 1:
        text += f"; {(max(ends) - min(ends)).total_seconds():.3f} s from the first end to the last"
    return text
