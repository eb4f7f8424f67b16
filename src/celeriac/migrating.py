"""Moving messages: from one broker to another, or between the queues of one. `celeriac migrate` and `contrib.migrate` call it.

A message is leased, published at its new place, and acknowledged at the old one once the new one has it for good; what is not to
be moved is held until the end and then goes back to the head of its queue. So a kill at any moment loses nothing: at worst what
was published last is at both places, and its task runs once more. Bodies are opened only for predicates that look at them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from celeriac.broker_connection import Connection, Producer
from celeriac.consumer import BATCH, Consumer, ReceivedMessage
from celeriac.current import app_or_default
from celeriac.errors import CeleriacError, InvalidTaskError
from celeriac.faultpoint import faultpoint
from celeriac.local import Proxy
from celeriac.log import get_logger
from celeriac.message import Message, Settlement
from celeriac.queue_forms import as_queue
from celeriac.routing import Exchange, Queue, worker_direct
from celeriac.timing import SYSTEM_CLOCK
from celeriac.wire.messages import parse_moment

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = [
    "State", "StopFiltering", "migrate_task", "migrate_tasks", "move", "move_by_idmap", "move_by_taskmap", "move_direct",
    "move_direct_by_id", "move_task_by_id", "republish", "start_filter", "task_id_eq", "task_id_in",
]  # fmt: skip

logger = get_logger("celeriac.migrating")

#: Properties that `republish` can leave out, and what stands in their place.
_REMOVED: dict[str, Any] = {"priority": None, "reply_to": "", "expiration": None, "delivery_mode": False}
_FIELDS = {"expiration": "expires_at", "delivery_mode": "transient"}


class StopFiltering(Exception):  # noqa: N818 -- Celery's documented name
    """Raised by a filter, a predicate or a callback: go no further."""


class State:
    """How far it is.

    Attributes:
        count: How many messages were looked at that are of the wanted tasks.
        filtered: How many were moved.
        total_apx: How many there were when it began, about.
        delayed: How many the source had put off in the end, since they are not yet due: they stay. RabbitMQ does not know.
    """

    count = 0
    filtered = 0
    total_apx = 0
    delayed = 0

    @property
    def strtotal(self) -> str:
        """The total as text; "?" while nobody knows."""
        return str(self.total_apx) if self.total_apx else "?"

    def __repr__(self) -> str:
        return f"<State: {self.count}/{self.strtotal}>"


class _Outbox(Producer):
    """Messages that are published together. Each is acknowledged at its old place after that."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.waiting: list[Message] = []

    def flush(self) -> None:
        """Publish what waits."""
        waiting, self.waiting = self.waiting, []
        if waiting:
            self.connection.driver.publish(waiting)


class _Batches(Consumer):
    """Receives in batches; what callbacks acknowledge is settled with the batch, after `before` was called."""

    def __init__(
        self, connection: Connection, queues: Sequence[Queue], before: Callable[[], Any], **kwargs: Any
    ) -> None:
        self._before = before
        self._ending: list[Settlement] = []
        super().__init__(connection, [queue.name for queue in queues], **kwargs)

    def settle(self, *settlements: Settlement) -> None:
        """Later."""
        self._ending += settlements

    def finish(self) -> None:
        """The end of a batch. If what is to be published can't be, nothing is acknowledged."""
        ending, self._ending = self._ending, []
        self._before()
        if ending:
            faultpoint("migrate_published")
            super().settle(*ending)
            faultpoint("migrate_settled")


# publishing again


def republish(
    producer: Producer,
    message: ReceivedMessage,
    exchange: Any = None,
    routing_key: str | None = None,
    remove_props: Iterable[str] | None = None,
) -> None:
    """Publish a message as it is: its body, headers and properties are the same.

    Args:
        producer: Where to.
        exchange, routing_key: Without an exchange the key is the name of the queue; without both, it is the same queue.
        remove_props: Names of properties that are left out.
    """
    target = getattr(exchange, "name", exchange) or ""
    key = routing_key if routing_key is not None else message.delivery.queue
    known = message.message
    removed = set(remove_props or ())
    # A broker may drop what is over; a worker is to read it, and to say that it has expired. The header tells it.
    is_over = known.expires_at is not None and known.expires_at <= SYSTEM_CLOCK.now()
    changes = {_FIELDS.get(name, name): value for name, value in _REMOVED.items() if name in removed}
    again = replace(
        known, queue="" if target else key, exchange=target, routing_key=key, eta=_eta_of(known),
        properties={name: value for name, value in known.properties.items() if name not in removed},
        **{**({"expires_at": None} if is_over else {}), **changes},
    )  # fmt: skip
    if isinstance(producer, _Outbox):
        producer.waiting.append(again)
    else:
        producer.connection.driver.publish([again])


def _eta_of(message: Message) -> float | None:
    """Its ETA; some brokers leave it in the headers, where stock clients write it."""
    if message.eta is not None:
        return message.eta
    try:
        eta = parse_moment(message.headers.get("eta"), UTC)
    except InvalidTaskError:  # the worker that gets it is to say so
        return None
    return eta if eta is not None and eta > SYSTEM_CLOCK.now() else None


def migrate_task(
    producer: Producer, body_: Any, message: ReceivedMessage, queues: Mapping[str, str] | None = None
) -> None:
    """Publish a message to the queue that it came from, or that `queues` has in its place."""
    name = message.delivery.queue
    republish(producer, message, "", (queues or {}).get(name, name))


def migrate_tasks(
    source: Connection,
    dest: Connection,
    migrate: Callable[..., Any] = migrate_task,
    app: Celeriac | None = None,
    queues: Any = None,
    **kwargs: Any,
) -> State:
    """Copy the messages of queues from one broker to another, or move them with `ack_messages=True`.

    Args:
        source: Where they are.
        dest: Where they go.
        migrate: Called with (producer, body, message, queues=names here → names there).
        queues: Which: a list of names or `"a,b:c"`, or a mapping; `b:c` is queue b, which is called c there. By default
            the app's.
        kwargs: As for `start_filter`.
    """
    app = app_or_default(app)
    names = _queue_map(app, queues)
    outbox = _Outbox(dest)
    queues_there = [_renamed(app.router.queue(name), there) for name, there in names.items()]
    dest.driver.declare([queue for queue in queues_there if queue.is_special])  # others are made when they are sent to
    return start_filter(
        app, source, partial(migrate, outbox, queues=names), consume_from=list(names), before_settling=outbox.flush, **kwargs
    )  # fmt: skip


def _queue_map(app: Celeriac, queues: Any) -> dict[str, str]:
    """Names here → names there."""
    if not queues:
        return {name: name for name, queue in app.router.queues.items() if not queue.is_broadcast}
    if isinstance(queues, Mapping):
        return {str(name): str(there or name) for name, there in queues.items()}
    given = queues.split(",") if isinstance(queues, str) else queues
    pairs = [each.strip().partition(":") if isinstance(each, str) else (str(each.name), "", "") for each in given]
    return {name: there or name for name, _, there in pairs if name}


def _renamed(queue: Queue, name: str) -> Queue:
    if name == queue.name:
        return queue
    exchange = replace(queue.exchange, name=name) if queue.exchange.name == queue.name else queue.exchange
    key = name if queue.routing_key == queue.name else queue.routing_key
    return replace(queue, name=name, exchange=exchange, routing_key=key)


# going through queues


def start_filter(
    app: Celeriac,
    conn: Connection,
    filter: Callable[[Any, ReceivedMessage], Any],
    limit: int | None = None,
    timeout: float = 1.0,
    ack_messages: bool = False,
    tasks: str | Collection[str] | None = None,
    queues: Any = None,
    callback: Callable[[State, Any, ReceivedMessage], Any] | None = None,
    forever: bool = False,
    on_declare_queue: Callable[[Queue], Any] | None = None,
    consume_from: Sequence[Any] | None = None,
    state: State | None = None,
    accept: Iterable[str] | None = None,
    before_settling: Callable[[], Any] | None = None,
    **kwargs: Any,
) -> State:
    """Show each message of some queues to a function, once.

    Args:
        filter: Called with (body, message). It may acknowledge the message; what it does not goes back in the end.
        limit: How many messages are looked at.
        timeout: Seconds without a message after which it ends.
        ack_messages: Acknowledge each message after the filter has seen it.
        tasks: Only messages of these tasks: their names, as a list or with commas between.
        queues, consume_from: Which queues, by name or as objects; by default the app's.
        callback: Called with (state, body, message) after the filter.
        forever: Wait for further messages without end.
        on_declare_queue: Called with each queue before it begins.
        accept: Which serializers may be opened, when something looks at the body.
        before_settling: Called before messages are acknowledged, which happens in batches.
        kwargs: Celery's other arguments, which have no meaning here.
    """
    state = state or State()
    found = [_known(app, queue) for queue in consume_from or _queue_map(app, queues)]
    wanted = set(tasks.split(",") if isinstance(tasks, str) else tasks or ())
    for queue in found:
        if on_declare_queue is not None:
            on_declare_queue(queue)
        state.total_apx += conn.driver.size(queue.name).ready
    if hasattr(conn.driver, "deliver_early"):  # a driver that would put off what lies in its queues
        conn.driver.deliver_early()
    consumer = _Batches(conn, found, before_settling or bool, accept=accept)

    def show(message: ReceivedMessage) -> None:
        if not wanted or _task_of(message) in wanted:
            _show(state, message, filter, callback, ack_messages)
        if limit and state.count >= limit:
            raise StopFiltering

    _go_through(consumer, show, timeout, forever=forever)
    state.delayed = sum(conn.driver.size(queue.name).delayed for queue in found)
    return state


def _go_through(consumer: _Batches, show: Callable[[ReceivedMessage], None], timeout: float, *, forever: bool) -> None:
    """Show all messages that come, until `show` raises StopFiltering or none comes any more; the rest goes back.

    What is held may be any number of messages: RabbitMQ's limit for a consumer is 65,535, and its driver then opens another one.
    """
    try:
        while True:
            messages = consumer.receive(timeout, BATCH)
            for message in messages:
                consumer.renew()
                show(message)
            consumer.finish()
            if not messages and not forever:
                _tell_unseen(consumer)
                break
    except StopFiltering:
        pass
    finally:
        try:
            consumer.finish()
        finally:
            consumer.recover()


def _tell_unseen(consumer: _Batches) -> None:
    for queue in consumer.queues:
        unseen = consumer.connection.driver.size(queue.name).ready
        if unseen:
            logger.warning(
                "%d message(s) of %s were not seen: they came last, or another consumer has the queue to itself",
                unseen, queue.name,
            )  # fmt: skip


def _show(
    state: State, message: ReceivedMessage, filter: Callable[..., Any], callback: Callable[..., Any] | None, ack: bool
) -> None:
    if message.message.defect:
        logger.warning(
            "a message of %s can't be read and stays there: %s", message.delivery.queue, message.message.defect
        )
        return
    body = Proxy(lambda: message.payload)
    filter(body, message)
    if ack and not message.acknowledged:
        message.ack()
    state.count += 1
    if callback is not None:
        callback(state, body, message)


def _task_of(message: ReceivedMessage) -> str:
    try:
        return message.task
    except CeleriacError as exc:  # of protocol 1, and not to be opened here
        logger.warning("a message of %s stays there: its task can't be read: %s", message.delivery.queue, exc)
        return ""


def _known(app: Celeriac, queue: Any) -> Queue:
    return app.router.queue(queue) if isinstance(queue, str) else as_queue(queue)


# between queues


def move(
    predicate: Callable[[Any, ReceivedMessage], Any],
    connection: Connection | None = None,
    exchange: Any = None,
    routing_key: str | None = None,
    source: Sequence[Any] | None = None,
    app: Celeriac | None = None,
    callback: Callable[[State, Any, ReceivedMessage], Any] | None = None,
    limit: int | None = None,
    transform: Callable[[Any], Any] | None = None,
    **kwargs: Any,
) -> State:
    """Move the messages that a predicate chooses to another queue.

    Args:
        predicate: Called with (body, message). What it returns is where the message goes: a queue or its name, a pair
            (exchange, routing key), or True for the arguments of that name; anything false leaves it where it is.
        connection: By default one of the app's.
        source: The queues to look through, by name or as objects; by default the app's.
        callback: Called with (state, body, message) after each message that was moved.
        limit: How many are moved.
        transform: Makes of what the predicate has returned what is meant by it.
        kwargs: As for `start_filter`.

    Example:
        >>> move(lambda body, message: message.task == "shop.mail" and Queue("mail"), app=app)
    """
    app = app_or_default(app)
    state = State()
    with app.connection_or_acquire(connection, pool=False) as conn:
        outbox = _Outbox(conn)
        declared: set[str] = set()

        def on_message(body: Any, message: ReceivedMessage) -> None:
            found = predicate(body, message)
            if not found:
                return
            chosen = transform(found) if transform else found
            target = _target(app, chosen, exchange, routing_key)
            if target.queue == message.delivery.queue:
                return  # it is there
            if hasattr(chosen, "routing_key") and chosen.name not in declared:
                conn.driver.declare([as_queue(chosen)])
                declared.add(chosen.name)
            republish(outbox, message, target.exchange, target.queue or target.routing_key)
            message.ack()
            state.filtered += 1
            if callback is not None:
                callback(state, body, message)
            if limit and state.filtered >= limit:
                raise StopFiltering

        return start_filter(
            app, conn, on_message, consume_from=source, state=state, before_settling=outbox.flush, **kwargs
        )  # fmt: skip


def _target(app: Celeriac, found: Any, exchange: Any, routing_key: str | None) -> Any:
    """The route to what a predicate has returned."""
    options: dict[str, Any]
    if isinstance(found, (tuple, list)):
        if len(found) != 2:
            raise ValueError(f"a predicate returns a queue or a pair (exchange, routing key), not {found!r}")
        target, key = found
        options = {"exchange": target or exchange, "routing_key": key} if target or exchange else {"queue": key}
    elif isinstance(found, Exchange):
        options = {"exchange": found, "routing_key": routing_key}
    elif isinstance(found, str) or hasattr(found, "routing_key"):
        options = {"queue": found}
    else:
        options = {"exchange": exchange, "routing_key": routing_key} if exchange else {"queue": routing_key}
    if not any(options.values()):
        raise ValueError(
            f"the predicate says that a message is to be moved, but {found!r} is no queue, and neither exchange nor"
            " routing_key says where to"
        )
    return app.router.place(options)


def task_id_eq(task_id: str, body: Any, message: ReceivedMessage) -> bool:
    """Whether a message has this task id."""
    return message.task_id == task_id


def task_id_in(ids: Collection[str], body: Any, message: ReceivedMessage) -> bool:
    """Whether a message has one of these task ids."""
    return message.task_id in ids


def move_task_by_id(task_id: str, dest: Any, **kwargs: Any) -> State:
    """Move the message of one task to a queue; `kwargs` as for `move`."""
    return move_by_idmap({task_id: dest}, **kwargs)


def move_by_idmap(map: Mapping[str, Any], **kwargs: Any) -> State:
    """Move messages by a mapping of task ids to queues; ends when each was found once."""

    def where(body: Any, message: ReceivedMessage) -> Any:
        return map.get(message.task_id)

    return move(where, **{"limit": len(map), **kwargs})


def move_by_taskmap(map: Mapping[str, Any], **kwargs: Any) -> State:
    """Move messages by a mapping of task names to queues."""

    def where(body: Any, message: ReceivedMessage) -> Any:
        return map.get(message.task)

    return move(where, **kwargs)


def move_direct(predicate: Callable[[Any, ReceivedMessage], Any], *args: Any, **kwargs: Any) -> State:
    """`move` to queues of single workers: the predicate returns the name of a node."""
    return move(predicate, *args, **{"transform": worker_direct, **kwargs})


def move_direct_by_id(task_id: str, dest: str, **kwargs: Any) -> State:
    """`move_task_by_id` to the queue of a worker, by its node name."""
    return move_task_by_id(task_id, dest, **{"transform": worker_direct, **kwargs})
