"""The port of result stores: where outcomes live, and the record that is stored.

The worker's committer stores; clients get, wait and forget. Drivers are synchronous, take batches and may be called
from several threads at once. `OperationalError` is raised when the store can't be reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from celeriac.states import READY_STATES

__all__ = ["Fence", "Record", "ResultStore", "StoreCapabilities", "added_id", "fence_of", "header_id"]

#: (retries, deliveries): orders the executions of one task. A write by an older one never replaces a newer one's.
Fence = tuple[int, int]


def fence_of(retries: int, nesting: int, deliveries: int) -> Fence:
    """The fence of an execution: what replaces a task (`nesting`) has its id, and is newer than any attempt of it.

    Databases keep it as one number of 63 bits. What somebody made up ends where these do.
    """
    return (min(max(nesting * 1_000_000 + retries, 0), 2**32 - 1), min(max(deliveries, 0), 2**31 - 1))


def header_id(group_id: str) -> str:
    """The id of the record that keeps a chord's header when the chord is over, with `result_extended`."""
    return f"{group_id}.header"


def added_id(group_id: str) -> str:
    """The id under which the members are kept that were added to a group while it ran; a chord's are in its header."""
    return f"{group_id}.added"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored for one task: Celery's task meta, with the values already serialized.

    Attributes:
        result: The serialized bare value (or exception form, or custom meta).
        content_type: Of `result`, `args` and `kwargs`.
        content_encoding: "utf-8" or "binary".
        children: Results of tasks that this one sent, as tuples (`AsyncResult.as_tuple`), or None.
        date_done: ISO 8601 text once ready, else None.
        fence: Which execution wrote it.
        expires_at: When it may be forgotten (seconds since 1970), or None for never.
        name, args, kwargs, worker, retries, queue: Filled with `result_extended`.
        stamps: {"stamped_headers": [...], "stamps": {...}} or None.
        reply_to: Where the sender of the task waits for results that are sent, not kept (rpc).
    """

    id: str
    state: str
    result: bytes
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    traceback: str | None = None
    children: list[Any] | None = None
    date_done: str | None = None
    group_id: str | None = None
    parent_id: str | None = None
    fence: Fence = (0, 0)
    expires_at: float | None = None
    name: str | None = None
    args: bytes | None = None
    kwargs: bytes | None = None
    worker: str | None = None
    retries: int | None = None
    queue: str | None = None
    stamps: dict[str, Any] | None = None
    reply_to: str = ""

    @property
    def is_ready(self) -> bool:
        """Whether the state is final."""
        return self.state in READY_STATES


class StoreCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a result store can do.

    Attributes:
        pushes: Whether `wait` is told of changes; if not it polls.
        counts_chords: Whether `join_part` counts atomically.
        claims_chords: Whether `join_part` tells one part at a time that the body is to be sent, until that may have died.
        persistent: Whether results outlive the worker and can be read by anybody (rpc: no).
        drops_expired: Whether expired results go by themselves; if not `cleanup` has to be called now and then.
        retries: How often clients repeat what failed because it could not be reached, unless settings say otherwise.
    """

    pushes: bool = True
    counts_chords: bool = True
    claims_chords: bool = False
    persistent: bool = True
    drops_expired: bool = False
    retries: int = 0


class ResultStore(Protocol):
    """One kind of result store.

    A store that is told of every state, not only of final ones, may have one more verb, `wait_change(task_id, known,
    timeout)`: the record once it is another than the known one, or None after `timeout` seconds. Without it, progress is
    followed by looking again. One that counts faster together may have `join_parts(group_id, size, [(index, record), …])`:
    `join_part` for several parts of a chord, of which it returns the id of the one for which that is True, or "".

    A store that can list the chords that `start_chord` began has two more verbs, by which workers repair one whose last step
    was lost: `quiet_chords(seconds, limit)` returns ids of those that nothing has happened to for so long, and counts as
    something that happens, so that no two workers get the same one; `ended_parts(group_id)` returns the indexes of the
    parts that were counted, or None if it can't tell.

    A store that counts chords may have one more verb, too, `grow_group(group_id, task_id, expires_at, is_chord)`: it puts a
    member behind those of a kept group, once however often it is told, and returns its place there (from 0). With
    `is_chord` the group is the header of a chord that runs, and `join_part` expects one part more from then on; else
    the group is made if it is not kept, until `expires_at`. Without it, nothing can be added to a workflow that runs.
    """

    @property
    def capabilities(self) -> StoreCapabilities:
        """What this store can do."""

    @property
    def url(self) -> str:
        """Where it is, with secrets masked."""

    def store(self, records: Sequence[Record]) -> list[str]:
        """Write records. Returns the ids that were refused.

        Refused is a record for a task whose stored state is SUCCESS, and one whose fence is older than the stored
        fence, or equal to it when the stored state is ready.
        """

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """The records, in order; None where nothing is stored or it has expired."""

    def wait(self, ids: Sequence[str], timeout: float | None) -> list[Record]:
        """Wait until at least one of the ids is ready, and return all those that are; [] after `timeout` seconds."""

    def forget(self, ids: Sequence[str]) -> None:
        """Delete records."""

    def start_chord(self, group_id: str, size: int, value: bytes, expires_at: float | None) -> None:
        """Keep the header of a chord of `size` parts, as `save_group` does, before any of its parts can end."""

    def join_part(self, group_id: str, index: int, size: int, record: Record) -> bool:
        """Count part `index` of a chord of `size` parts as ended, once however often it is told.

        Args:
            size: 0 if only the store can know it.
            record: What was stored for the part; stores that share chords with stock Celery write it down.

        Returns:
            Whether all have ended and it is for the caller to send the body: True for the part that was the last, and
            for the same part again, so that whoever dies in between is made up for. Another part may be told so, too.
        """

    def save_group(self, group_id: str, value: bytes, expires_at: float | None) -> None:
        """Keep a group's result tuple (serialized)."""

    def get_group(self, group_id: str) -> bytes | None:
        """The group's result tuple, or None."""

    def forget_group(self, group_id: str) -> None:
        """Delete a group and its chord count."""

    def cleanup(self, now: float) -> int:
        """Delete what had expired by `now` (seconds since 1970); returns how many records."""

    def close(self) -> None:
        """Release connections. The object may be used again afterwards and then connects anew."""
