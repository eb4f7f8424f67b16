"""Signals: named moments that receivers observe. Follows Celery's documented `Signal`: connect, disconnect, send.

A receiver that fails is logged and does not disturb the sender or other receivers. Layer 2; the app, the runner and the
worker send, users connect.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

from celeriac.log import get_logger
from celeriac.timing import backoff

__all__ = ["Signal", "weak_reference"]

logger = get_logger("celeriac.hooks")


class Signal:
    """A named moment.

    Args:
        name: Shown in logs.
        providing_args: Names of the arguments that receivers get, for documentation.
    """

    def __init__(self, providing_args: set[str] | None = None, *, name: str = "") -> None:
        self.name = name
        self.providing_args = providing_args or set()
        self.receivers: list[tuple[Any, Any, Callable[[], Any]]] = []

    def connect(
        self, *args: Any, sender: Any = None, weak: bool = True, dispatch_uid: Any = None, retry: bool = False
    ) -> Any:
        """Add a receiver: `signal.connect(fun, sender=…)`, or as a decorator `@signal.connect` / `@signal.connect(sender=…)`.

        Args:
            sender: Only moments of this sender, compared by identity or equality.
            weak: Hold the receiver weakly, as Celery does by default.
            dispatch_uid: Connecting twice under one uid keeps the first.
            retry: Call the receiver until it raises nothing, with growing pauses; the sender waits. It is held strongly.
        """
        if args and callable(args[0]):
            return self._connect(args[0], args[1] if len(args) > 1 else sender, weak, dispatch_uid, retry)
        return lambda fun: self._connect(fun, sender, weak, dispatch_uid, retry)

    def _connect(self, fun: Any, sender: Any, weak: bool, dispatch_uid: Any, retry: bool) -> Any:
        key = (
            dispatch_uid
            if dispatch_uid is not None
            else (id(getattr(fun, "__func__", fun)), id(getattr(fun, "__self__", None)))
        )
        # One that has gone must not keep out another, which Python may have put where it was.
        self.receivers = [entry for entry in self.receivers if entry[2]() is not None]
        if not any(entry[0] == key and entry[1] == sender for entry in self.receivers):
            kept = _until_it_works(fun, self.name) if retry else fun
            self.receivers.append((key, sender, weak_reference(fun) if weak and not retry else lambda: kept))
        return fun

    def disconnect(
        self, receiver: Any = None, sender: Any = None, weak: bool | None = None, dispatch_uid: Any = None
    ) -> bool:
        """Remove a receiver; returns whether it was there."""
        key = dispatch_uid
        if key is None:
            key = (id(getattr(receiver, "__func__", receiver)), id(getattr(receiver, "__self__", None)))
        kept = [entry for entry in self.receivers if entry[0] != key or (sender is not None and entry[1] != sender)]
        found = len(kept) < len(self.receivers)
        self.receivers = kept
        return found

    def has_listeners(self, sender: Any = None) -> bool:
        """Whether anybody would be told of a moment of this sender; without one, of any."""
        return any(
            reference() is not None and (sender is None or wanted is None or wanted is sender or wanted == sender)
            for _key, wanted, reference in self.receivers
        )

    def send(self, sender: Any = None, **named: Any) -> list[tuple[Any, Any]]:
        """Tell all receivers; returns (receiver, its answer or exception)."""
        answers: list[tuple[Any, Any]] = []
        for _key, wanted, reference in list(self.receivers):
            receiver = reference()
            if receiver is None or (wanted is not None and wanted is not sender and wanted != sender):
                continue
            try:
                answer = receiver(signal=self, sender=sender, **named)
            except Exception as exc:  # a receiver is user code: it must not stop the sender
                logger.exception("receiver %r of signal %s raised", receiver, self.name)
                answer = exc
            answers.append((receiver, answer))
        return answers

    send_robust = send


def weak_reference(fun: Any) -> Callable[[], Any]:
    """What gives a function or method as long as others hold it, and None afterwards."""
    if hasattr(fun, "__self__") and hasattr(fun, "__func__"):
        return weakref.WeakMethod(fun)
    return weakref.ref(fun)


def _until_it_works(fun: Any, name: str) -> Callable[..., Any]:
    """A receiver that is called again as long as it raises."""

    def receiver(*args: Any, **named: Any) -> Any:
        attempt = 0
        while True:
            try:
                return fun(*args, **named)
            except Exception:  # user code
                attempt += 1
                pause = backoff(attempt)
                logger.exception("receiver %r of signal %s raised; trying again in %.1f s", fun, name, pause)
                time.sleep(pause)

    return receiver
