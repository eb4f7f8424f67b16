"""`Task.request`: what a task can know about its present execution, and which one is running here.

One `ContextVar` holds the innermost running context, so threads, coroutines and greenlets each see their own.
`make_context` makes one of a message; a header of the wrong type is refused there, before it can get into a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from celeriac.errors import InvalidTaskError
from celeriac.options import LIMITS
from celeriac.outcome import Execution
from celeriac.routing import is_copy
from celeriac.safe_repr import saferepr
from celeriac.wire.bodies import SealedSteps
from celeriac.wire.messages import TaskBody, timelimits

__all__ = ["Context", "RequestStack", "make_context", "pop_current_task", "push_current_task", "running"]


class Context:
    """The documented attributes of `Task.request`. Missing ones read as their defaults."""

    id: str | None = None
    task: str | None = None  #: name of the task
    args: list[Any] | None = None
    kwargs: dict[str, Any] | None = None
    retries: int = 0
    is_eager: bool = False
    called_directly: bool = True
    eta: str | None = None
    expires: str | None = None
    hostname: str | None = None
    delivery_info: dict[str, Any] | None = None
    origin: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    timelimit: list[float | None] | None = None
    callbacks: list[Any] | None = None
    errbacks: list[Any] | None = None
    chord: Any = None
    group: str | None = None
    group_index: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    headers: dict[str, Any] | None = None
    properties: dict[str, Any] | None = None
    utc: bool | None = None
    logfile: str | None = None
    loglevel: int | None = None
    ignore_result: bool | None = False
    shadow: str | None = None
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    #: What the client told of this call's limits (header `task_limits.LIMITS`).
    limits: dict[str, Any] | None = None
    children: list[Any] | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    lang: str | None = None
    #: The task object, while a worker or `apply` runs it.
    owner: Any = None
    #: Whether an overridden `__call__` of the task has been entered.
    is_entered: bool = False
    #: How many members it has added to its group or chord.
    added: int = 0
    #: The record of its outcome, once there is one: handlers and signals see it, wherever it is on its way to the store.
    record: Any = None
    #: How many times the message was delivered, this time included.
    deliveries: int = 1
    #: How a state gets stored while the task runs; None outside a worker.
    store_state: Callable[[Any], None] | None = None

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute, or `default`."""
        return getattr(self, key, default)

    def update(self, **fields: Any) -> None:
        """Set several attributes."""
        self.__dict__.update(fields)

    def clear(self) -> None:
        """Back to the defaults."""
        self.__dict__.clear()

    def as_execution_options(self) -> dict[str, Any]:
        """The options with which a call would continue this execution in its place: ids, group, chain, links, limits."""
        limits = {"soft_time_limit": self.soft_time_limit, "time_limit": self.time_limit}
        named = {option: getattr(self, attribute) for option, attribute in _EXECUTION_OPTIONS.items()}
        return {**named, **limits, "headers": self.headers or {}}

    @property
    def chain(self) -> list[Any] | None:
        """What follows in its chain, from last to first."""
        steps = self.steps
        if isinstance(steps, SealedSteps):
            steps = self.__dict__["chain"] = list(steps)
        return steps  # type: ignore[return-value]

    @chain.setter
    def chain(self, steps: list[Any] | None) -> None:
        self.__dict__["chain"] = steps

    @property
    def steps(self) -> Sequence[Any] | None:
        """The same, as it came: a long chain is sealed."""
        steps: Sequence[Any] | None = self.__dict__.get("chain")
        return steps

    @property
    def time_limit(self) -> float | None:
        """Hard limit in seconds."""
        return self.timelimit[0] if self.timelimit else None

    @property
    def soft_time_limit(self) -> float | None:
        """Soft limit in seconds."""
        return self.timelimit[1] if self.timelimit else None

    @property
    def taskset(self) -> str | None:
        """Old name of `group`."""
        return self.group

    def __repr__(self) -> str:
        # Arguments as their texts, in which secrets are hidden.
        return f"<Context: {dict(self.__dict__, args=self.argsrepr, kwargs=self.kwargsrepr)!r}>"


#: Options of calls, and the attributes of a context that they continue.
_EXECUTION_OPTIONS = {
    "task_id": "id", "root_id": "root_id", "parent_id": "parent_id", "group_id": "group", "group_index": "group_index",
    "shadow": "shadow", "chord": "chord", "chain": "chain", "link": "callbacks", "link_error": "errbacks",
    "expires": "expires", "retries": "retries", "reply_to": "reply_to",
    "replaced_task_nesting": "replaced_task_nesting", "origin": "origin",
}  # fmt: skip


#: The innermost running execution of this thread, coroutine or greenlet.
running: ContextVar[Context | None] = ContextVar("celeriac_running", default=None)


#: What was pushed here by hand, and what ran before each.
_requests: ContextVar[tuple[tuple[Context, Context | None], ...]] = ContextVar("celeriac_requests", default=())


class RequestStack:
    """The requests that were pushed in this thread or coroutine: `task.request_stack`."""

    def push(self, request: Context) -> None:
        """Let this be the present request until `pop`."""
        _requests.set((*_requests.get(), (request, running.get())))
        running.set(request)

    def pop(self) -> Context | None:
        """Undo the last `push`; returns its request, or None if there is none left."""
        if not _requests.get():
            return None
        *rest, (request, before) = _requests.get()
        _requests.set(tuple(rest))
        running.set(before)
        return request

    @property
    def top(self) -> Context | None:
        """The request of what runs here, pushed or not."""
        return running.get()

    @property
    def stack(self) -> list[Context]:
        """What was pushed, the last one last."""
        return [request for request, _ in _requests.get()]

    def __len__(self) -> int:
        return len(_requests.get())


#: The tasks that `push_current_task` has put aside here, and what ran before each.
_pushed: ContextVar[tuple[tuple[Any, Context | None], ...]] = ContextVar("celeriac_pushed", default=())


def push_current_task(task: Any) -> None:
    """Let `task` be the current one of this thread, as while it runs, until `pop_current_task`."""
    _pushed.set((*_pushed.get(), (task, running.get())))
    running.set(Context(task=task.name))


def pop_current_task() -> Any:
    """Undo the last `push_current_task`; returns its task, or None if there is none left."""
    if not _pushed.get():
        return None
    *rest, (task, before) = _pushed.get()
    _pushed.set(tuple(rest))
    running.set(before)
    return task


def make_context(
    execution: Execution, body: TaskBody, headers: Mapping[str, Any], *, node: str, is_eager: bool, store_state: Any
) -> Context:
    """`Task.request` of this execution.

    Raises:
        InvalidTaskError: A header has the wrong type.
    """
    _check(headers)
    message, get = execution.message, headers.get
    context = Context()
    context.__dict__ = known = {
        **_BLANK,
        "id": get("id") or message.id,
        "task": get("task"),
        "args": body.args,
        "kwargs": body.kwargs,
        "retries": get("retries") or 0,
        "is_eager": is_eager,
        "called_directly": False,
        "hostname": node,
        "delivery_info": {
            "exchange": message.exchange,
            "routing_key": message.routing_key or message.queue,
            "priority": message.priority,
            "redelivered": execution.deliveries > 1,
            **({"queue": execution.queue} if is_copy(execution.queue) else {}),  # where a retry belongs
        },
        "reply_to": message.reply_to,
        "correlation_id": message.id,
        "timelimit": list(timelimits(headers)),
        "root_id": get("root_id") or get("id") or message.id,
        "properties": message.properties,
        "utc": True,
        "ignore_result": get("ignore_result"),
        "limits": get(LIMITS),
        "deliveries": execution.deliveries,
        "store_state": store_state,
    }
    known.update({name: value for name, value in headers.items() if value is not None and name in _AS_THEY_ARE})
    if body.callbacks or body.errbacks or body.chain or body.chord:
        known.update(callbacks=body.callbacks, errbacks=body.errbacks, chain=body.chain, chord=body.chord)
    if not _PROTOCOL_HEADERS.issuperset(headers):
        known["headers"] = {key: value for key, value in headers.items() if key not in _PROTOCOL_HEADERS}
    return context


#: Headers that become attributes as they are, unless they are null.
_AS_THEY_ARE = frozenset({
    "eta", "expires", "origin", "group", "group_index", "parent_id", "shadow", "replaced_task_nesting", "stamped_headers",
    "stamps", "argsrepr", "kwargsrepr", "lang",
})  # fmt: skip
#: What most messages don't say; a dict is copied faster than it is written down.
_BLANK: dict[str, Any] = {
    **dict.fromkeys((*sorted(_AS_THEY_ARE), "callbacks", "errbacks", "chain", "chord", "headers")),
    "replaced_task_nesting": 0,
}
_PROTOCOL_HEADERS = frozenset({
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
    "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers",
    "stamps", "compression", LIMITS,
})  # fmt: skip

#: Headers that go on into records and further messages; those not listed are only shown.
_TEXTS = ("id", "group", "root_id", "parent_id", "shadow")
_NUMBERS = ("retries", "group_index", "replaced_task_nesting")
#: Databases keep signed numbers of 64 bits; nothing is retried as often as this.
_MAX_NUMBER = 2**31


def _check(headers: Mapping[str, Any]) -> None:
    get = headers.get
    for name in _TEXTS:
        text = get(name)
        if text is not None and not isinstance(text, str):
            raise _wrong(name, text, "text")
    for name in _NUMBERS:
        number = get(name)
        if number is not None and not (isinstance(number, int) and 0 <= number < _MAX_NUMBER):
            raise _wrong(name, number, "a whole number from 0 up")
    names, stamps = get("stamped_headers"), get("stamps")
    if names is not None and not isinstance(names, list):
        raise _wrong("stamped_headers", names, "an array")
    if stamps is not None and not isinstance(stamps, dict):
        raise _wrong("stamps", stamps, "an object")


def _wrong(name: str, value: Any, wanted: str) -> InvalidTaskError:
    return InvalidTaskError(f"header {name!r} is {saferepr(value, 60)}, not {wanted}")
