"""Questions to workers: `app.control.inspect()`, as Celery documents it.

`control.Control` makes it. An answer is a table by node name, None if nobody answered, and that of one node if one name was
given as text.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.current import get_current_app
from celeriac.errors import DuplicateNodenameWarning
from celeriac.wire.control import Command, concerns

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["Inspect", "Reply", "flatten_reply"]


Reply = dict[str, Any]


def flatten_reply(reply: Iterable[Reply]) -> Reply:
    """Answers of several nodes as one table by node name; warns of nodes that have the same name."""
    nodes: Reply = {}
    twice: set[str] = set()
    for item in reply:
        twice |= nodes.keys() & item.keys()
        nodes.update(item)
    if twice:
        warnings.warn(
            DuplicateNodenameWarning(
                f"several answers came from {', '.join(sorted(twice))}: give each worker a name of its own with -n"
            ),
            stacklevel=2,
        )
    return nodes


class Inspect:
    """Questions to workers.

    Args:
        destination: Names of nodes; one name as text gives just that node's answer.
        timeout: Seconds to wait for answers.
        callback: Called with each answer as it comes.
        limit: Number of answers after which to wait no longer.
        pattern, matcher: Ask nodes whose names match ("glob" or "pcre").

    Example:
        >>> app.control.inspect().active()  # doctest: +SKIP
        {'celery@host': [{'id': '…', 'name': 'tasks.add', …}]}
    """

    def __init__(
        self,
        destination: Sequence[str] | str | None = None,
        timeout: float = 1.0,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        connection: Any = None,
        app: Celeriac | None = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> None:
        self.app: Any = app if app is not None else get_current_app()
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def _prepare(self, replies: list[dict[str, Any]] | None) -> Any:
        if not replies:
            return None
        by_node = flatten_reply(replies)
        if isinstance(self.destination, str) and not self.pattern:
            return by_node.get(self.destination)
        if self.pattern:
            asked = Command(method="", pattern=self.pattern, matcher=self.matcher or "glob")
            return {node: answer for node, answer in by_node.items() if concerns(asked, node)}
        return by_node

    def request(self, command: str, **arguments: Any) -> Any:
        """Ask by the name of the command; for those of your own."""
        return self._prepare(
            self.app.control.broadcast(
                command, arguments, destination=self.destination, callback=self.callback, limit=self.limit,
                timeout=self.timeout, reply=True, pattern=self.pattern, matcher=self.matcher,
            )
        )  # fmt: skip

    def report(self) -> Any:
        """Versions and settings, for a bug report."""
        return self.request("report")

    def clock(self) -> Any:
        """The logical clocks."""
        return self.request("clock")

    def active(self, safe: bool | None = None) -> Any:
        """The tasks that run."""
        return self.request("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:
        """Tasks with an ETA that workers hold; ours leave them at the broker."""
        return self.request("scheduled")

    def reserved(self, safe: bool | None = None) -> Any:
        """Tasks that workers hold and that don't run yet."""
        return self.request("reserved")

    def stats(self) -> Any:
        """Figures: tasks by name, process ids, pool, broker, resources."""
        return self.request("stats")

    def revoked(self) -> Any:
        """Ids of revoked tasks."""
        return self.request("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """Names of tasks, with these attributes."""
        return self.request("registered", taskinfoitems=taskinfoitems)

    registered_tasks = registered

    def ping(self, destination: Sequence[str] | str | None = None) -> Any:
        """Who is there."""
        if destination is not None:
            self.destination = destination
        return self.request("ping")

    def active_queues(self) -> Any:
        """The queues that are consumed."""
        return self.request("active_queues")

    def query_task(self, *ids: Any) -> Any:
        """What workers know of these tasks."""
        if len(ids) == 1 and isinstance(ids[0], (list, tuple)):
            ids = tuple(ids[0])
        return self.request("query_task", ids=ids)

    def conf(self, with_defaults: bool = False) -> Any:
        """Settings, with secrets masked."""
        return self.request("conf", with_defaults=with_defaults)

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """What workers tell each other when one starts."""
        return self.request("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """Resident memory of the supervisors."""
        return self.request("memsample")

    def memdump(self, samples: int = 10) -> Any:
        """The last samples of `memsample`."""
        return self.request("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:
        """A drawing of objects in memory, in a file at the worker's."""
        return self.request("objgraph", num=n, max_depth=max_depth, type=type)
