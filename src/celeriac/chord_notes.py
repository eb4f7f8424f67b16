"""The note of a chord: its body, kept in the result store from its beginning on, so that no lost message loses the body.

Whoever begins a chord writes it (`begin`), the committer says in it that the chord is over, and a sweep finds in it what is
to be done about a chord whose parts or whose last step were lost. It is a record whose value is the body of a message like
those of the chord's parts: only a runner opens it.

Invariant: a note that says OVER is never replaced, so a chord that is begun again by a repeated step stays over.
"""

from __future__ import annotations

import time
from typing import TypeGuard

from celeriac.message import Message
from celeriac.outcome import ChordStart
from celeriac.results.base import Record, ResultStore
from celeriac.states import SUCCESS

__all__ = ["OPEN", "begin", "is_open", "message_of", "note_id", "open_note", "over_note"]

#: State of a note while its chord is open. Then it is a success.
OPEN = "CHORD"
#: Seconds for which it is remembered that a chord is over: longer than any delivery of one of its parts lasts.
OVER_KEPT = 86_400.0
#: Seconds for which a note is kept when its chord should have ended: time to end it.
LATE_KEPT = 7 * 86_400.0


def note_id(group_id: str) -> str:
    """Id of the record."""
    return f"{group_id}.chord"


def open_note(group_id: str, form: tuple[str, str, bytes], expires_at: float | None) -> Record:
    """The note of a chord that begins.

    Args:
        form: Content type, content encoding and body of its message.
        expires_at: When the chord should have ended.
    """
    content_type, content_encoding, body = form
    return Record(
        id=note_id(group_id), state=OPEN, result=body, content_type=content_type, content_encoding=content_encoding,
        expires_at=None if expires_at is None else expires_at + LATE_KEPT,
    )  # fmt: skip


def over_note(group_id: str) -> Record:
    """The note of a chord whose body has been sent."""
    return Record(id=note_id(group_id), state=SUCCESS, result=b"null", fence=(1, 0), expires_at=time.time() + OVER_KEPT)


def is_open(note: Record | None) -> TypeGuard[Record]:
    """Whether a note tells of a chord that is open."""
    return note is not None and note.state == OPEN


def message_of(note: Record) -> Message:
    """The message that a runner opens to see to a chord."""
    headers = {"lang": "py", "task": "celery.chord", "id": note.id, "group": note.id.removesuffix(".chord")}
    return Message(
        id=note.id, headers=headers, body=note.result, content_type=note.content_type,
        content_encoding=note.content_encoding,
    )  # fmt: skip


def begin(store: ResultStore, start: ChordStart) -> None:
    """Write down that a chord begins, before any of its parts can end.

    Raises:
        OperationalError: The store can't be reached; it may be called again.
    """
    if start.note is not None and hasattr(store, "quiet_chords"):  # first, so that no chord is listed without a note
        store.store([start.note])
    store.start_chord(start.group_id, start.size, start.value, start.expires_at)
