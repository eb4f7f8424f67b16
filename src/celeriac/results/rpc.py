"""Results as messages: `rpc://` sends each result back to the client that sent the task, over the broker. Nothing is kept.

Opened by `results.open`, with the broker's URL among its options. A worker's store posts each record, as Celery's task meta,
to the queue that the task's message names (`reply_to`). A client's store listens to one queue for all its tasks and keeps
what came in memory until it is read, forgotten or too old. What comes is taken in by the thread that read it, which saves
waking another; a thread of the store's own follows the broker through every outage, and takes over when there is too much.
Only the sender can read a result. What carries the messages is a `Mail`, one per kind of broker.

Invariant: a record that is ready is never replaced; of two that are not, the later counts.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from celeriac.codec import accept_types
from celeriac.errors import CeleriacError, ImproperlyConfigured, OperationalError
from celeriac.log import get_logger
from celeriac.results.base import Record, StoreCapabilities
from celeriac.results.drivers import check_options, find_factory
from celeriac.timing import Deadline, backoff, shortened
from celeriac.wire.results import document, record_from_document

__all__ = ["ENTRY_POINT_GROUP", "MAILS", "Mail", "Post", "RpcStore"]

logger = get_logger("celeriac.results.rpc")

ENTRY_POINT_GROUP = "celeriac.mails"
#: Scheme of the broker's URL to "module:factory" of what carries results there; a factory takes (url, options).
MAILS = dict.fromkeys(("amqp", "amqps", "librabbitmq", "pyamqp"), "celeriac.transport.amqp_mail:AmqpMail")
#: Results that are kept although they were read: a second `AsyncResult` of the same id finds them.
KEPT = 1_000
#: Unread results after which no more are taken from the broker, until somebody reads.
MAX_UNREAD = 100_000
#: Longest wait for another thread that is connecting, in seconds.
PATIENCE = 4.0
#: Seconds that the listening thread waits for messages in one go.
WAIT = 30.0
_DAY = 86_400.0
#: Options that are passed on to what carries the messages, as `broker_options` are.
_OF_THE_BROKER = ("ssl", "login_method", "failover_strategy")
_OPTIONS = ("broker_url", "broker_options", "persistent", "expires", "accept", "serializer", *_OF_THE_BROKER)


class Post(NamedTuple):
    """A result on its way."""

    box: str
    task_id: str
    body: bytes
    content_type: str
    content_encoding: str
    is_persistent: bool


class Mail(Protocol):
    """What carries results over one kind of broker. Several threads may use it at once."""

    @property
    def url(self) -> str:
        """Where it is, with secrets masked."""

    def send(self, posts: Sequence[Post]) -> None:
        """Returns once the broker has them; one whose box is gone is dropped."""

    def listen(self, box: str, expires: float | None, on_arrival: Callable[[], bool]) -> None:
        """Have a box and receive from it. May be repeated: it is opened anew if it was lost.

        Args:
            on_arrival: Called, from any thread, when something has come; False if it must wait for who waits in `wait`.
        """

    def wait(self, seconds: float) -> None:
        """Until something has come that `on_arrival` did not take, or the box is lost, or `wake`."""

    def receive(self, take_in: Callable[[list[tuple[bytes, str]]], None]) -> None:
        """Hand over bodies and content types of what has come, if anything has. Each is given out once.

        Raises:
            OperationalError: The box is lost.
        """

    def wake(self) -> None:
        """Make a `wait` return."""

    def close(self) -> None:
        """Release connections and boxes."""


class RpcStore:
    """Results by message. See `results.base.ResultStore` for the verbs.

    Args:
        url: `rpc://`.
        options: `broker_url` and `broker_options` (the broker's), `persistent` (messages outlive a restart of the broker),
            `expires` (seconds that an unused box is kept), `accept` and `serializer` (names of formats that may be opened to
            read a result; json and msgpack are read without).
    """

    capabilities = StoreCapabilities(persistent=False, counts_chords=False, drops_expired=True)

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        given = dict(options or {})
        check_options(given, _OPTIONS, "rpc://")
        broker = given.get("broker_url") or ""
        if isinstance(broker, (list, tuple)):
            broker = ";".join(broker)
        if not broker:
            raise ImproperlyConfigured("rpc:// sends results over the broker, but no broker_url is set.")
        factory = find_factory(broker, MAILS, ENTRY_POINT_GROUP, "broker for rpc results")
        passed_on = {name: given[name] for name in _OF_THE_BROKER if given.get(name)}
        self._mail: Mail = factory(broker, {**passed_on, **(given.get("broker_options") or {})})
        self.url = "rpc://"
        self._is_persistent = bool(given.get("persistent"))
        formats = [*(given.get("accept") or ()), given.get("serializer") or "json"]
        self._accept = accept_types(formats)
        self._expires = _seconds(given.get("expires", _DAY))
        self.box = str(uuid.uuid4())
        self._changed = threading.Condition()
        self._starting = threading.Lock()
        self._records: OrderedDict[str, tuple[Record, float]] = OrderedDict()
        self._read: OrderedDict[str, Record] = OrderedDict()
        self._waiting = 0
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    # the worker's side

    def store(self, records: Sequence[Record]) -> list[str]:
        """Send results to those who wait for them; one without an address goes nowhere."""
        posts = [
            Post(
                record.reply_to, record.id, document(record), record.content_type, record.content_encoding,
                self._is_persistent,
            )
            for record in records
            if record.reply_to
        ]  # fmt: skip
        if posts:
            self._mail.send(posts)
        return []

    # the client's side

    def listen(self) -> str:
        """Open this client's box, before it sends a task; returns the name that goes into `reply_to`.

        Raises:
            OperationalError: The broker can't be reached.
        """
        if self._is_listening():
            return self.box
        if not self._starting.acquire(timeout=shortened(PATIENCE)):  # others wait for the same broker
            raise OperationalError(f"{self._mail.url}: results can't be received, the broker does not answer")
        try:
            if not self._is_listening():
                self._mail.listen(self.box, self._expires, self._on_arrival)
                self._closing.clear()
                self._thread = threading.Thread(target=self._run, name="celeriac-rpc", daemon=True)
                self._thread.start()
        finally:
            self._starting.release()
        return self.box

    def _is_listening(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        failures = 0
        while not self._closing.is_set():
            try:
                self._mail.listen(self.box, self._expires, self._on_arrival)
                self._mail.wait(WAIT)
                self._mail.receive(self._take_in)
                failures = 0
                self._wait_for_readers()
            except OperationalError as exc:
                failures += 1
                logger.warning("results can't be received, trying again: %s", exc)
                self._closing.wait(backoff(failures))

    def _take_in(self, received: Sequence[tuple[bytes, str]]) -> None:
        records = [record for body, content_type in received if (record := _read(body, content_type, self._accept))]
        with self._changed:
            for record in records:
                present = self._records.get(record.id)
                if record.id not in self._read and (present is None or not present[0].is_ready):
                    self._records[record.id] = (record, time.monotonic())
            self._drop_old(time.monotonic())
            self._changed.notify_all()

    def _on_arrival(self) -> bool:
        if len(self._records) >= MAX_UNREAD:
            return False
        try:
            self._mail.receive(self._take_in)
        except OperationalError:
            return False  # the listening thread will see it, too
        return True

    def _wait_for_readers(self) -> None:
        with self._changed:
            while len(self._records) >= MAX_UNREAD and not self._waiting and not self._closing.is_set():
                self._changed.wait(1.0)

    def _drop_old(self, now: float) -> None:
        """Records come in the order of time, so the oldest stand first."""
        while self._expires and self._records:
            task_id, (_record, since) = next(iter(self._records.items()))
            if now - since < self._expires:
                return
            del self._records[task_id]

    def get(self, ids: Sequence[str]) -> list[Record | None]:
        """What has come so far."""
        with self._changed:
            return [self._find(task_id) for task_id in ids]

    def _find(self, task_id: str) -> Record | None:
        found = self._records.get(task_id)
        return found[0] if found is not None else self._read.get(task_id)

    def wait(self, ids: Sequence[str], timeout: float | None) -> list[Record]:
        """Wait until at least one of the ids is ready."""
        deadline = Deadline(timeout)
        wanted = dict.fromkeys(ids)
        self.listen()
        with self._changed:
            self._waiting += 1
            try:
                while True:
                    found = [record for each in wanted if (record := self._find(each)) is not None and record.is_ready]
                    if found or deadline.passed():
                        return [self._note_read(record) for record in found]
                    self._changed.notify_all()  # the listening thread may pause for want of readers
                    self._changed.wait(deadline.left())
            finally:
                self._waiting -= 1

    def _note_read(self, record: Record) -> Record:
        self._records.pop(record.id, None)
        self._read[record.id] = record
        while len(self._read) > KEPT:
            self._read.popitem(last=False)
        return record

    def forget(self, ids: Sequence[str]) -> None:
        """Delete what has come."""
        with self._changed:
            for task_id in ids:
                self._records.pop(task_id, None)
                self._read.pop(task_id, None)

    # what it can't do

    def start_chord(self, group_id: str, size: int, value: bytes, expires_at: float | None) -> None:
        """Keep the header of a chord."""
        self.save_group(group_id, value, expires_at)

    def join_part(self, group_id: str, index: int, size: int, record: Record) -> bool:
        """Nothing is kept, so nothing can be counted.

        Raises:
            NotImplementedError: Always, as Celery documents it for chords on rpc.
        """
        raise NotImplementedError(
            "rpc:// has no chords: set result_backend to a store such as redis:// or postgresql://."
        )

    def save_group(self, group_id: str, value: bytes, expires_at: float | None) -> None:
        """A group can't be kept.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            "rpc:// keeps no groups: set result_backend to a store such as redis:// or postgresql://."
        )

    def get_group(self, group_id: str) -> bytes | None:
        """None: nothing is kept."""
        return None

    def forget_group(self, group_id: str) -> None:
        """Nothing is kept."""

    def cleanup(self, now: float) -> int:
        """Drop what is too old; the broker drops old boxes by itself."""
        with self._changed:
            before = len(self._records)
            self._drop_old(time.monotonic() + now - time.time())
            return before - len(self._records)

    def close(self) -> None:
        """Stop listening. What came is kept in memory."""
        self._closing.set()
        self._mail.wake()
        with self._changed:
            self._changed.notify_all()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)
        self._mail.close()


def _read(body: bytes, content_type: str, accept: frozenset[str]) -> Record | None:
    """The record in a message; one that can't be read is dropped, and said so."""
    try:
        return record_from_document(body, accept, content_type=content_type or None)
    except CeleriacError as exc:
        logger.warning("a result that can't be read was dropped: %s", exc)
        return None


def _seconds(value: Any) -> float | None:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return float(value) if value else None
