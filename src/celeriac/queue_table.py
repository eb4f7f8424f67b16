"""The queues that an app knows, as the mapping that Celery documents: `app.amqp.queues`, `celery.app.amqp.Queues`.

That of an app is the table of its router itself: whoever adds a queue here has added it there. What is added or selected is
written down in the app as well, since the router is made anew whenever a setting changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from celeriac.errors import QueueNotFound, near_match
from celeriac.queue_forms import as_exchange, as_queue
from celeriac.routing import Exchange, Queue, QueueDefaults

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["AppQueues", "Queues"]


class Queues(dict[str, Queue]):
    """Queues by name. One that is not there is made when it is asked for, if that is allowed.

    Args:
        queues: The first ones: names, objects or a mapping, as in the setting `task_queues`.
        default_exchange: The exchange of queues that name none.
        create_missing: Whether one that is not there is made.
        create_missing_queue_type: Of those that are made: "classic" or "quorum".
        create_missing_queue_exchange_type: Type of their exchanges.
        autoexchange: Makes an exchange of a queue's name; by default it is called the same.
        max_priority: Highest priority of queues that say none.
        default_routing_key: The key of queues that have an exchange and name no key.
    """

    def __init__(
        self, queues: Any = None, default_exchange: Any = None, create_missing: bool = True,
        create_missing_queue_type: str | None = None, create_missing_queue_exchange_type: str | None = None,
        autoexchange: Any = None, max_priority: int | None = None, default_routing_key: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.default_exchange: Exchange = as_exchange(default_exchange or "")
        self.default_routing_key = default_routing_key or ""
        self.create_missing = create_missing
        self.autoexchange = autoexchange
        self.defaults = QueueDefaults(
            create_missing_queue_type or "classic", create_missing_queue_exchange_type or "direct", max_priority
        )
        self._selected: list[str] | None = None
        given = queues.items() if isinstance(queues, Mapping) else ((None, queue) for queue in queues or ())
        for name, queue in given:
            self._put(queue, name)

    def __missing__(self, name: str) -> Queue:
        found = next((queue for queue in self.values() if queue.alias == name), None)
        if found is not None:
            return found
        if not self.create_missing:
            raise QueueNotFound(f"There is no queue {name!r} ({', '.join(self) or 'none'}).{near_match(name, self)}")
        return self._keep(self.new_missing(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or any(queue.alias == name for queue in self.values())

    def new_missing(self, name: str) -> Queue:
        """The queue of a name that nobody has described. It is not added."""
        queue = self.defaults.missing(name)
        if self.autoexchange is None:
            return queue
        return self.defaults.typed(Queue(name, as_exchange(self.autoexchange(name)), name))

    def add(self, queue: Any, **kwargs: Any) -> Queue:
        """Add a queue, or one of this name with these options: `add("mail", exchange="media", routing_key="mail.#")`."""
        return self._put(kwargs if kwargs else queue, queue if kwargs else None)

    def add_compat(self, name: str, **options: Any) -> Queue:
        """The same, with the options of older configurations, such as `binding_key`."""
        return self._put(options, name)

    def _put(self, queue: Any, name: str | None) -> Queue:
        found = as_queue(
            queue, name=name or "", default_exchange=self.default_exchange.name, default_type=self.default_exchange.type
        )
        if not found.routing_key and found.exchange.name:
            key = self.default_routing_key or found.name
            found = replace(found, routing_key=key)
        return self._keep(self.defaults.complete(found))

    def _keep(self, queue: Queue) -> Queue:
        self[queue.name] = queue
        return queue

    # which of them are consumed

    @property
    def selected(self) -> list[str] | None:
        """Names of the queues that were selected; None if all are consumed."""
        return self._selected

    @selected.setter
    def selected(self, names: list[str] | None) -> None:
        self._selected = names

    @property
    def consume_from(self) -> dict[str, Queue]:
        """The queues that workers consume: those that were selected, else all."""
        return dict(self) if self.selected is None else {name: self[name] for name in self.selected}

    def select(self, include: str | Iterable[str]) -> None:
        """Consume only these."""
        names = [include] if isinstance(include, str) else list(include or ())
        if names:
            self.selected = [self[name].name for name in names]

    def select_add(self, queue: Any, **kwargs: Any) -> Queue:
        """Add one, and consume it, too."""
        found = self.add(queue, **kwargs)
        if self.selected is not None:
            self.selected = list(dict.fromkeys([*self.selected, found.name]))
        return found

    def deselect(self, exclude: str | Iterable[str]) -> None:
        """Consume all but these."""
        names = {exclude} if isinstance(exclude, str) else set(exclude or ())
        if names:
            self.selected = [name for name in self.consume_from if name not in names]

    def format(self, indent: int = 0, indent_first: bool = True) -> str:
        """What is consumed, as text: a queue a line."""
        lines = [
            f".> {queue.name:<16} exchange={queue.exchange.name}({queue.exchange.type}) key={queue.routing_key}"
            for _, queue in sorted(self.consume_from.items())
        ]
        text = ("\n" + " " * indent).join(lines)
        return " " * indent + text if indent_first and lines else text


class AppQueues(Queues):
    """The queues of an app."""

    def __init__(self, app: Celeriac) -> None:
        router = app.router
        super().__init__(
            default_exchange=router.default.exchange, default_routing_key=router.default.routing_key,
            create_missing=router.create_missing,
        )  # fmt: skip
        self._app = app
        self.defaults = router.defaults
        self.update(router.queues)
        app.queue_table = router.queues = self

    def __missing__(self, name: str) -> Queue:
        return self._app.router.queue(name)

    def _keep(self, queue: Queue) -> Queue:
        self._app.add_queue(queue)
        return queue

    @property
    def selected(self) -> list[str] | None:
        """Names of the queues that were selected; None if all are consumed."""
        return self._app.selected_queues

    @selected.setter
    def selected(self, names: list[str] | None) -> None:
        self._app.select_queues(names)
