"""`Task.request`: what a task can know about its present execution, and which one is running here.

One `ContextVar` holds the innermost running context, so threads, coroutines and greenlets each see their own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

__all__ = ["Context", "running"]


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
    chain: list[Any] | None = None
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
    children: list[Any] | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    lang: str | None = None
    #: The task object, while a worker or `apply` runs it.
    owner: Any = None
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
        return f"<Context: {self.__dict__!r}>"


#: The innermost running execution of this thread, coroutine or greenlet.
running: ContextVar[Context | None] = ContextVar("celeriac_running", default=None)
