"""A message that a worker has received, under the names that Celery documents: what receivers of signals get as `request`.

Base of classes of the user's own (`Task.Request`), whose methods the supervisor calls; see `request_hooks`.
The supervisor opens no body, so arguments are there as the texts of the headers `argsrepr` and `kwargsrepr` only.
"""

from __future__ import annotations

from typing import Any

from celeriac.exception_info import ExceptionInfo
from celeriac.message import Delivery, Message

__all__ = ["Request"]


class Request:
    """A received task.

    Attributes:
        delivery: The message and its lease.
        hostname: Name of the node.
        task: The task; None if nobody knows it.
        app: The app.
    """

    def __init__(self, delivery: Delivery, hostname: str, task: Any = None, app: Any = None) -> None:
        self.delivery = delivery
        self.hostname = hostname
        self.task = task
        self.app = app

    # for classes of one's own

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Override: the task has passed its soft or hard time limit, of so many seconds. Called in the supervisor."""

    def on_failure(self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Override: the task has failed, for good; `exc_info.exception` is the error. Called in the supervisor."""

    def on_retry(self, exc_info: ExceptionInfo) -> None:
        """Override: the task has failed and will be retried. Called in the supervisor."""

    # what is known

    @property
    def id(self) -> str:
        """Id of the task."""
        return self.delivery.message.id

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.delivery.message.task

    task_id, task_name, type = id, name, name

    @property
    def headers(self) -> dict[str, Any]:
        """The message's headers."""
        return self.delivery.message.headers

    @property
    def args(self) -> str:
        """The text of the positional arguments."""
        return str(self.headers.get("argsrepr") or "")

    @property
    def kwargs(self) -> str:
        """The text of the keyword arguments."""
        return str(self.headers.get("kwargsrepr") or "")

    argsrepr, kwargsrepr = args, kwargs

    @property
    def message(self) -> Message:
        """The message."""
        return self.delivery.message

    @property
    def body(self) -> bytes:
        """Its body, which the supervisor doesn't open."""
        return self.message.body

    @property
    def content_type(self) -> str:
        """How it is serialized."""
        return self.message.content_type

    @property
    def content_encoding(self) -> str:
        """The encoding of its text."""
        return self.message.content_encoding

    @property
    def request_dict(self) -> dict[str, Any]:
        """What is known of it, as a dict."""
        return {
            **self.headers,
            "delivery_info": self.delivery_info,
            "hostname": self.hostname,
            "reply_to": self.reply_to,
        }

    @property
    def groups(self) -> str | None:
        """Id of its group."""
        return self.headers.get("group")

    @property
    def ignore_result(self) -> bool:
        """Whether its result is not kept."""
        said = self.headers.get("ignore_result")
        return bool(getattr(self.task, "ignore_result", False) if said is None else said)

    @property
    def store_errors(self) -> bool:
        """Whether its error is kept."""
        return not self.ignore_result or bool(getattr(self.task, "store_errors_even_if_ignored", False))

    @property
    def utc(self) -> bool:
        """Times have their zone."""
        return True

    def humaninfo(self) -> str:
        """Its name and id, as log lines have them."""
        return f"{self.name}[{self.id}]"

    @property
    def correlation_id(self) -> str:
        """The same as the id."""
        return self.delivery.message.id

    @property
    def reply_to(self) -> str:
        """Where an rpc result goes."""
        return self.delivery.message.reply_to

    @property
    def delivery_info(self) -> dict[str, Any]:
        """How it came here."""
        message = self.delivery.message
        return {
            "exchange": message.exchange,
            "routing_key": message.routing_key,
            "priority": message.priority,
            "redelivered": self.delivery.redelivered,
        }

    def __getattr__(self, name: str) -> Any:
        """Whatever else the headers say: eta, expires, root_id, parent_id, retries …; `group_id` is the header `group`."""
        header = {"group_id": "group", "time_limits": "timelimit"}.get(name, name)
        try:
            return self.headers[header]
        except KeyError:
            raise AttributeError(f"the message has no header {name!r}") from None

    def info(self, safe: bool = False) -> dict[str, Any]:
        """A summary, as remote control shows it."""
        headers = self.headers
        return {
            "id": self.id,
            "name": self.name,
            "args": self.args,
            "kwargs": self.kwargs,
            "type": self.name,
            "hostname": self.hostname,
            "time_start": None,
            "acknowledged": False,
            "delivery_info": self.delivery_info,
            "worker_pid": None,
            "eta": headers.get("eta"),
            "expires": headers.get("expires"),
            "retries": headers.get("retries") or 0,
        }

    def __repr__(self) -> str:
        return f"{self.name}[{self.id}]"
