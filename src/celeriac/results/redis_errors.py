"""Redis's error texts as our errors, with what to do about them. Called by `redis_connection` and nobody else."""

from __future__ import annotations

from celeriac.errors import OperationalError

__all__ = ["FAILED_OVER", "server_error"]

#: Errors by which a server says that another one is the master now.
FAILED_OVER = ("READONLY", "MOVED", "ASK", "CLUSTERDOWN", "MASTERDOWN", "LOADING", "TRYAGAIN")

#: Beginning of the server's text to what it means for whoever runs the program.
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


def server_error(url: str, text: str) -> OperationalError:
    """The error for a text that the server at `url` answered."""
    word = text.partition(" ")[0]
    if "max number of clients" in text:
        meaning = "it has as many clients as maxclients allows"
    elif "unknown command" in text.lower() or "wrong number of arguments for 'rpop'" in text.lower():
        meaning = "it is too old; Redis 6.2 or newer is needed"
    else:
        meaning = _MEANINGS.get(word, "")
    return OperationalError(f"{url} refuses: {meaning} ({text})" if meaning else f"{url} refuses: {text}")
