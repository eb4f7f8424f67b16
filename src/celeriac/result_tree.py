"""What followed from a task: the results of the tasks that it sent, and of those that these sent.

A mixin of `AsyncResult`. The tree is read level by level as tasks end; `build_graph` gives it as a whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from celeriac.errors import IncompleteStream
from celeriac.loading import import_object
from celeriac.result_base import aside

if TYPE_CHECKING:
    from celeriac.result import AsyncResult
    from celeriac.result_graph import DependencyGraph, GraphFormatter

__all__ = ["ResultTree"]


class ResultTree:
    """Walking through the tree below a result."""

    def iterdeps(self: Any, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """Pairs of a result and its parent, from the root (parent None) down, each level in order.

        Args:
            intermediate: Leave out what is below tasks that have not ended.

        Raises:
            IncompleteStream: A task has not ended, so what is below it is not known; not with `intermediate`.
        """
        queue: deque[tuple[Any, Any]] = deque([(None, self)])
        while queue:
            parent, node = queue.popleft()
            yield parent, node
            queue.extend(_below(node, intermediate))

    async def aiterdeps(self: Any, intermediate: bool = False) -> AsyncIterator[tuple[Any, Any]]:
        """`iterdeps` for coroutines."""
        pairs = self.iterdeps(intermediate)
        while (pair := await aside(next, pairs, None)) is not None:
            yield pair

    def collect(self: Any, intermediate: bool = False, **options: Any) -> Iterator[tuple[Any, Any]]:
        """Pairs of a result and its value; waits for each. `options` are those of `get`."""
        for _, node in self.iterdeps(intermediate=intermediate):
            yield node, node.get(**options)

    async def acollect(self: Any, intermediate: bool = False, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
        """`collect` for coroutines."""
        queue: deque[Any] = deque([self])
        while queue:
            node = queue.popleft()
            yield node, await node.aget(**options)
            queue.extend(child for _, child in await aside(_below, node, intermediate))

    def get_leaf(self: Any) -> Any:
        """The value of the last result in the tree."""
        value = None
        for _, node in self.iterdeps():
            value = node.get()
        return value

    async def aget_leaf(self: Any) -> Any:
        """`get_leaf` for coroutines."""
        value = None
        async for _, node in self.aiterdeps():
            value = await node.aget()
        return value

    @property
    def graph(self: AsyncResult[Any]) -> DependencyGraph:  # type: ignore[misc]  # a mixin of this very class
        """The graph of all that followed from it."""
        return self.build_graph()

    def build_graph(self: Any, intermediate: bool = False, formatter: GraphFormatter | None = None) -> DependencyGraph:
        """The graph of all that followed from it; `to_dot` of it writes it for Graphviz.

        Raises:
            IncompleteStream: A task has not ended; not with `intermediate`.
        """
        module = import_object("celeriac.result_graph", "graph")
        graph: DependencyGraph = module.DependencyGraph(formatter=formatter or module.GraphFormatter(root=self.id))
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add_arc(node)
            if parent is not None:
                graph.add_edge(parent, node)
        return graph

    async def abuild_graph(self: Any, **options: Any) -> DependencyGraph:
        """`build_graph` for coroutines."""
        graph: DependencyGraph = await aside(self.build_graph, **options)
        return graph


def _below(node: Any, intermediate: bool) -> list[tuple[Any, Any]]:
    if node.ready():
        return [(node, child) for child in node.children or ()]
    if intermediate:
        return []
    raise IncompleteStream(
        f"Task {node.id} has not ended, so what it sends is not known yet; intermediate=True leaves it out."
    )
