"""The record of an end that no runner could write down: made by the supervisor, which opens no body.

What waits for such a task is told later: a chord by a sweep (`worker/chord_sweep.py`), which finds the record.
"""

from __future__ import annotations

from celeriac.message import Message
from celeriac.results.base import Fence, Record
from celeriac.timing import iso_now
from celeriac.wire.results import encode_result, exception_form

__all__ = ["end_record"]


def end_record(message: Message, fence: Fence, state: str, error: BaseException) -> Record:
    """The record that the task of a message has ended with this error."""
    content_type, encoding, body = encode_result(exception_form(error), "json")
    return Record(
        id=message.id, state=state, result=body, content_type=content_type, content_encoding=encoding,
        traceback=str(error), date_done=iso_now(), fence=fence, reply_to=message.reply_to,
    )  # fmt: skip
