"""Records of tasks that are sent but have not started: the setting `task_track_enqueued`.

Clients record what they send, in one step with the message where broker and store are one database, and the runner
records what follows a task. So an id of which nothing is stored is that of no task, or of one that was forgotten.

Invariant: such a record is older than any that a worker writes, so it never hides a state; the message is sent even if
the record is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from celeriac import states
from celeriac.codec import dumps
from celeriac.errors import CeleriacError
from celeriac.message import Message
from celeriac.recording import lifetime_of
from celeriac.results.base import Record
from celeriac.timing import SYSTEM_CLOCK
from celeriac.wire.messages import decode_body
from celeriac.wire.results import encode_result

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.transport.base import RecordingTransport

__all__ = ["enqueued_record", "publish_recorded"]


def publish_recorded(app: Celeriac, messages: Sequence[Message]) -> None:
    """Publish messages and record their tasks.

    Raises:
        OperationalError: The broker or the store can't be reached.
    """
    transport, store = app.transport, app.backend
    if store is None or not store.capabilities.persistent:
        transport.publish(messages)
        return
    records = [record for message in messages for record in _records(app, message)]
    if records and transport.commits_with(store):
        cast("RecordingTransport", transport).publish_recorded(messages, records)
        return
    if records:
        store.store(records)  # before the message: a record that came later would be missed by who asks in between
    transport.publish(messages)


def enqueued_record(app: Celeriac, message: Message) -> Record | None:
    """The record of the task in a message; None if its results are not kept."""
    headers = message.headers
    if not message.id or headers.get("ignore_result"):
        return None
    record = _record(app, message.id, headers, message.eta)
    if not app.conf.result_extended:
        return record
    nothing = dumps(None, app.conf.result_serializer)[2]
    return Record(
        **{name: getattr(record, name) for name in ("id", "state", "result", "content_type", "content_encoding")},
        **{name: getattr(record, name) for name in ("group_id", "parent_id", "fence", "expires_at")},
        name=message.task, args=nothing, kwargs=nothing, retries=record.fence[0], queue=message.queue or None,
    )  # fmt: skip


def _record(app: Celeriac, task_id: str, headers: Mapping[str, Any], eta: float | None) -> Record:
    content_type, content_encoding, nothing = encode_result(None, app.conf.result_serializer)
    lifetime = lifetime_of(app, states.PENDING)
    return Record(
        id=task_id,
        state=states.PENDING,
        result=nothing,
        content_type=content_type,
        content_encoding=content_encoding,
        group_id=headers.get("group"),
        parent_id=headers.get("parent_id"),
        fence=(headers.get("retries") or 0, 0),
        expires_at=max(SYSTEM_CLOCK.now(), eta or 0.0) + lifetime if lifetime else None,
    )


def _records(app: Celeriac, message: Message) -> Iterator[Record]:
    """Of the task, and of those that are to follow it in its chain and its chord."""
    own = enqueued_record(app, message)
    if own is not None:
        yield own
    try:
        body = decode_body(message, app.accept, app.conf.message_max_unpacked_bytes, app.conf.message_max_depth)
    except CeleriacError:  # of a content type that this app only sends
        return
    following: list[Any] = [*(body.chain or ())]
    if body.chord is not None and not message.headers.get("group_index"):  # the first member speaks for all
        following.append(body.chord)
    for task_id in _ids(following):
        yield _record(app, task_id, {"parent_id": None}, message.eta)


def _ids(signatures: Iterable[Any]) -> Iterator[str]:
    """The task ids in signatures, those inside of composites included."""
    waiting = list(signatures)
    while waiting:
        signature = waiting.pop()
        if not isinstance(signature, Mapping):
            continue
        options, kwargs = signature.get("options") or {}, signature.get("kwargs") or {}
        if isinstance(options.get("task_id"), str) and not options.get("ignore_result"):
            yield options["task_id"]
        if signature.get("subtask_type"):
            for inner in (kwargs.get("tasks"), kwargs.get("header"), kwargs.get("body")):
                waiting.extend(inner if isinstance(inner, (list, tuple)) else [inner])
