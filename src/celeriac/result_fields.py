"""What is stored of a task, as attributes of its result: state, value, times, children, extended fields.

`AsyncResult` is one of these. A record that is ready is kept: it can't change any more. `read_ahead` reads the records
of many results in few questions to the store.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

from celeriac import states
from celeriac.context import running
from celeriac.current import get_current_app
from celeriac.loading import import_object
from celeriac.result_base import ResultBase, decode_value
from celeriac.result_steps import WINDOW
from celeriac.results.base import Record
from celeriac.wire.results import decode_result

__all__ = ["ResultFields", "read_ahead"]


class ResultFields(ResultBase):
    """One task's result, read from the store of its app."""

    id: str
    ignored: bool
    _app: Any
    _backend: Any
    #: The record, once it is final.
    _done: Record | None

    @property
    def app(self) -> Any:
        """The app whose store is asked."""
        return self._app if self._app is not None else get_current_app()

    @property
    def backend(self) -> Any:
        """The result store."""
        store = self._backend if self._backend is not None else self.app.reader
        if store is None:
            raise NotImplementedError("No result backend is configured: set `result_backend` to a URL.")
        return store

    @property
    def supports_native_join(self) -> bool:
        """Whether many results can be waited for at once: every store can."""
        return True

    def _leaves(self) -> list[ResultFields]:
        """The single tasks that it consists of and that can be asked for: itself."""
        return [] if self.ignored else [self]

    def _record(self) -> Record | None:
        context = running.get()
        if context is not None and context.record is not None and context.id == self.id:
            return cast(Record, context.record)  # a handler asks for the state of its own task
        if self._done is None:
            self._done = self._remembered()
        if self._done is None:
            record = self.backend.get([self.id])[0]
            if record is None or not record.is_ready:
                return cast("Record | None", record)
            self._remember(record)
        return self._done

    def _remembered(self) -> Record | None:
        """The final record, if the app remembers it."""
        cache = self.app.result_cache if self._backend is None else None
        return None if cache is None else cast("Record | None", cache.get(self.id))

    def _remember(self, record: Record) -> None:
        self._done = record
        cache = self.app.result_cache if self._backend is None else None
        if cache is not None:
            cache.put(record)

    def _decode(self, record: Record) -> Any:
        return decode_result(record, self.app.result_accept)

    # state and value

    @property
    def state(self) -> str:
        """The stored state.

        PENDING when nothing is stored; UNKNOWN then, if sent tasks are recorded (`task_track_enqueued`).
        """
        return self._state_of(self._record())

    def _state_of(self, record: Record | None) -> str:
        if record is not None:
            return record.state
        is_recorded = self.app.conf.task_track_enqueued and not self.ignored and self.backend.capabilities.persistent
        return states.UNKNOWN if is_recorded else states.PENDING

    status = state

    @property
    def result(self) -> Any:
        """The value, the exception, or the meta of a custom state; None when nothing is stored."""
        record = self._record()
        return None if record is None else self._decode(record)

    info = result

    def ready(self) -> bool:
        """Whether the task has ended."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Whether it ended without error."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Whether it ended with an error."""
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Whether anything is stored under this id."""
        return self._record() is not None

    # the other fields

    def _field(self, name: str) -> Any:
        record = self._record()
        return None if record is None else getattr(record, name)

    @property
    def traceback(self) -> str | None:
        """The worker's traceback."""
        return cast("str | None", self._field("traceback"))

    @property
    def date_done(self) -> datetime | None:
        """When it ended (UTC)."""
        text = self._field("date_done")
        return datetime.fromisoformat(text) if text else None

    @property
    def children(self) -> list[Any] | None:
        """Results of the tasks it sent."""
        found = self._field("children")
        if found is None:
            return None
        from_tuple = import_object("celeriac.result:result_from_tuple", "children")
        return [from_tuple(child, self._app) for child in found]

    @property
    def group_id(self) -> str | None:
        """The group that it is a member of."""
        return cast("str | None", self._field("group_id"))

    @property
    def parent_id(self) -> str | None:
        """Id of the task that sent it."""
        return cast("str | None", self._field("parent_id"))

    @property
    def name(self) -> str | None:
        """Name of the task (with `result_extended`)."""
        return cast("str | None", self._field("name"))

    @property
    def worker(self) -> str | None:
        """Node that ran it (with `result_extended`)."""
        return cast("str | None", self._field("worker"))

    @property
    def retries(self) -> int | None:
        """How often it was retried (with `result_extended`)."""
        return cast("int | None", self._field("retries"))

    @property
    def queue(self) -> str | None:
        """Queue it came from (with `result_extended`)."""
        return cast("str | None", self._field("queue"))

    @property
    def args(self) -> Any:
        """Positional arguments (with `result_extended`)."""
        return self._value_field("args")

    @property
    def kwargs(self) -> Any:
        """Keyword arguments (with `result_extended`)."""
        return self._value_field("kwargs")

    def _value_field(self, name: str) -> Any:
        record = self._record()
        return None if record is None else decode_value(record, getattr(record, name), self.app.result_accept)


def read_ahead(results: Iterable[ResultFields]) -> dict[str, Record | None]:
    """The records of these results by id, in batches. Those that are ready are kept, and not read again."""
    records: dict[str, Record | None] = {}
    missing: list[ResultFields] = []
    for result in results:
        if result._done is None:
            missing.append(result)
        else:
            records[result.id] = result._done
    for start in range(0, len(missing), WINDOW):
        step = missing[start : start + WINDOW]
        for result, record in zip(step, step[0].backend.get([each.id for each in step]), strict=True):
            records[result.id] = record
            if record is not None and record.is_ready:
                result._done = record
    return records
