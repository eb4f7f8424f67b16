"""Middleware: typed, ordered code around sending and running tasks. Signals observe; middleware takes part. Layer 2.

`app.middleware` is a list; `sending` passes each message through it, the runner wraps each execution in it. The first of the
list is the outermost: it sees a message last before the broker does, and an execution first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from celeriac.message import Message

if TYPE_CHECKING:
    from celeriac.context import Context

__all__ = ["Middleware", "execute_through", "send_through", "with_headers"]


class Middleware:
    """Override what you need. One object serves all threads and processes of an app.

    Example:
        >>> class Tenant(Middleware):
        ...     def send(self, message):
        ...         return with_headers(message, {"tenant": current_tenant.get()})
        ...
        ...     def execute(self, context, run):
        ...         with tenant(context.headers["tenant"]):
        ...             return run()
    """

    def send(self, message: Message) -> Message:
        """The message to be sent, in the thread and context of its sender.

        Called for each message once, also for retries, callbacks and the steps of workflows. What it raises is raised by
        `delay()`.
        """
        return message

    def execute(self, context: Context, run: Callable[[], Any]) -> Any:
        """Run a task: call `run` once, or not at all, and return what the task is to return.

        Args:
            context: `Task.request`.
            run: Calls the task's function, an `async def` one to its end. Whatever that raises goes through here, `Retry`,
                `Ignore` and `Reject` too; what this method raises is the task's error.
        """
        return run()


def with_headers(message: Message, headers: Mapping[str, Any]) -> Message:
    """The same message with further headers, plain JSON-like values. The task finds them in `self.request.headers`."""
    return replace(message, headers={**message.headers, **headers})


def send_through(middleware: Sequence[Middleware], message: Message) -> Message:
    """The message as it goes to the broker."""
    for each in reversed(middleware):
        message = each.send(message)
    return message


def execute_through(middleware: Sequence[Middleware], context: Context, run: Callable[[], Any]) -> Any:
    """Run a task inside all of them."""
    for each in reversed(middleware):
        run = partial(each.execute, context, run)
    return run()
