"""Queues, routes and messages under the names that Celery documents: `app.amqp`.

Made when somebody asks for it: programs that build messages themselves, look up routes, or add queues while they run. It does
nothing of its own. Routes are the router's, the queues are its table, messages are built and sent as those of `delay()` are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple

from celeriac import broker_connection as brokers
from celeriac import codec
from celeriac import compression as compressions
from celeriac import consumer as consumers
from celeriac.errors import MessageTooLarge
from celeriac.hiding import texts_of
from celeriac.message import Message
from celeriac.middleware import send_through
from celeriac.queue_table import AppQueues
from celeriac.queue_table import Queues as Queues
from celeriac.router import Router as InnerRouter
from celeriac.routing import Exchange, Queue
from celeriac.safe_repr import MAX_LENGTH, saferepr
from celeriac.timing import SYSTEM_CLOCK
from celeriac.wire.messages import CallForm, TaskCall, parse_moment

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["AMQP", "Queues", "Router", "task_message"]

#: Parts of `task_message.body` of protocol 2, in their order in the embed.
_EMBED = ("callbacks", "errbacks", "chain", "chord")


class task_message(NamedTuple):  # noqa: N801 -- Celery's documented name
    """A message that is not serialized yet.

    Attributes:
        headers: Empty for protocol 1.
        properties: `correlation_id` and `reply_to`.
        body: (args, kwargs, embed), or the mapping of protocol 1.
        sent_event: What an event "task-sent" would say of it, if that was asked for.
    """

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: Any
    sent_event: dict[str, Any] | None


class Router:
    """Routes as Celery's router tells them: the options of a call with its destination.

    Args:
        routes: As in the setting `task_routes`; by default those of the app.
        queues: Known queues; by default the app's.
        create_missing: Whether others may be named.
    """

    def __init__(self, routes: Any = None, queues: Any = None, create_missing: bool = False, app: Any = None) -> None:
        self.app = app
        self.create_missing = create_missing
        self._own: InnerRouter | None = None
        if app is None or routes is not None or queues is not None:
            known = queues if isinstance(queues, Mapping) else Queues(queues or ())
            default = app.router.default if app is not None else next(iter(known.values()), Queue("celery"))
            given = app.conf.task_routes if routes is None and app is not None else routes
            self._own = InnerRouter(known, given, default, create_missing=create_missing)

    @property
    def inner(self) -> InnerRouter:
        """What decides."""
        if self._own is None:
            found: InnerRouter = self.app.router
            return found
        return self._own

    @property
    def queues(self) -> Mapping[str, Queue]:
        """The queues that it knows."""
        return self.inner.queues

    @property
    def routes(self) -> tuple[Callable[..., Any], ...]:
        """What is asked in turn: functions of (name, args, kwargs, options, task)."""
        return self.inner.routes

    def route(
        self, options: Mapping[str, Any] | None, name: str, args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None, task_type: Any = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The options of a call, with `queue`, or with `exchange` and `routing_key`.

        Raises:
            QueueNotFound: The queue is unknown, and others are not made.
        """
        options = dict(options or {})
        found = self.inner.route(name, args, kwargs or {}, options, task_type)
        rest = {key: value for key, value in options.items() if key not in ("queue", "exchange", "routing_key")}
        if found.queue:
            place: dict[str, Any] = {"queue": self.inner.queue(found.queue)}
        else:
            place = {"exchange": found.exchange, "routing_key": found.routing_key}
        return {**found.options, **rest, **place}

    def expand_destination(self, route: str | Mapping[str, Any]) -> dict[str, Any]:
        """A route as a mapping, with the queue that it names."""
        options: dict[str, Any] = {"queue": route} if isinstance(route, str) else dict(route)
        if isinstance(options.get("queue"), str):
            options["queue"] = self.inner.queue(options["queue"])
        return options

    def lookup_route(
        self, name: str, args: Any = None, kwargs: Any = None, options: Any = None, task_type: Any = None
    ) -> dict[str, Any] | None:
        """What `task_routes` says of a task; None if nothing."""
        found = self.inner.look_up(name, args, kwargs, options or {}, task_type)
        return dict(found) if found else None


# In the body of the class below their names are those of methods.
_Queues = Queues
_Router = Router


class AMQP:
    """`app.amqp`. A class of your own is named by `app.amqp_cls`, or given as `Celeriac(amqp=…)`.

    Attributes:
        argsrepr_maxsize, kwargsrepr_maxsize: Longest texts of arguments in headers, logs and events.
        autoexchange: Makes an exchange of the name of a queue that nobody has described, in `Queues()`.
    """

    Connection = BrokerConnection = brokers.Connection
    Consumer = consumers.Consumer
    Producer = brokers.Producer
    queues_cls: type[_Queues] = Queues
    autoexchange: Callable[[str], Any] | None = None

    def __init__(self, app: Celeriac) -> None:
        self.app = app

    # sizes

    @property
    def argsrepr_maxsize(self) -> int:
        """Longest text of positional arguments, in characters."""
        return self._sizes[0]

    @argsrepr_maxsize.setter
    def argsrepr_maxsize(self, size: int) -> None:
        self.app.set_repr_sizes(size, self._sizes[1])

    @property
    def kwargsrepr_maxsize(self) -> int:
        """Longest text of keyword arguments, in characters."""
        return self._sizes[1]

    @kwargsrepr_maxsize.setter
    def kwargsrepr_maxsize(self, size: int) -> None:
        self.app.set_repr_sizes(self._sizes[0], size)

    @property
    def _sizes(self) -> tuple[int, int]:
        return vars(self.app).get("repr_sizes") or (MAX_LENGTH, MAX_LENGTH)

    # queues and routes

    @property
    def queues(self) -> _Queues:
        """The queues that the app knows; may be changed."""
        found = self.app.queue_table
        return found if isinstance(found, AppQueues) else AppQueues(self.app)

    @property
    def default_queue(self) -> Queue:
        """Where tasks without a route go."""
        return self.app.router.default

    @property
    def default_exchange(self) -> Exchange:
        """Its exchange."""
        return self.default_queue.exchange

    @property
    def router(self) -> _Router:
        """Decides where tasks go."""
        return _Router(app=self.app, create_missing=self.app.router.create_missing)

    @property
    def routes(self) -> tuple[Callable[..., Any], ...]:
        """What `task_routes` was made into: functions of (name, args, kwargs, options, task)."""
        return self.app.router.routes

    def flush_routes(self) -> None:
        """Read `task_routes` again, after it was changed in place."""
        self.app.forget_routes()

    def Queues(  # noqa: N802 -- Celery's documented name
        self, queues: Any, create_missing: bool | None = None, create_missing_queue_type: str | None = None,
        create_missing_queue_exchange_type: str | None = None, autoexchange: Any = None, max_priority: int | None = None,
    ) -> _Queues:  # fmt: skip
        """A table of queues of its own, by the settings of the app; with the default queue if none are given."""
        conf = self.app.conf
        return self.queues_cls(
            queues or [self.default_queue], self.default_exchange,
            conf.task_create_missing_queues if create_missing is None else create_missing,
            create_missing_queue_type or conf.task_create_missing_queue_type,
            create_missing_queue_exchange_type or conf.task_create_missing_queue_exchange_type,
            autoexchange or self.autoexchange,
            conf.task_queue_max_priority if max_priority is None else max_priority,
            self.default_queue.routing_key,
        )  # fmt: skip

    def Router(self, queues: Any = None, create_missing: bool | None = None) -> _Router:  # noqa: N802
        """A router for the app's routes, with queues of its own or the app's."""
        if queues is None and create_missing is None:
            return self.router
        allowed = self.app.router.create_missing if create_missing is None else create_missing
        return _Router(None, queues or self.queues, allowed, self.app)

    def TaskConsumer(  # noqa: N802 -- Celery's documented name
        self, channel: brokers.Connection, queues: Any = None, accept: Any = None, **kw: Any
    ) -> consumers.Consumer:
        """Receives what workers would: messages of the app's queues, or of these."""
        return self.Consumer(
            channel, queues=queues or list(self.queues.consume_from.values()),
            accept=self.app.conf.accept_content if accept is None else accept, **kw,
        )  # fmt: skip

    @property
    def producer_pool(self) -> brokers.Pool[brokers.Producer]:
        """The same as `app.producer_pool`."""
        return self.app.producer_pool

    publisher_pool = producer_pool

    @property
    def utc(self) -> bool:
        """The setting `enable_utc`."""
        return bool(self.app.conf.enable_utc)

    # messages

    @property
    def create_task_message(self) -> Callable[..., task_message]:
        """Builds messages of the protocol that the setting `task_protocol` says."""
        return self.as_task_v1 if self.app.conf.task_protocol == 1 else self.as_task_v2

    def as_task_v2(
        self, task_id: str, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None,
        countdown: float | None = None, eta: datetime | str | None = None, group_id: str | None = None,
        group_index: int | None = None, expires: Any = None, retries: int = 0, chord: Any = None, callbacks: Any = None,
        errbacks: Any = None, reply_to: str | None = None, time_limit: float | None = None,
        soft_time_limit: float | None = None, create_sent_event: bool = False, root_id: str | None = None,
        parent_id: str | None = None, shadow: str | None = None, chain: Any = None, now: datetime | None = None,
        timezone: tzinfo | None = None, origin: str | None = None, ignore_result: bool = False,
        argsrepr: str | None = None, kwargsrepr: str | None = None, stamped_headers: list[str] | None = None,
        replaced_task_nesting: int = 0, **options: Any,
    ) -> task_message:  # fmt: skip
        """A message of protocol 2.

        Raises:
            TypeError: `args` is not a list or tuple, or `kwargs` no mapping.
            ValueError: `countdown`, `eta` or `expires` is no moment.
        """
        texts = self._texts(name, args, kwargs)
        call = TaskCall(
            task=name, id=task_id, args=_checked(args), kwargs=_checked_names(kwargs), countdown=countdown, eta=eta,
            expires=expires, retries=retries, time_limit=time_limit, soft_time_limit=soft_time_limit,
            callbacks=callbacks, errbacks=errbacks, chain=chain, chord=chord, group_id=group_id, group_index=group_index,
            root_id=root_id, parent_id=parent_id, shadow=shadow, reply_to=reply_to, origin=origin or self.app.origin,
            ignore_result=ignore_result, replaced_task_nesting=replaced_task_nesting, stamped_headers=stamped_headers,
            stamps={stamp: options[stamp] for stamp in stamped_headers or () if stamp in options},
            argsrepr=texts["argsrepr"] if argsrepr is None else argsrepr,
            kwargsrepr=texts["kwargsrepr"] if kwargsrepr is None else kwargsrepr,
        )  # fmt: skip
        headers, _ = self._opened(call, 2, now, timezone)
        event = _event(call, headers) if create_sent_event else None
        if event is not None:
            event.update(root_id=headers["root_id"], parent_id=parent_id)
        body = (call.args, call.kwargs, {part: getattr(call, part) for part in _EMBED})
        return task_message(headers, {"correlation_id": task_id, "reply_to": reply_to or ""}, body, event)

    def as_task_v1(
        self, task_id: str, name: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None,
        countdown: float | None = None, eta: datetime | str | None = None, group_id: str | None = None,
        group_index: int | None = None, expires: Any = None, retries: int = 0, chord: Any = None, callbacks: Any = None,
        errbacks: Any = None, reply_to: str | None = None, time_limit: float | None = None,
        soft_time_limit: float | None = None, create_sent_event: bool = False, root_id: str | None = None,
        parent_id: str | None = None, shadow: str | None = None, now: datetime | None = None,
        timezone: tzinfo | None = None, **compat_kwargs: Any,
    ) -> task_message:  # fmt: skip
        """A message of protocol 1. Raises as `as_task_v2` does."""
        call = TaskCall(
            task=name, id=task_id, args=_checked(args), kwargs=_checked_names(kwargs), countdown=countdown, eta=eta,
            expires=expires, retries=retries, time_limit=time_limit, soft_time_limit=soft_time_limit,
            callbacks=callbacks, errbacks=errbacks, chord=chord, group_id=group_id, group_index=group_index,
            **self._texts(name, args, kwargs),
        )  # fmt: skip
        _, body = self._opened(call, 1, now, timezone)
        event = _event(call, body) if create_sent_event else None
        return task_message({}, {"correlation_id": task_id, "reply_to": reply_to or ""}, body, event)

    def _texts(self, name: str, args: Any, kwargs: Any) -> dict[str, Any]:
        """Texts of arguments; those that are secret are hidden, if the app has the task."""
        task = self.app.registered(name)
        if task is not None and task.secrets:
            return {**texts_of(task.secrets, args or (), kwargs or {})}
        longest, longest_named = self.argsrepr_maxsize, self.kwargsrepr_maxsize
        return {"argsrepr": saferepr(args or (), longest), "kwargsrepr": saferepr(kwargs or {}, longest_named)}

    def _opened(
        self, call: TaskCall, protocol: int, now: datetime | None, timezone: tzinfo | None
    ) -> tuple[dict[str, Any], Any]:
        zone = timezone or self.app.timezone
        moment = SYSTEM_CLOCK.now() if now is None else (now if now.tzinfo else now.replace(tzinfo=zone)).timestamp()
        form = CallForm(call, now=moment, tz=zone, protocol=protocol)
        return form.opened(call.id, call.args, call.kwargs, call.group_index)

    def send_task_message(
        self, producer: brokers.Producer | None, name: str, message: task_message, exchange: Any = None,
        routing_key: str | None = None, queue: Any = None, event_dispatcher: Any = None, retry: bool | None = None,
        retry_policy: Mapping[str, Any] | None = None, serializer: str | None = None, delivery_mode: Any = None,
        compression: str | None = None, declare: Sequence[Any] | None = None, headers: Mapping[str, Any] | None = None,
        exchange_type: str | None = None, timeout: float | None = None, confirm_timeout: float | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Send a message that `create_task_message` has built; returns once the broker has it.

        Args:
            producer: Over whose connection; None for the app's own.
            exchange, routing_key, queue, exchange_type: Where to; by default the default queue.
            event_dispatcher: No effect.
            declare: Queues that are to exist before.
            headers: Further headers.
            kwargs: `priority`, and further properties.

        Raises:
            OperationalError: The broker can't be reached.
            EncodeError: The body can't be serialized.
        """
        given = {"queue": queue, "exchange": exchange, "routing_key": routing_key, "exchange_type": exchange_type}
        route = self.app.router.place({key: value for key, value in given.items() if value})
        conf = self.app.conf
        kind, encoding, data = codec.dumps(message.body, serializer or conf.task_serializer)
        found = {**message.headers, **(headers or {})}
        method = compression or conf.task_compression
        if method:
            data, found["compression"] = compressions.compress(data, method)
        if conf.message_max_bytes is not None and len(data) > conf.message_max_bytes:
            raise MessageTooLarge(
                f"the arguments of {name} take {len(data)} bytes, more than the {conf.message_max_bytes} allowed by"
                " message_max_bytes; store the data and pass a reference to it"
            )
        said = message.headers or message.body
        mode = delivery_mode or conf.task_default_delivery_mode
        built = Message(
            id=str(message.properties.get("correlation_id") or said.get("id")), headers=found, body=data,
            content_type=kind, content_encoding=encoding, queue=route.queue, exchange=route.exchange,
            routing_key=route.routing_key, priority=kwargs.pop("priority", conf.task_default_priority),
            eta=parse_moment(said.get("eta"), self.app.timezone),
            expires_at=parse_moment(said.get("expires"), self.app.timezone),
            reply_to=message.properties.get("reply_to") or "", transient=mode in (1, "1", "transient"), properties=kwargs,
        )  # fmt: skip
        options: dict[str, Any] = {"retry": retry, "retry_policy": retry_policy, "timeout": timeout}
        if producer is not None and producer.connection.driver is not self.app.transport:
            options["connection"] = producer.connection
        if declare:
            driver = producer.connection.driver if producer is not None else self.app.transport
            driver.declare([each for each in declare if isinstance(each, Queue)])
        self.app.publish([send_through(self.app.middleware, built)], options)


def _checked(args: Any) -> Sequence[Any]:
    if args is not None and not isinstance(args, (list, tuple)):
        raise TypeError(f"task args must be a list or tuple, not {saferepr(args, 60)}")
    return args or ()


def _checked_names(kwargs: Any) -> Mapping[str, Any]:
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"task kwargs must be a mapping, not {saferepr(kwargs, 60)}")
    return kwargs or {}


def _event(call: TaskCall, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "uuid": call.id, "name": call.task, "args": call.argsrepr, "kwargs": call.kwargsrepr, "retries": call.retries,
        "eta": said["eta"], "expires": said["expires"],
    }  # fmt: skip
