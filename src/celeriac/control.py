"""Remote control, the client's side: `app.control` tells workers what to do and collects what they answer.

Documented as Celery documents it: `Control` for commands, `Inspect` for questions. Each call that wants answers opens a box
of its own first and closes it in the end, so an answer that comes late disturbs nobody. Works on every broker that can
broadcast; the messages are Celery's, so stock workers answer as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from celeriac.asking import ask, tell
from celeriac.errors import ImproperlyConfigured
from celeriac.inspecting import Inspect, Reply, flatten_reply
from celeriac.revoking import store_revoked
from celeriac.timing import LamportClock
from celeriac.wire.control import Command, pattern_problem

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["Control", "Inspect", "flatten_reply"]

#: Where and how long; and for answers `reply`, `timeout`, `limit`, `callback`.
Options = Any


class Control:
    """Commands to workers.

    Every method takes `destination` (node names), and the options of `broadcast`: `reply`, `timeout`, `limit`, `callback`,
    `pattern` and `matcher`. With `reply=True` the answers are returned as `[{node: answer}, …]`, else None.
    """

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self.clock = LamportClock()

    @property
    def inspect(self) -> Callable[..., Inspect]:
        """Makes an `Inspect` for this app: `app.control.inspect(destination=…, timeout=…)`."""

        def make(*args: Any, **options: Any) -> Inspect:
            options.setdefault("app", self.app)
            return Inspect(*args, **options)

        return make

    def broadcast(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        destination: Sequence[str] | str | None = None,
        connection: Any = None,
        reply: bool = False,
        timeout: float | None = 1.0,
        limit: int | None = None,
        callback: Callable[[Reply], Any] | None = None,
        channel: Any = None,
        pattern: str | None = None,
        matcher: str | None = None,
        **extra: Any,
    ) -> list[Reply] | None:
        """Send a command to all workers, or to some.

        Args:
            command: Its name.
            arguments: Its arguments; `extra` is added to them.
            destination: Names of the nodes it is for.
            reply: Wait for answers and return them.
            timeout: Seconds to wait for answers.
            limit: Number of answers after which to wait no longer; by default that of the destinations.
            callback: Called with each answer as it comes.
            pattern: Nodes whose names match, by the `matcher` "glob" or "pcre".

        Raises:
            OperationalError: The broker can't be reached.
            ImproperlyConfigured: The broker can't broadcast, or the pattern or its matcher can't be used.
        """
        transport = self.app.transport
        if not transport.capabilities.broadcast:
            raise ImproperlyConfigured(f"{transport.url} can't broadcast, so workers can't be controlled through it")
        problem = pattern_problem(pattern, matcher or "glob") if pattern is not None else ""
        if problem:
            raise ImproperlyConfigured(problem)
        names = [destination] if isinstance(destination, str) else destination
        wanted = Command(
            method=command, arguments={**(arguments or {}), **extra}, destination=names, pattern=pattern,
            matcher=(matcher or "glob") if pattern is not None else None, clock=self.clock.forward(),
        )  # fmt: skip
        if not reply:
            tell(transport, self.app.conf, wanted, timeout)
            return None
        limit = limit or (len(names) if names else None)
        if timeout is None and limit is None:
            timeout = 1.0  # nobody knows how many will answer
        answers = ask(transport, self.app.conf, self.clock, wanted, timeout, limit, callback)
        return [{answer.node: answer.value} for answer in answers]

    # revoking

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str = "SIGTERM",
        **options: Options,
    ) -> list[Reply] | None:
        """Keep tasks from running: those that wait are discarded as REVOKED.

        It is written down in the result store, so it holds although no worker is up, and after restarts.

        Args:
            task_id: Id, or ids.
            terminate: End those that run, too, by killing their process.
            signal: The signal for that.
        """
        ids = [task_id] if isinstance(task_id, str) else list(task_id)
        arguments = {"task_id": task_id if isinstance(task_id, str) else ids, "terminate": terminate, "signal": signal}
        try:
            if destination is None and options.get("pattern") is None and self.app.backend is not None:
                store_revoked(self.app.backend, ids, self.app.conf.result_expires)
        finally:  # a store that is down is no reason to let it run
            replies = self.broadcast("revoke", arguments, destination, **options)
        return replies

    def terminate(
        self,
        task_id: str | Iterable[str],
        destination: Sequence[str] | None = None,
        signal: str = "SIGTERM",
        **options: Options,
    ) -> list[Reply] | None:
        """`revoke` with `terminate=True`."""
        return self.revoke(task_id, destination, terminate=True, signal=signal, **options)

    def revoke_by_stamped_headers(
        self,
        headers: dict[str, Any],
        destination: Sequence[str] | None = None,
        terminate: bool = False,
        signal: str = "SIGTERM",
        **options: Options,
    ) -> list[Reply] | None:
        """Revoke all tasks that bear one of these stamps. Present workers remember it until they end."""
        arguments = {"headers": headers, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke_by_stamped_headers", arguments, destination, **options)

    # commands

    def ping(
        self, destination: Sequence[str] | None = None, timeout: float | None = 1.0, **options: Options
    ) -> list[Reply]:
        """Which workers are there: `[{node: {"ok": "pong"}}, …]`."""
        return self.broadcast("ping", {}, destination, reply=True, timeout=timeout, **options) or []

    def rate_limit(
        self,
        task_name: str,
        rate_limit: str | float | None,
        destination: Sequence[str] | None = None,
        **options: Options,
    ) -> list[Reply] | None:
        """Set the rate limit of a task, such as "10/m"; 0 for none."""
        return self.broadcast("rate_limit", {"task_name": task_name, "rate_limit": rate_limit}, destination, **options)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Sequence[str] | None = None,
        **options: Options,
    ) -> list[Reply] | None:
        """Set the time limits of a task, in seconds."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", arguments, destination, **options)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: dict[str, Any] | None = None,
        destination: Sequence[str] | None = None,
        **more: Options,
    ) -> list[Reply] | None:
        """Have workers consume one more queue."""
        arguments = {"queue": queue, "exchange": exchange, "exchange_type": exchange_type, "routing_key": routing_key}
        return self.broadcast("add_consumer", {**arguments, **(options or {})}, destination, **more)

    def cancel_consumer(
        self, queue: str, destination: Sequence[str] | None = None, **options: Options
    ) -> list[Reply] | None:
        """Have workers consume a queue no longer."""
        return self.broadcast("cancel_consumer", {"queue": queue}, destination, **options)

    def pool_grow(self, n: int = 1, destination: Sequence[str] | None = None, **options: Options) -> list[Reply] | None:
        """Add runners to the pools."""
        return self.broadcast("pool_grow", {"n": n}, destination, **options)

    def pool_shrink(
        self, n: int = 1, destination: Sequence[str] | None = None, **options: Options
    ) -> list[Reply] | None:
        """Take runners out of the pools, when they have done what they hold."""
        return self.broadcast("pool_shrink", {"n": n}, destination, **options)

    def autoscale(
        self, max: int, min: int, destination: Sequence[str] | None = None, **options: Options
    ) -> list[Reply] | None:
        """Set the bounds of autoscaling."""
        return self.broadcast("autoscale", {"max": max, "min": min}, destination, **options)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Sequence[str] | None = None,
        **options: Options,
    ) -> list[Reply] | None:
        """Replace all runners (`worker_pool_restarts`)."""
        return self.broadcast("pool_restart", {"modules": modules or [], "reload": reload}, destination, **options)

    def enable_events(self, destination: Sequence[str] | None = None, **options: Options) -> list[Reply] | None:
        """Have workers send events about tasks."""
        return self.broadcast("enable_events", {}, destination, **options)

    def disable_events(self, destination: Sequence[str] | None = None, **options: Options) -> list[Reply] | None:
        """Have workers send no events about tasks."""
        return self.broadcast("disable_events", {}, destination, **options)

    def heartbeat(self, destination: Sequence[str] | None = None, **options: Options) -> list[Reply] | None:
        """Have workers send a heartbeat at once."""
        return self.broadcast("heartbeat", {}, destination, **options)

    def shutdown(self, destination: Sequence[str] | None = None, **options: Options) -> list[Reply] | None:
        """End workers warmly."""
        return self.broadcast("shutdown", {}, destination, **options)

    def election(self, id: str, topic: str, action: Any = None, connection: Any = None) -> None:
        """Start an election among stock workers. A stock worker of 5.7 that is alone does not survive it."""
        self.broadcast("election", {"id": id, "topic": topic, "action": action})

    def purge(self, connection: Any = None) -> int:
        """Delete the messages that wait in the app's queues; returns how many."""
        return sum(self.app.transport.purge(name) for name in self.app.consumed_queues)

    discard_all = purge
