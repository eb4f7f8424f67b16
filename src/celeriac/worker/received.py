"""What receivers of signals get as `request`: a message that a worker has received, under the names that Celery documents.

The supervisor opens no body, so arguments are there as the texts of the headers `argsrepr` and `kwargsrepr` only.
"""

from __future__ import annotations

from typing import Any

from celeriac.message import Delivery

__all__ = ["ReceivedRequest"]


class ReceivedRequest:
    """A received task.

    Attributes:
        delivery: The message and its lease.
        hostname: Name of the node.
    """

    __slots__ = ("delivery", "hostname")

    def __init__(self, delivery: Delivery, hostname: str) -> None:
        self.delivery = delivery
        self.hostname = hostname

    @property
    def id(self) -> str:
        """Id of the task."""
        return self.delivery.message.id

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.delivery.message.task

    task_id, task_name, type, task = id, name, name, name

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
