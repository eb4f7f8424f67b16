"""The connections of an app: router, broker, result store, and what waits for results. The base of `app.Celeriac`.

Everything is opened when it is first used, once per process: after a fork the child opens its own.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celeriac.codec import accept_types
from celeriac.hooks import Signal
from celeriac.loading import import_object
from celeriac.results.base import ResultStore
from celeriac.results.open import ADDRESSED, open_store
from celeriac.router import Router, queue_defaults
from celeriac.routing import Exchange, Queue
from celeriac.transport.base import Transport
from celeriac.transport.open import open_transport
from celeriac.wire.messages import CallForm

if TYPE_CHECKING:
    from celeriac.broker_connection import Connection, Pool, Producer
    from celeriac.config import Settings
    from celeriac.coordination.base import Coordination

__all__ = ["AppConnections", "new_origin"]


def new_origin() -> str:
    """Name of this process in messages that it sends."""
    return f"gen{os.getpid()}@{socket.gethostname()}"


class AppConnections:
    """What an app opens when it is first used."""

    #: Name of this process in messages it sends.
    origin: str
    #: Queues that must exist, as they are defined here, before the first message is sent. `sending` declares them.
    undeclared: list[Queue]
    #: What is the same in all calls of a task without options, by its name. `sending.prepare` keeps it.
    plain_calls: dict[Any, CallForm]
    on_after_fork: Signal
    _lock: threading.RLock
    _plain_fields: dict[str, dict[str, Any]]
    #: Queues that were added beside those of the settings, by name.
    _added_queues: dict[str, Queue] = {}
    #: The table of queues as `app.amqp.queues` gives it, once somebody has asked for it.
    queue_table: dict[str, Queue] | None = None
    #: Names of the queues that workers consume; None for all.
    selected_queues: list[str] | None = None

    if TYPE_CHECKING:

        @cached_property
        def conf(self) -> Settings:
            """The settings."""

    # routing

    @cached_property
    def router(self) -> Router:
        """Decides where tasks go."""
        conf = self.conf
        default = Queue(
            conf.task_default_queue,
            Exchange(conf.task_default_exchange, conf.task_default_exchange_type),
            conf.task_default_routing_key,
            queue_arguments={"x-queue-type": "quorum"} if conf.task_default_queue_type == "quorum" else {},
        )
        queues = {default.name: default}
        if conf.task_queues:
            queues = import_object("celeriac.queue_forms:queues_from_setting", "task_queues")(conf.task_queues, default)
        queues = {**queues, **self._added_queues}
        router = Router(
            queues,
            conf.task_routes,
            queues.get(default.name, default),
            create_missing=conf.task_create_missing_queues,
            defaults=queue_defaults(conf),
            on_created=self._queue_created,
        )
        if self.queue_table is not None:  # whoever holds it sees the queues of the new router
            self.queue_table.clear()
            self.queue_table.update(router.queues)
            router.queues = self.queue_table
        return router

    def _queue_created(self, queue: Queue) -> None:
        if queue.is_special:
            self.undeclared = [*self.undeclared, queue]

    def add_queue(self, queue: Queue) -> None:
        """Know one more queue, until the app ends."""
        self._added_queues = {**self._added_queues, queue.name: queue}
        self.router.add(queue)
        self.plain_calls.clear()

    def select_queues(self, queues: Sequence[str] | None = None) -> None:
        """Have workers consume only these queues, whatever others the app knows; without any, all of them."""
        self.selected_queues = [self.router.queue(name).name for name in queues] if queues else None

    @property
    def consumed_queues(self) -> dict[str, Queue]:
        """The queues that workers consume."""
        known = self.router.queues
        return known if self.selected_queues is None else {n: self.router.queue(n) for n in self.selected_queues}

    def forget_routes(self) -> None:
        """Read the routes again when they are needed."""
        self._forget("router")
        self.plain_calls.clear()

    # connections

    @cached_property
    def transport(self) -> Transport:
        """The broker, for publishing."""
        with self._lock:
            found = self.__dict__.get("transport")
            if found is None:
                found = open_transport(self.conf.broker_write_url or "", self.conf.broker_transport_options, self.conf)
                self.undeclared = self.router.to_declare()
                self.__dict__["transport"] = found
            return found

    @cached_property
    def backend(self) -> ResultStore | None:
        """The result store; None when `result_backend` is None or "disabled://"."""
        with self._lock:
            url = self.conf.result_backend
            if url is None or url in ("disabled", "disabled://"):
                return None
            found = self.__dict__.get("backend")
            if found is None:
                found = self.__dict__["backend"] = open_store(
                    self._url(url), self.conf.result_backend_transport_options, self.conf
                )
            return found

    # under Celery's names, for programs that look after connections themselves

    def connection_for_write(self, url: str | None = None, **options: Any) -> Connection:
        """A connection to the broker that tasks are sent to, or to another; see `broker_connection.Connection`."""
        return self._connection(url or options.pop("hostname", None) or self.conf.broker_write_url, options)

    connection = broker_connection = connection_for_write

    def connection_for_read(self, url: str | None = None, **options: Any) -> Connection:
        """A connection to the broker that workers fetch from."""
        return self._connection(url or self.conf.broker_read_url, options)

    def _connection(self, url: Any, options: dict[str, Any]) -> Connection:
        make = import_object("celeriac.broker_connection:Connection", "app.connection")
        known = {"transport_options": self.conf.broker_transport_options, "settings": self.conf}
        made: Connection = make(self._url(url), **known | options)
        return made

    @cached_property
    def pool(self) -> Pool[Connection]:
        """Gives connections that share this app's: `with app.pool.acquire() as connection`."""
        make = import_object("celeriac.broker_connection:Pool", "app.pool")
        made: Pool[Connection] = make(
            lambda: self._connection(self.conf.broker_write_url, {"driver": self.transport}),
            self.conf.broker_pool_limit,
        )
        return made

    @cached_property
    def producer_pool(self) -> Pool[Producer]:
        """Gives producers that share this app's connections: `with app.producer_pool.acquire() as producer`."""
        make = import_object("celeriac.broker_connection:Pool", "app.producer_pool")
        made: Pool[Producer] = make(lambda: self.pool.acquire().Producer(), self.conf.broker_pool_limit)
        return made

    def connection_or_acquire(
        self, connection: Any = None, pool: bool = True, *_: Any, **__: Any
    ) -> AbstractContextManager[Any]:
        """For a `with` block: this connection, or one of the pool, or with `pool=False` one of its own."""
        if connection is not None:
            return nullcontext(connection)
        return self.pool.acquire() if pool else self.connection_for_write()

    default_connection = connection_or_acquire

    def producer_or_acquire(self, producer: Any = None) -> AbstractContextManager[Any]:
        """For a `with` block: this producer, or one of the pool."""
        return nullcontext(producer) if producer is not None else self.producer_pool.acquire()

    default_producer = producer_or_acquire

    @property
    def reader(self) -> Any:
        """The result store as clients read it: it tries again as `result_backend_always_retry` or the store itself says."""
        store, wanted = self.backend, self.conf.result_backend_always_retry
        if store is None or not (wanted or (wanted is None and store.capabilities.retries)):
            return store
        return import_object("celeriac.patient_store:PatientStore", "result_backend_always_retry")(store, self.conf)

    @cached_property
    def result_cache(self) -> Any:
        """The final results that this app remembers; None unless `result_cache_max` says so."""
        limit = self.conf.result_cache_max
        return None if limit == -1 else import_object("celeriac.result_cache:ResultCache", "result_cache_max")(limit)

    @cached_property
    def coordination(self) -> Coordination | None:
        """What workers and clients share for limits, unique tasks and paused queues; None if there is no place for it."""
        found: Coordination | None = import_object("celeriac.coordination.open:open_coordination", "limits")(self.conf)
        return found

    @staticmethod
    def _url(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return str(value[0]) if value else ""
        return str(value)

    @cached_property
    def waiter(self) -> Any:
        """Waits for results on behalf of coroutines."""
        if self.backend is None:
            raise NotImplementedError("No result backend is configured: set `result_backend` to a URL.")
        return import_object("celeriac.waiting:ResultWaiter", "aget")(self.reader)

    @cached_property
    def _batcher(self) -> Any:
        return import_object("celeriac.batching:Batcher", "adelay")(self)

    @cached_property
    def accept(self) -> frozenset[str]:
        """Content types of messages that are opened."""
        return accept_types(self.conf.accept_content)

    @cached_property
    def result_accept(self) -> frozenset[str]:
        """Content types of results that are opened."""
        return accept_types([*(self.conf.result_accept_content or ()), self.conf.result_serializer])

    @cached_property
    def mailbox(self) -> Any:
        """The result store, if its results are sent to this process (rpc); None if they are kept."""
        return self.backend if self._url(self.conf.result_backend).partition("://")[0] in ADDRESSED else None

    @cached_property
    def oid(self) -> str:
        """Id of this app in this process: where rpc results go."""
        return str(uuid.uuid4()) if self.mailbox is None else str(self.mailbox.box)

    def close(self) -> None:
        """Close connections. The app may be used again and then connects anew."""
        for name in ("transport", "backend", "coordination"):
            found = self.__dict__.get(name)
            if found is not None:
                found.close()
        self._forget("transport", "backend", "coordination", "waiter", "mailbox", "oid")
        self._plain_fields.clear()  # the address of results is one of them
        self.plain_calls.clear()

    def after_fork(self) -> None:
        """Called in a child process: what the parent had opened is not ours."""
        self._forget("transport", "backend", "coordination", "waiter", "mailbox", "oid", "_batcher")
        self._lock = threading.RLock()
        self._plain_fields.clear()
        self.plain_calls.clear()
        self.origin = new_origin()
        self.on_after_fork.send(sender=self)

    def _forget(self, *names: str) -> None:
        for name in names:
            self.__dict__.pop(name, None)
