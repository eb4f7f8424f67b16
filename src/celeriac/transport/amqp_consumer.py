"""Consuming from RabbitMQ: fetching by credit, and settling what was fetched.

RabbitMQ pushes; a worker pulls. `fetch` opens a consumer per queue whose prefetch is what the worker holds and what it wants
more, so that each acknowledgement lets the server send the next message without being asked. When no fetch has been under way
for a moment the consumers are cancelled, and soon after what came too much is given back: no message waits long in a worker
that can't use it.

Invariants: `_lock` guards the session and all it holds, and is held over short questions only; a lease is the token of an
entry, lost with the entry's channel.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence

from celeriac.errors import OperationalError
from celeriac.log import get_logger
from celeriac.message import Delivery
from celeriac.timing import Deadline
from celeriac.transport.amqp_channel import Channel, ChannelClosed, copy_of
from celeriac.transport.amqp_credit import has_surplus, plan
from celeriac.transport.amqp_link import Link
from celeriac.transport.amqp_progress import Progress, Remedy
from celeriac.transport.amqp_request import cancel
from celeriac.transport.amqp_session import Entry, Session, acks
from celeriac.transport.amqp_topology import Topology

__all__ = ["Consumer"]

logger = get_logger("celeriac.transport.amqp")

#: Seconds after the last fetch until its consumers are cancelled in any case.
GRACE = 0.25
#: Seconds after the last fetch for which an acknowledgement may bring the next message, since a fetch will follow. On a busy
#: machine a supervisor may need some tens of milliseconds for that, and to cancel and consume anew while messages stream in
#: takes as long.
LINGER = 0.1
#: Seconds after the last fetch until what came too much goes back, which marks it as delivered before.
HOLD = 1.0
#: How often that is looked at while fetches wait, in seconds.
LOOK = 0.25
#: Shortest wait of a fetch: the server needs that long to push what there is.
PROBE = 0.05
#: Queues push independently of each other: seconds for each to begin after consumers were opened, so that the first one does
#: not fill the whole fetch.
HEAD_START = 0.01
#: A message that was given back this often without being run stays here until it is fetched: some servers count returns.
MAX_RETURNS = 5
_TIMED_OUT = re.compile(r"Timeout value used: (\d+) ms")


class Consumer:
    """Fetches over one link.

    Args:
        topology: Makes queues exist before they are consumed.
    """

    def __init__(self, link: Link, topology: Topology) -> None:
        self.link = link
        self.topology = topology
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._held: dict[int, Entry] = {}
        self._tokens = itertools.count(1)
        self._fetching = 0
        self._fetched_at = 0.0
        self.interrupts = 0
        self._wake = threading.Event()
        self._has_keeper = False
        self._progress = Progress(link.place.options.stall_timeout)
        #: Whether messages are delivered that are not yet due, and not put off.
        self.delivers_early = False
        #: Called by the keeper now and then, while anything is held.
        self.on_look: Callable[[], object] = bool
        #: The server's `consumer_timeout`, as far as is known.
        self.ack_timeout = link.place.options.consumer_timeout

    # fetching

    def fetch(self, queues: Sequence[str], limit: int, wait: float, interrupts: int) -> list[Entry]:
        """Lease messages; waits for the first, or until `interrupts` counts on. See `take_far` for what is to be put off."""
        deadline = Deadline(max(wait, PROBE))
        with self._busy():
            while True:
                with self._lock:
                    session = self._living_session()
                    self._drain(session)
                    now = time.time()
                    is_too_much = has_surplus(session, limit, time.monotonic())
                    taken = session.take(queues, limit, now)
                    self._held.update((entry.token, entry) for entry in taken)
                    if is_too_much:
                        self._give_up_surplus(session)
                    if taken or session.far:
                        if self._fetching > 1 and session.has_ready(queues):
                            session.channel.wake()  # another fetch waits for these
                        return taken
                    is_fresh = self._listen(session, queues, limit)
                    pause = min(deadline.left() or 0.0, session.until_due(now))
                if interrupts != self.interrupts:
                    return []
                if deadline.passed():
                    self._see_to_progress(session)
                    return []
                if is_fresh and len(queues) > 1:
                    time.sleep(min(pause, HEAD_START))
                self._await(session, queues, pause, interrupts)

    def _await(self, session: Session, queues: Sequence[str], seconds: float, interrupts: int) -> None:
        session.channel.wait(seconds, lambda: interrupts != self.interrupts or session.has_ready(queues))

    def _drain(self, session: Session) -> None:
        """Sort in what was pushed."""
        inbox, now = session.channel.inbox, float("inf") if self.delivers_early else time.time()
        if inbox:
            self._progress.moved()
        while inbox:
            pushed = inbox.popleft()
            queue = session.queue_of[pushed.method.consumer_tag]
            session.sort_in(Entry(session.channel, queue, pushed, next(self._tokens)), now)

    def _listen(self, session: Session, queues: Sequence[str], limit: int) -> bool:
        """Let the server push `limit` messages more from these queues; returns whether consumers were opened for that."""
        self._forget_cancelled(session)
        deadline = self.link.deadline()
        for queue in queues:
            if queue not in session.listening:
                self.topology.ensure(queue, deadline)
        requests = plan(session, queues, limit, self._tokens, self.topology.known)
        others = self._endable(session, queues) if self._fetching == 1 else []
        requests += [cancel(session.listening.pop(queue).tag) for queue in others]
        if requests:
            try:
                session.channel.ask(deadline, *requests)
            except ChannelClosed:
                for queue in queues:  # perhaps one is gone: it is declared before the next attempt
                    self.topology.forget(queue)
                raise
            self._wake.set()
        if others:
            self._drain(session)
            self._give_back(session, [entry for entry in session.unfetched() if entry.queue not in queues])
        return bool(requests)

    def _endable(self, session: Session, wanted: Sequence[str] = ()) -> list[str]:
        """Queues whose consumer may be cancelled. One that goes with its last consumer keeps it until the worker leaves."""
        return [queue for queue in session.listening if queue not in wanted and not self._is_bound_to_us(queue)]

    def _is_bound_to_us(self, queue: str) -> bool:
        known = self.topology.known.get(queue)
        return known is not None and known.auto_delete

    def _forget_cancelled(self, session: Session) -> None:
        """Consumers that the server has ended, because their queue was deleted or its node has gone."""
        while session.channel.cancelled:
            queue = session.queue_of.get(session.channel.cancelled.pop(), "")
            session.listening.pop(queue, None)
            self.topology.forget(queue)

    def _see_to_progress(self, session: Session) -> None:
        """Nothing has come: if messages wait at the server nevertheless, consume anew.

        Raises:
            OperationalError: They do, or the server does not answer.
        """
        open_queues = list(session.listening)
        waiting: dict[str, int] = {}

        def count() -> int:
            waiting.update((queue, self.topology.count(queue) or 0) for queue in open_queues)
            return sum(waiting.values())

        quiet = self._progress.quiet
        remedy = self._progress.judge(count)
        if remedy is Remedy.NOTHING:
            return
        if self._held:  # leases depend on the connection
            remedy = Remedy.REOPEN
        found = ", ".join(f"{number} in {queue!r}" for queue, number in waiting.items() if number)
        reason = f"messages wait ({found}) and none has come for {quiet:.0f} s: {remedy.value}"
        if remedy is Remedy.RECONNECT:
            raise session.channel.connection.fail(reason)
        with self._lock:
            self._cancel(session)
        raise OperationalError(f"{session.channel.connection.name}: {reason}")

    def take_far(self) -> list[Entry]:
        """Messages that came long before their moment. They are on lease to the caller, who puts them off."""
        with self._lock:
            session = self._session
            if session is None or not session.far:
                return []
            far, session.far = session.far, []
            session.leased.update(entry.queue for entry in far)
            self._held.update((entry.token, entry) for entry in far)
            return far

    def return_far(self, entries: Iterable[Entry]) -> None:
        """They could not be put off; to be tried again."""
        with self._lock:
            for entry in entries:
                is_held = self._held.pop(entry.token, None) is not None
                if is_held and self._session is not None and entry.channel is self._session.channel:
                    self._session.leased[entry.queue] -= 1
                    self._session.far.append(entry)

    def interrupt(self) -> None:
        """Make every fetch that waits return."""
        self.interrupts += 1
        session = self._session
        if session is not None:
            session.channel.wake()

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        with self._lock:
            self._fetching += 1
            if not self._has_keeper:
                self._has_keeper = True
                threading.Thread(
                    target=_keep, args=(weakref.ref(self), self._wake), name="celeriac-amqp-keeper", daemon=True
                ).start()
        try:
            yield
        finally:
            with self._lock:
                self._fetching -= 1
                self._fetched_at = time.monotonic()

    # the session

    def _living_session(self) -> Session:
        """The session, made anew after a loss, which is told once.

        Raises:
            OperationalError: The channel was lost since the last call, or none can be opened.
        """
        session = self._session
        if session is None:
            session = self._session = Session(self.link.channel(self.link.deadline()))
        error = session.channel.error
        if error is not None:
            self._forget_session(session, error)
            raise copy_of(error)
        return session

    def _forget_session(self, session: Session, error: OperationalError) -> None:
        self._session = None
        lost = [entry for entry in self._held.values() if entry.channel is session.channel]
        for entry in lost:
            del self._held[entry.token]
        if isinstance(error, ChannelClosed):
            self.learn(error)
        if lost:
            logger.warning("%d lease(s) lost: %s", len(lost), error)

    def learn(self, error: ChannelClosed) -> None:
        """The server has told its `consumer_timeout`."""
        found = _TIMED_OUT.search(error.text)
        if found is None:
            return
        seconds = int(found[1]) / 1000
        if not self.ack_timeout or seconds < self.ack_timeout:
            logger.warning(
                "RabbitMQ's consumer_timeout is %g s: leases are renewed before that from now on; say so in"
                " broker_transport_options = {'consumer_timeout': %g}",
                seconds, seconds,
            )  # fmt: skip
            self.ack_timeout = seconds
            self._wake.set()

    def look(self) -> float | None:
        """What the keeper does: see that leases don't grow too old, and that nothing is consumed that nobody fetches.

        Returns:
            Seconds until the next look; None when being woken is enough.
        """
        try:
            self.on_look()
        except OperationalError as exc:
            logger.warning("leases can't be renewed, trying again: %s", exc)
        pause = self._cancel_unused()
        if self._held and self.ack_timeout:
            return min(pause or 60.0, self.ack_timeout / 10)
        return pause

    def _cancel_unused(self) -> float | None:
        with self._lock:
            session = self._session
            if self._fetching:
                return LOOK
            if session is not None and session.channel.error is not None:
                self._forget_session(session, session.channel.error)
                return None
            if session is None or not (session.listening or session.unfetched() or session.early):
                return None
            idle = time.monotonic() - self._fetched_at
            with contextlib.suppress(OperationalError):
                if session.listening and idle >= GRACE:
                    self._cancel(session)
                if idle >= HOLD:
                    session.promote(time.time())
                    self._give_back(session, session.unfetched())
            if session.listening:
                return GRACE
            return max(HOLD - idle, min(session.until_due(time.time()), 1.0))

    def _cancel(self, session: Session) -> None:
        """Cancel all consumers. What has come stays here for a while: a fetch will probably follow."""
        listening = [session.listening.pop(queue) for queue in self._endable(session)]
        if listening:
            session.channel.ask(self.link.deadline(), *[cancel(each.tag) for each in listening])
        self._drain(session)

    def _give_up_surplus(self, session: Session) -> None:
        """Others may have what is not wanted here. The consumers are opened anew when more is wanted."""
        session.surplus_since = None
        self._cancel(session)
        self._give_back(session, session.unfetched())

    def _give_back(self, session: Session, entries: list[Entry]) -> None:
        back = [
            entry
            for entry in entries
            if entry.envelope.deliveries < MAX_RETURNS and not self._is_bound_to_us(entry.queue)
        ]
        if back:
            session.drop(back)
            session.channel.acknowledge((), sorted(entry.tag for entry in back))

    # settling

    def held(self, delivery: Delivery) -> Entry | None:
        """The entry of a delivery; None if its lease is lost."""
        entry = self._held.get(delivery.token)
        return entry if entry is not None and entry.channel.error is None else None

    def stop_listening(self, *, at_once: bool) -> None:
        """Leases are about to end, which lets the server send more: listen no more, unless a fetch waits.

        Args:
            at_once: Something goes back, for others to have. Otherwise only if the last fetch was a while ago.
        """
        with self._lock, contextlib.suppress(OperationalError):
            session = self._session
            if session is None or self._fetching or not session.listening or session.channel.error is not None:
                return
            if at_once or time.monotonic() - self._fetched_at > LINGER:
                self._cancel(session)

    def finish(self, done: Iterable[Entry], returned: Iterable[Entry] = ()) -> list[Entry]:
        """End leases: `done` are acknowledged, `returned` go back to the head of their queue.

        Returns:
            Those whose lease was lost.
        """
        lost: list[Entry] = []
        with self._lock:
            groups: dict[Channel, tuple[list[Entry], list[Entry]]] = {}
            for index, entries in enumerate((done, returned)):
                for entry in entries:
                    if self._held.pop(entry.token, None) is None:
                        lost.append(entry)
                        continue
                    group = groups.get(entry.channel)
                    if group is None:
                        group = groups[entry.channel] = ([], [])
                    group[index].append(entry)
            for channel, (acked, requeued) in groups.items():
                if not self._finish(channel, acked, requeued):
                    lost += [*acked, *requeued]
        return lost

    def _finish(self, channel: Channel, acked: list[Entry], requeued: list[Entry]) -> bool:
        """Tell one channel; False if it is gone."""
        tags = [entry.tag for entry in acked]
        session = self._session
        if session is None or channel is not session.channel:
            told = [(tag, False) for tag in sorted(tags)]
        else:
            told = acks(session.shelf, tags)
            for entry in (*acked, *requeued):
                session.shelf.pop(entry.tag, None)
                session.leased[entry.queue] -= 1
        try:
            channel.acknowledge(told, [entry.tag for entry in requeued])
        except OperationalError:
            return False
        return True

    # leases that grow old

    def old_entries(self, before: float) -> list[Entry]:
        """Entries on lease that the server gave us before that moment (monotonic)."""
        with self._lock:
            return [entry for entry in self._held.values() if entry.since < before and entry.channel.error is None]

    def move(self, entry: Entry, channel: Channel, tag: int) -> bool:
        """The entry's message lies elsewhere now; its old place is acknowledged. False if it is settled already."""
        with self._lock:
            if self._held.get(entry.token) is not entry or entry.channel.error is not None:
                return False
            session = self._session
            if session is not None and entry.channel is session.channel:
                session.shelf.pop(entry.tag, None)
                session.leased[entry.queue] -= 1
            entry.channel.acknowledge([(entry.tag, False)])
            entry.channel, entry.tag, entry.is_moved, entry.since = channel, tag, True, time.monotonic()
            return True

    def count(self, queue: str) -> tuple[int, int]:
        """How many messages of a queue are on lease here, and how many wait here for their moment."""
        with self._lock:
            leased = sum(entry.queue == queue for entry in self._held.values())
            early = self._session.early if self._session is not None else []
            return leased, sum(entry.queue == queue for _, _, entry in early)

    def close(self) -> None:
        """Forget everything; the server gives it to others."""
        with self._lock:
            self._session = None
            self._held.clear()


def _keep(reference: weakref.ref[Consumer], wake: threading.Event) -> None:
    """The keeper's thread: looks after a consumer until nobody has it any more."""
    pause: float | None = None
    while True:
        wake.wait(60.0 if pause is None else pause)
        wake.clear()
        consumer = reference()
        if consumer is None:
            return
        pause = consumer.look()
        del consumer
