"""`celeriac workflow show`: the tree of a workflow with states, times and errors, from stored results.

Any task of it may be named; the tree starts at the first one. Values are not shown: they are the tasks' own.
"""

from __future__ import annotations

import json
from typing import Any

import click

from celeriac.app import Celeriac
from celeriac.cli.command_context import CommandContext, result_store
from celeriac.cli.group import Group, option
from celeriac.cli.problems import Failure
from celeriac.cli.workflow_lines import error_of, lines, summary
from celeriac.result_graph import DependencyGraph
from celeriac.workflow_tree import Node, read_tree

__all__ = ["workflow"]


@click.group(cls=Group)
def workflow() -> None:
    """Show what became of a workflow."""


@workflow.command()
@click.argument("task_id")
@option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Members of a group beyond which those that are alike share a line.",
)
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
            " task_track_started or task_track_enqueued: name one that has, such as the first of the workflow."
            " Results expire after result_expires."
        )
    if dot:
        click.echo(_graph(root).dot(), nl=False)
    elif as_json:
        click.echo(json.dumps(_data(app, root), indent=2))
    else:
        colour = context.colour
        for line in lines(app, root, task_id, limit):
            click.echo(line, color=colour)
        click.echo(summary(root))
    return 0


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
            about |= {"name": None if record is None else record.name, "error": error_of(app, node) or None}
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
