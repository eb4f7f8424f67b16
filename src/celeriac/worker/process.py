"""One runner process as the supervisor sees it: its socket, its slots and what each of them holds.

All methods run in the supervisor's event loop. A process tells its owner of outcomes, states, skipped frames and its end;
it decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from celeriac.outcome import RUN, BatchExecution, Execution, Outcome
from celeriac.results.base import Record
from celeriac.runner.protocol import Cells, FrameReader, Kind, RunnerOptions, decode_frame, encode_frame, make_cells
from celeriac.worker.assignment import Assignment, Batch

__all__ = ["ProcessOwner", "RunnerProcess", "Slot"]


class ProcessOwner(Protocol):
    """Who is told what a process does."""

    def on_ready(self, process: RunnerProcess) -> None:
        """It can take tasks."""

    def on_outcomes(self, ended: list[tuple[Slot, Assignment, Outcome]]) -> None:
        """Executions have ended."""

    def on_state(self, record: Record) -> None:
        """A running task has set a state."""

    def on_skipped(self, slot: Slot, assignment: Assignment) -> None:
        """A frame was taken back just as it was to start."""

    def on_process_end(self, process: RunnerProcess) -> None:
        """Its socket has closed."""


class Slot:
    """A place for one running task, with the frames that wait behind it.

    Attributes:
        is_blocked: Whether the task that runs has turned out long: nothing is to wait behind it.
    """

    __slots__ = ("held", "index", "is_blocked", "next_serial", "process", "recalled")

    def __init__(self, process: RunnerProcess, index: int) -> None:
        self.process = process
        self.index = index
        self.held: deque[Assignment] = deque()
        self.is_blocked = False
        self.next_serial = 1
        self.recalled = (0, 0)  # range of serials that were taken back last

    def running(self) -> tuple[Assignment | None, float]:
        """The assignment that runs now, and its start (monotonic seconds)."""
        serial, started = self.process.cells.running(self.index)
        if serial and self.held:
            for assignment in self.held:
                if assignment.serial == serial:
                    return assignment, started
        return None, 0.0


class RunnerProcess:
    """A runner.

    Args:
        number: Its number in the pool, for node names of log files (%i).
        options: How it is to run tasks.

    Attributes:
        deliver: How a signal reaches it. One that is no process of its own is given another way by its nursery.
    """

    def __init__(self, number: int, options: RunnerOptions, owner: ProcessOwner) -> None:
        self.number = number
        self.options = options
        self.deliver: Callable[[int], None] = self._send_signal
        self.pid = 0
        self.owner = owner
        self.is_ready = False
        self.is_retiring = False
        self.is_over = False
        self.kill_at: float | None = None
        self.started_at = time.monotonic()
        self.assigned = 0  # executions it was given in its life
        self.reason = ""  # why we ended it, for crash reports
        self.exit_status: int | None = None
        self._is_passed_on = False
        self._is_paused = False
        self.slots = [Slot(self, index) for index in range(options.slots)]
        self._reader = FrameReader()
        self._outgoing: list[bytes] = []
        self._unsent = b""
        self._sock, self.runner_sock = socket.socketpair()
        self._sock.setblocking(False)
        self.cells_fd: int
        self.cells: Cells
        self.cells_fd, self.cells = make_cells(options.slots)
        self.lifeline_read, self._lifeline = os.pipe()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock.fileno(), self.receive)

    def passed_on(self) -> None:
        """The runner has its ends: close ours of them."""
        if not self._is_passed_on:
            self._is_passed_on = True
            self.runner_sock.close()
            os.close(self.cells_fd)
            os.close(self.lifeline_read)

    @property
    def load(self) -> int:
        """How many assignments it holds."""
        return sum(len(slot.held) for slot in self.slots)

    # to the runner

    def give(self, slot: Slot, assignment: Assignment) -> None:
        """Put an execution into a slot; `flush` sends it.

        Raises:
            ValueError, TypeError, OverflowError, RecursionError: A header can't travel; nothing was changed.
        """
        serial, index = slot.next_serial, slot.index
        if isinstance(assignment, Batch):
            executions = [_execution(serial, index, member) for member in assignment.members]
            self._outgoing.append(encode_frame(Kind.RUN_BATCH, BatchExecution(serial, index, executions)))
        else:
            self._outgoing.append(encode_frame(Kind.RUN, _execution(serial, index, assignment)))
        assignment.serial = slot.next_serial
        assignment.is_soft_limited = False  # another start has its limit anew
        slot.next_serial += 1
        slot.held.append(assignment)
        self.assigned += 1

    def flush(self) -> None:
        """Send what was given."""
        if not self._outgoing:
            return
        data = b"".join(self._outgoing) if not self._unsent else self._unsent + b"".join(self._outgoing)
        self._outgoing.clear()
        self._send(data)

    def _send(self, data: bytes) -> None:
        was_waiting = bool(self._unsent)
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # it has died: its end is noticed by the reader
            self._unsent = b""
            return
        self._unsent = data[sent:]
        if self._unsent and not was_waiting:
            self._loop.add_writer(self._sock.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        data, self._unsent = self._unsent, b""
        self._loop.remove_writer(self._sock.fileno())
        if data:
            self._send(data)

    def take_back(self, slot: Slot) -> list[Assignment]:
        """Take back the frames of a slot that wait behind the one that runs."""
        if len(slot.held) < 2:
            return []
        low = slot.held[1].serial
        recalled_low, recalled_high = slot.recalled
        running, _ = self.cells.running(slot.index)
        if slot.held[0].serial < recalled_high:
            # The runner has not yet come to the frames that were taken back before: they must stay taken back.
            slot.recalled = (recalled_low, slot.next_serial)
        elif running < recalled_high:
            return []  # it may be skipping those just now, and one range can't say both
        else:
            slot.recalled = (low, slot.next_serial)
        self.cells.recall(slot.index, *slot.recalled)
        running, _ = self.cells.running(slot.index)
        taken = [assignment for assignment in slot.held if assignment.serial >= low and assignment.serial > running]
        for assignment in taken:
            slot.held.remove(assignment)
            assignment.serial = 0
        self.assigned -= len(taken)
        return taken

    def limit_softly(self, slot: Slot, assignment: Assignment) -> None:
        """Raise SoftTimeLimitExceeded in a running task."""
        assignment.is_soft_limited = True
        self.cells.limit_softly(slot.index, assignment.serial)
        self.signal(signal.SIGXCPU)

    def signal(self, number: int) -> None:
        """Send it a signal, while it lives."""
        if not self.is_over:
            self.deliver(number)

    def _send_signal(self, number: int) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self, reason: str = "") -> None:
        """End it at once."""
        self.reason = self.reason or reason
        self.is_retiring = True
        self.signal(signal.SIGKILL)

    def retire(self) -> None:
        """Let it end: it gets no more work, and goes when it has done what it holds."""
        self.is_retiring = True
        if not self.load:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    # from the runner

    def on_exit(self, status: int) -> None:
        """Its process has ended. The socket tells so too, unless a child of a task holds a copy of it."""
        self.exit_status = status
        self.receive_all()
        self.end()

    def receive_all(self) -> None:
        """Take everything that has come, now."""
        while self.receive():
            pass

    def pause_reading(self) -> None:
        """Let what comes from it wait in the socket."""
        if not self.is_over and not self._is_paused:
            self._is_paused = True
            self._loop.remove_reader(self._sock.fileno())

    def resume_reading(self) -> None:
        """Take what comes at once again."""
        if not self.is_over and self._is_paused:
            self._is_paused = False
            self._loop.add_reader(self._sock.fileno(), self.receive)

    def receive(self) -> bool:
        """Take what has come; False if there was nothing."""
        if self.is_over:
            return False
        frames: list[tuple[int, bytes]] | None = None
        try:
            frames = self._reader.receive(self._sock)
        except BlockingIOError:
            return False
        except OSError:  # it has died
            pass
        if frames is None:
            self.end()
            return False
        self._take(frames)
        return True

    def _take(self, frames: list[tuple[int, bytes]]) -> None:
        ended: list[tuple[Slot, Assignment, Outcome]] = []
        for kind, body in frames:
            try:
                value = decode_frame(kind, body)
            except msgspec.MsgspecError as exc:
                self.kill(f"for an answer that can't be read: {exc}")
                break
            if kind == Kind.OUTCOME:
                assignment = self._pop(value.slot, value.serial)
                if assignment is not None:
                    ended.append((self.slots[value.slot], assignment, value))
            elif kind == Kind.BATCH_OUTCOME:
                batch = self._pop(value.slot, value.serial)
                if batch is not None:
                    slot = self.slots[value.slot]
                    ended += [(slot, *each) for each in zip(batch.members, value.outcomes, strict=True)]
            elif kind == Kind.STATE:
                self.owner.on_state(value[2])
            elif kind == Kind.LIMITS:
                self._take_limits(*value)
            elif kind == Kind.SKIPPED:
                skipped = self._pop(*value)
                if skipped is not None:
                    self.owner.on_skipped(self.slots[value[0]], skipped)
            elif kind == Kind.READY:
                self.is_ready = True
                self.pid = self.pid or value
                self.owner.on_ready(self)
        if ended:
            self.owner.on_outcomes(ended)
        if self.is_retiring and not self.load:
            self.retire()

    def _take_limits(self, index: int, serial: int, hard: float | None, soft: float | None) -> None:
        for assignment in self.slots[index].held:
            if assignment.serial == serial and assignment.verdict is RUN:
                assignment.hard, assignment.soft = hard, soft

    def _pop(self, index: int, serial: int) -> Assignment | None:
        held = self.slots[index].held
        if held and held[0].serial == serial:
            self.slots[index].is_blocked = False
            return held.popleft()
        for assignment in held:
            if assignment.serial == serial:
                held.remove(assignment)
                return assignment
        return None  # taken back, or settled by a hard limit

    def end(self) -> None:
        """It has died, or is given up."""
        if not self.is_over:
            self.is_over = True
            self._loop.remove_reader(self._sock.fileno())
            if self._unsent:
                self._loop.remove_writer(self._sock.fileno())
            self.owner.on_process_end(self)

    def close(self) -> None:
        """Release what belongs to it. The runner, if it still lives, dies with the lifeline."""
        if not self.is_over:
            self.is_over = True
            self._loop.remove_reader(self._sock.fileno())
        self.passed_on()
        self._sock.close()
        os.close(self._lifeline)
        self.cells.close()

    def rss(self) -> int:
        """Its resident memory in bytes; 0 if that can't be told."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * _PAGE
        except (OSError, IndexError, ValueError):
            return 0

    def end_text(self) -> str:
        """How it ended, for people."""
        if self.reason:
            return self.reason
        status: Any = self.exit_status
        if status is None:
            return "for an unknown reason"
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return f"by signal {number} ({signal.Signals(number).name})"
        return f"with exit code {os.waitstatus_to_exitcode(status)}"


def _execution(serial: int, index: int, assignment: Assignment) -> Execution:
    delivery = assignment.delivery
    return Execution(serial, index, delivery.message, delivery.queue, delivery.deliveries, assignment.verdict)


_PAGE = os.sysconf("SC_PAGE_SIZE")
