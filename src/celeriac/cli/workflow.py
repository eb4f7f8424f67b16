"""`celeriac workflow show`: the tree of a workflow with states, times and errors, from stored results.

Any task of it may be named; the tree starts at the first one. Values are not shown: they are the tasks' own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from celeriac import states
from celeriac.app import Celeriac
from celeriac.cli.command_context import CommandContext, result_store
from celeriac.cli.group import Group, option
from celeriac.cli.problems import Failure, one_line
from celeriac.errors import CeleriacError
from celeriac.result_graph import DependencyGraph
from celeriac.wire.results import decode_result
from celeriac.workflow_tree import Node, read_tree

__all__ = ["workflow"]

#: Characters of an error that are shown.
_ERROR = 100
_COLOURS = {states.SUCCESS: "green", states.FAILURE: "red", states.REVOKED: "red", states.RETRY: "yellow"}


@click.group(cls=Group)
def workflow() -> None:
    """Show what became of a workflow."""


@workflow.command()
@click.argument("task_id")
@option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Members shown of a group.")
@option("--dot", is_flag=True, help="Print a graph in Graphviz's DOT language instead.")
@option("--json", "as_json", is_flag=True, help="Print JSON instead.")
@click.pass_obj
def show(context: CommandContext, /, task_id: str, limit: int, dot: bool, as_json: bool) -> int:
    """Show the workflow that the task (or kept group) TASK_ID is part of."""
    app = context.find_app()
    if not result_store(app).capabilities.persistent:
        raise Failure("The result store of this app sends results to their callers and keeps none.")
    root = read_tree(app, task_id)
    if root is None:
        raise Failure(
            f"Nothing is stored under {task_id}. A task that has not ended has a record only with"
            " task_track_started or task_track_enqueued; results expire after result_expires."
        )
    if dot:
        click.echo(_graph(root).dot(), nl=False)
    elif as_json:
        click.echo(json.dumps(_data(app, root), indent=2))
    else:
        colour = context.colour
        for line in _lines(app, root, task_id, limit):
            click.echo(line, color=colour)
        click.echo(_summary(root))
    return 0


def _lines(app: Celeriac, root: Node, asked: str, limit: int) -> Iterator[str]:
    """The tree, a task per line. Walks without recursion: chains may be longer than Python's stack."""
    waiting: list[tuple[Node | str, str, str]] = [(root, "", "")]
    while waiting:
        node, before, below = waiting.pop()
        if isinstance(node, str):
            yield before + node
            continue
        mark = "  ◀" if node.id == asked and node is not root else ""
        yield before + _about(app, node) + mark
        shown: list[Node | str] = [*node.children[:limit]]
        if len(node.children) > limit:
            shown.append(f"… {len(node.children) - limit} more")
        waiting.extend((each, below + "↓ ", below) for each in reversed(node.after))
        # A chain goes straight down: only branches are indented.
        if len(shown) == 1 and not node.is_group:
            waiting.append((shown[0], below + "↓ ", below))
            continue
        ends = [(each, below + "├─ ", below + "│  ") for each in shown[:-1]]
        ends += [(each, below + "└─ ", below + "   ") for each in shown[-1:]]
        waiting.extend(reversed(ends))


def _about(app: Celeriac, node: Node) -> str:
    if node.is_group:
        return f"group {node.id}  {_counted(node.members())}"
    name = f"{node.record.name} " if node.record is not None and node.record.name else ""
    parts = [name + node.id, click.style(node.state, fg=_COLOURS.get(node.state)), _moment(node.ended_at)]
    parts.append(_error(app, node))
    return "  ".join(part for part in parts if part)


def _moment(ended_at: datetime | None) -> str:
    return "" if ended_at is None else ended_at.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _error(app: Celeriac, node: Node) -> str:
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
    total = states_of.total()
    listed = ", ".join(f"{number} {state}" for state, number in states_of.most_common())
    return f"{total} task{'' if total == 1 else 's'}: {listed}" if total else "no tasks"


def _summary(root: Node) -> str:
    ends = [node.ended_at for node in root.tasks() if node.ended_at is not None]
    text = _counted(root.count())
    if len(ends) > 1:
        text += f"; {(max(ends) - min(ends)).total_seconds():.3f} s from the first end to the last"
    return text


def _data(app: Celeriac, root: Node) -> dict[str, Any]:
    """The tree as plain data: a flat list, each with the ids of its children."""
    nodes, waiting = [], [root]
    while waiting:
        node = waiting.pop(0)
        waiting.extend([*node.children, *node.after])
        about: dict[str, Any] = {"id": node.id, "children": [child.id for child in node.children]}
        if node.is_group:
            about |= {"group": dict(node.members()), "after": [each.id for each in node.after]}
        else:
            record = node.record
            about |= {"state": node.state, "date_done": None if record is None else record.date_done}
            about |= {"name": None if record is None else record.name, "error": _error(app, node) or None}
        nodes.append(about)
    return {"root": root.id, "states": dict(root.count()), "tasks": nodes}


class _Dot:
    """A node as the graph draws it."""

    def __init__(self, node: Node) -> None:
        self.id = node.id
        self.state = None if node.is_group else node.state
        name = None if node.record is None else node.record.name
        self._text = f"{name or ('group' if node.is_group else 'task')} {node.id}"

    def __str__(self) -> str:
        return self._text


def _graph(root: Node) -> DependencyGraph:
    graph = DependencyGraph()
    drawn: dict[str, _Dot] = {root.id: _Dot(root)}
    graph.add_arc(drawn[root.id])
    waiting = [root]
    while waiting:
        node = waiting.pop(0)
        for child in (*node.children, *node.after):
            if child.id not in drawn:
                drawn[child.id] = _Dot(child)
                graph.add_arc(drawn[child.id])
                waiting.append(child)
            graph.add_edge(drawn[node.id], drawn[child.id])
    return graph
