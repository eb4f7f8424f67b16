"""Messages for tests that need one without a broker: Celery's documented `celery.contrib.testing.mocks`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from numbers import Real
from typing import Any
from unittest.mock import MagicMock, Mock

from celeriac.codec import dumps
from celeriac.sending import new_id

__all__ = ["ContextMock", "TaskMessage", "TaskMessage1", "task_message_from_sig"]


def ContextMock(*args: Any, **kwargs: Any) -> Any:  # noqa: N802 -- Celery's documented name
    """A mock that is also a context manager, of itself."""
    mock = MagicMock(*args, **kwargs)
    mock.__enter__.return_value = mock
    mock.__exit__.return_value = None
    return mock


def TaskMessage(  # noqa: N802 -- Celery's documented name
    name: str,
    id: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    shadow: str | None = None,
    utc: bool | None = None,
    **options: Any,
) -> Any:
    """A message of protocol 2 as a mock: `headers`, `body`, `payload`, `content_type`, `properties`.

    Args:
        id: The task's id; by default a new one.
        utc: No effect.
        options: Further headers.
    """
    id = id or new_id()
    embed = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain}
    headers = {"id": id, "task": name, "shadow": shadow, **options}
    return _message(headers, [list(args), dict(kwargs or {}), embed], id)


def TaskMessage1(  # noqa: N802 -- Celery's documented name
    name: str,
    id: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Any = None,
    errbacks: Any = None,
    chain: Any = None,
    **options: Any,
) -> Any:
    """The same of protocol 1, where everything is in the body; `options` are, too."""
    id = id or new_id()
    payload = {
        "task": name, "id": id, "args": list(args), "kwargs": dict(kwargs or {}), "callbacks": callbacks,
        "errbacks": errbacks, **options,
    }  # fmt: skip
    return _message({}, payload, id)


def _message(headers: dict[str, Any], payload: Any, task_id: str) -> Any:
    content_type, content_encoding, body = dumps(payload)
    return Mock(
        name=f"TaskMessage-{task_id}", headers=headers, body=body, payload=payload, content_type=content_type,
        content_encoding=content_encoding, properties={"correlation_id": task_id}, delivery_info={},
    )  # fmt: skip


def task_message_from_sig(
    app: Any,
    sig: Any,
    utc: bool = True,
    TaskMessage: Callable[..., Any] = TaskMessage,  # noqa: N803
) -> Any:
    """The message that a signature would be sent as; options that are no headers of a message stand among them, as in Celery."""
    sig.freeze()
    options = dict(sig.options)
    links, errors = _listed(options.pop("link", None)), _listed(options.pop("link_error", None))
    countdown, eta, expires = (options.pop(name, None) for name in ("countdown", "eta", "expires"))
    return TaskMessage(
        sig.task, id=sig.id, args=sig.args, kwargs=sig.kwargs, callbacks=links, errbacks=errors, utc=utc,
        eta=_moment(app, countdown or eta), expires=_moment(app, expires), **options,
    )  # fmt: skip


def _listed(links: Any) -> list[Any] | None:
    return links if links is None or isinstance(links, list) else [links]


def _moment(app: Any, given: Any) -> Any:
    """A moment as messages have it. Numbers are seconds from now."""
    if isinstance(given, Real):
        given = app.now() + timedelta(seconds=float(given))
    return given.isoformat() if isinstance(given, datetime) else given
