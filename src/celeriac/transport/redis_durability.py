"""What a Redis server may lose, in words for people: its eviction policy, persistence and replicas.

The Redis transport logs it once when a worker begins to fetch; `celeriac doctor` prints it. Whatever the server doesn't
tell (managed ones often refuse CONFIG) is left out: a report must never be the reason that a worker doesn't start.
"""

from __future__ import annotations

from collections.abc import Mapping

from celeriac.errors import OperationalError
from celeriac.results.redis_connection import Server

__all__ = ["durability_report"]


def durability_report(server: Server) -> list[str]:
    """One line for each thing that can cost messages; empty if there is none.

    Raises:
        OperationalError: The server can't be reached.
    """
    info = _info(server)
    return [*_eviction(info), *_persistence(info, _config(server)), *_replication(info)]


def _info(server: Server) -> dict[str, str]:
    text = b"\n".join(server.pipeline([("INFO", section) for section in ("memory", "persistence", "replication")]))
    lines = [line.partition(":") for line in text.decode(errors="replace").splitlines()]
    return {name: value.strip() for name, colon, value in lines if colon}


def _config(server: Server) -> dict[str, str]:
    try:
        replies = server.pipeline([("CONFIG", "GET", name) for name in ("save", "appendfsync")])
    except OperationalError:
        return {}
    pairs = [(reply[0], reply[1]) for reply in replies if reply]
    return {name.decode(): value.decode() for name, value in pairs}


def _eviction(info: Mapping[str, str]) -> list[str]:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return []
    return [
        f"maxmemory-policy is {policy}: when memory runs out, the server deletes queues and results. Set it to noeviction."
    ]


def _persistence(info: Mapping[str, str], config: Mapping[str, str]) -> list[str]:
    if info.get("aof_enabled") == "1":
        if config.get("appendfsync") == "no":
            return ["appendfsync is no: a power cut loses what the system had not yet written, usually 30 s."]
        if config.get("appendfsync") == "everysec":
            return ["appendfsync is everysec: a power cut loses the last second. Set it to always if that matters."]
        return []
    if config.get("save") == "":
        return ["neither appendonly nor save is set: a restart of the server loses everything. Set appendonly yes."]
    return ["appendonly is no: a crash of the server loses what came after its last snapshot. Set appendonly yes."]


def _replication(info: Mapping[str, str]) -> list[str]:
    if info.get("role") == "slave":
        return ["this is a replica: it takes no writes. Use the master's address, or sentinel://."]
    replicas = info.get("connected_slaves", "0")
    if replicas != "0":
        return [
            f"{replicas} replica(s) follow asynchronously: a failover loses what they had not yet received."
            " min-replicas-to-write bounds it."
        ]
    return []
