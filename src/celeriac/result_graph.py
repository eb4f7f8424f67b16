"""Graphs of results: who was sent by whom, as objects, in topological order, or as text for Graphviz.

`AsyncResult.build_graph` makes one; `dot` writes it. Invariant: a node stands in its graph before any edge to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from typing import Any, TextIO

from celeriac.errors import CeleriacError

__all__ = ["CycleError", "DependencyGraph", "GraphFormatter"]


class CycleError(CeleriacError):
    """A graph has a cycle, so its nodes have no order."""


class GraphFormatter:
    """How nodes and edges look in DOT; override its methods for another look.

    Args:
        root: A node that is drawn differently.
        attributes: Of the graph, such as `rankdir`.
    """

    #: Colours of nodes by their state.
    colours: Mapping[str, str] = {
        "SUCCESS": "palegreen", "FAILURE": "lightcoral", "REVOKED": "lightgrey", "RETRY": "khaki", "STARTED": "lightblue",
    }  # fmt: skip

    def __init__(self, root: Any = None, attributes: Mapping[str, Any] | None = None) -> None:
        self.root = root
        self.attributes = {"rankdir": "TB", **(attributes or {})}

    def label(self, node: Any) -> str:
        """The text of a node."""
        return str(node)

    def node(self, node: Any) -> str:
        """The line of a node."""
        state = getattr(node, "state", None)
        look = {"label": self.label(node), "shape": "box", "style": "filled", "fillcolor": "white"}
        if isinstance(state, str):
            look["fillcolor"] = self.colours.get(state, "white")
            look["label"] += f"\n{state}"
        if self.root is not None and node == self.root:
            look["penwidth"] = "2"
        return f"    {_quoted(str(node))} [{_attributes(look)}];"

    def edge(self, start: Any, end: Any) -> str:
        """The line of an edge."""
        return f"    {_quoted(str(start))} -> {_quoted(str(end))};"

    def head(self) -> str:
        """The first lines."""
        return "digraph results {\n" + "\n".join(f"    {key}={_quoted(v)};" for key, v in self.attributes.items())

    def tail(self) -> str:
        """The last line."""
        return "}"


class DependencyGraph:
    """Nodes, and for each the nodes that it sent.

    Args:
        it: Pairs of a node and its edges.
        formatter: How it looks in DOT.
    """

    def __init__(self, it: Iterable[tuple[Any, Iterable[Any]]] = (), formatter: GraphFormatter | None = None) -> None:
        self.formatter = formatter or GraphFormatter()
        self.adjacent: dict[Any, list[Any]] = {}
        self.update(it)

    def add_arc(self, node: Any) -> None:
        """Add a node."""
        self.adjacent.setdefault(node, [])

    def add_edge(self, start: Any, end: Any) -> None:
        """Add an edge between two nodes that are there."""
        self[start].append(end)

    def connect(self, graph: DependencyGraph) -> None:
        """Take in another graph."""
        self.adjacent.update(graph.adjacent)

    def update(self, it: Iterable[tuple[Any, Iterable[Any]]]) -> None:
        """Add nodes with their edges."""
        pairs = [(node, list(ends)) for node, ends in it]
        for node, _ in pairs:
            self.add_arc(node)
        for node, ends in pairs:
            for end in ends:
                self.add_arc(end)
                self.add_edge(node, end)

    def topsort(self) -> list[Any]:
        """The nodes in an order in which each stands behind those that it points to.

        Raises:
            CycleError: There is none.
        """
        order: dict[Any, bool] = {}  # False while the nodes behind it are visited
        for start in self.adjacent:
            if start in order:
                continue
            order[start] = False
            way = [(start, iter(self.adjacent[start]))]
            while way:
                node, ends = way[-1]
                following = next((end for end in ends if not order.get(end, False)), None)
                if following is None:
                    way.pop()
                    del order[node]
                    order[node] = True
                elif following in order:
                    raise CycleError(f"the graph has a cycle through {following}")
                else:
                    order[following] = False
                    way.append((following, iter(self.adjacent.get(following, ()))))
        return list(order)

    def valency_of(self, node: Any) -> int:
        """How many edges can be followed from a node, 0 for one that is not there."""
        return sum(1 + self.valency_of(end) for end in self.adjacent.get(node, ()))

    def edges(self) -> list[Any]:
        """The nodes that have edges."""
        return [node for node, ends in self.adjacent.items() if ends]

    def items(self) -> Iterator[tuple[Any, list[Any]]]:
        """Nodes with the nodes that they point to."""
        return iter(self.adjacent.items())

    iteritems = items

    def to_dot(self, fh: TextIO, formatter: GraphFormatter | None = None) -> None:
        """Write it in Graphviz's DOT language."""
        form = formatter or self.formatter
        fh.write(form.head() + "\n")
        for node in self.adjacent:
            fh.write(form.node(node) + "\n")
        for node, ends in self.adjacent.items():
            for end in ends:
                fh.write(form.edge(node, end) + "\n")
        fh.write(form.tail() + "\n")

    def dot(self) -> str:
        """The text that `to_dot` writes."""
        text = StringIO()
        self.to_dot(text)
        return text.getvalue()

    def format(self, obj: Any) -> str:
        """The text of a node."""
        return self.formatter.label(obj)

    def __getitem__(self, node: Any) -> list[Any]:
        return self.adjacent[node]

    def __contains__(self, node: object) -> bool:
        return node in self.adjacent

    def __iter__(self) -> Iterator[Any]:
        return iter(self.adjacent)

    def __len__(self) -> int:
        return len(self.adjacent)

    def __repr__(self) -> str:
        return "\n".join(
            f"{self.format(node)}({self.valency_of(node)}) -> {', '.join(map(self.format, ends)) or '-'}"
            for node, ends in self.adjacent.items()
        )


def _quoted(value: Any) -> str:
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def _attributes(look: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={_quoted(value)}" for key, value in look.items())
