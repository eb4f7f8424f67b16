"""Redis's and redis-py's errors as ours, with what to do about them. Called by `redis_connection` and nobody else."""

from __future__ import annotations

import re

from redis import exceptions

from celeriac.errors import OperationalError

__all__ = ["has_failed_over", "server_error"]

#: redis-py's classes for the server's error codes, which it cuts off the text.
_CODES = (
    ("READONLY", exceptions.ReadOnlyError), ("OOM", exceptions.OutOfMemoryError), ("LOADING", exceptions.BusyLoadingError),
    ("MASTERDOWN", exceptions.MasterDownError), ("CLUSTERDOWN", exceptions.ClusterDownError),
    ("MOVED", exceptions.MovedError), ("ASK", exceptions.AskError), ("TRYAGAIN", exceptions.TryAgainError),
    ("CROSSSLOT", exceptions.ClusterCrossSlotError), ("NOPERM", exceptions.NoPermissionError),
)  # fmt: skip
#: Errors by which a server says that another one is the master now.
_FAILED_OVER = ("READONLY", "MOVED", "ASK", "CLUSTERDOWN", "MASTERDOWN", "LOADING", "TRYAGAIN")

#: The server's error code to what it means for whoever runs the program.
_MEANINGS = {
    "READONLY": "it is a replica and takes no writes; after a failover the new master is looked for",
    "OOM": "it is full (maxmemory); free memory or raise the limit, nothing was written",
    "LOADING": "it is loading its data after a start; try again soon",
    "MASTERDOWN": "its link to the master is down",
    "MISCONF": "it can't write to its disk and therefore takes no writes; see its log",
    "NOREPLICAS": "fewer replicas are connected than min-replicas-to-write asks for",
    "NOAUTH": "it wants a password; write it into the URL as redis://:password@host",
    "WRONGPASS": "user name or password are wrong",
    "NOPERM": "the user may not do this; see its ACL",
    "CLUSTERDOWN": "the cluster has no node for this slot now",
    "MOVED": "the slot is on another node of the cluster now; it is looked for",
    "ASK": "the slot is moving to another node of the cluster; try again",
    "TRYAGAIN": "the slot is moving to another node of the cluster; try again",
    "WRONGTYPE": "a key of ours exists with another type; give the queue another name, or set global_keyprefix",
    "CROSSSLOT": "it is a Redis Cluster; use a redis+cluster:// URL",
}
#: Texts that have no code of their own.
_TEXTS = (
    ("max number of clients", "it has as many clients as maxclients allows"),
    ("unknown command", "it is too old; Redis 6.2 or newer is needed"),
    ("wrong number of arguments for 'rpop'", "it is too old; Redis 6.2 or newer is needed"),
    ("authentication required", _MEANINGS["NOAUTH"]),
    ("invalid username-password", _MEANINGS["WRONGPASS"]),
    ("invalid password", _MEANINGS["WRONGPASS"]),
)


def has_failed_over(error: Exception) -> bool:
    """Whether the server says that another one is the master now."""
    return _code(error) in _FAILED_OVER


def _code(error: Exception) -> str:
    for code, kind in _CODES:
        if isinstance(error, kind):
            return code
    word = re.match(r"[A-Z]+\b", str(error))
    return word[0] if word else ""


def server_error(url: str, error: Exception, doing: str = "") -> OperationalError:
    """What went wrong with the server at `url`, for people."""
    if isinstance(error, (exceptions.TimeoutError, TimeoutError)):
        return OperationalError(f"{doing}{url}: no answer in time")
    text = str(error)
    meaning = _MEANINGS.get(_code(error), "")
    for part, explained in _TEXTS:
        if part in text.lower():
            meaning = explained
    if meaning:
        return OperationalError(f"{doing}{url}: refused, {meaning} ({text})")
    if isinstance(error, exceptions.ResponseError):
        return OperationalError(f"{doing}{url}: refused, {text}")
    return OperationalError(f"{doing}{url}: {text or type(error).__name__}")
