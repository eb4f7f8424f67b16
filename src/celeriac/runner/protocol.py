"""What supervisor and runners say to each other, and the memory they share.

Frames on a socket pair: four bytes of length, one of kind, a msgpack body; no pickle. `Cells` is a shared memory with one
cell per slot: the runner writes there which execution it runs and since when, without a message or a system call; the
supervisor reads it for limits and crash reports, and writes which frames it has taken back. The only module that both
`worker` and `runner` know.
"""

from __future__ import annotations

import enum
import mmap
import os
import socket
import struct
import tempfile
from typing import Any

import msgspec

from celeriac.outcome import BatchExecution, BatchOutcome, Execution, Outcome
from celeriac.results.base import Record
from celeriac.routing import Queue
from celeriac.task_limits import TaskLimits

__all__ = [
    "Cells", "FrameReader", "Hello", "Kind", "RunnerOptions", "TaskFacts", "ZygoteOptions", "decode_frame", "encode_frame",
    "make_cells",
]  # fmt: skip


class Kind(enum.IntEnum):
    """What a frame is."""

    RUN = 1  #: supervisor → runner: Execution
    OUTCOME = 2  #: runner → supervisor: Outcome
    STATE = 3  #: runner → supervisor: (slot, serial, Record) of a state, or of an outcome before its handlers
    SKIPPED = 4  #: runner → supervisor: (slot, serial) of a frame that was taken back just as it was to start
    READY = 5  #: runner → supervisor: pid
    SPAWN = 6  #: supervisor → zygote: (number, RunnerOptions); the runner's socket and cells travel beside the frame
    SPAWNED = 7  #: zygote → supervisor: (number, pid)
    EXITED = 8  #: zygote → supervisor: (pid, wait status)
    HELLO = 9  #: zygote → supervisor: Hello
    START = 10  #: supervisor → zygote: ZygoteOptions
    LIMITS = 11  #: runner → supervisor: (slot, serial, hard, soft) of a message that has its time limits in its body
    RUN_BATCH = 12  #: supervisor → runner: BatchExecution
    BATCH_OUTCOME = 13  #: runner → supervisor: BatchOutcome


class RunnerOptions(msgspec.Struct, frozen=True):
    """How a runner runs tasks.

    Attributes:
        pool: "prefork", "threads" or "solo".
        slots: Tasks at the same time.
        node: Name of the worker's node.
        number: Number of the runner in its worker, from 1.
    """

    pool: str
    slots: int
    node: str
    number: int = 1


_encoder = msgspec.msgpack.Encoder()
_decoders: dict[int, Any] = {
    Kind.RUN: msgspec.msgpack.Decoder(Execution),
    Kind.OUTCOME: msgspec.msgpack.Decoder(Outcome),
    Kind.RUN_BATCH: msgspec.msgpack.Decoder(BatchExecution),
    Kind.BATCH_OUTCOME: msgspec.msgpack.Decoder(BatchOutcome),
    Kind.STATE: msgspec.msgpack.Decoder(tuple[int, int, Record]),
    Kind.LIMITS: msgspec.msgpack.Decoder(tuple[int, int, float | None, float | None]),
}
_any = msgspec.msgpack.Decoder()
_head = struct.Struct("<IB")


def encode_frame(kind: int, value: Any) -> bytes:
    """A frame as bytes."""
    body = _encoder.encode(value)
    return _head.pack(len(body), kind) + body


def decode_frame(kind: int, body: bytes | memoryview) -> Any:
    """What a frame says.

    Raises:
        msgspec.MsgspecError: It is damaged.
    """
    try:
        return _decoders.get(kind, _any).decode(body)
    except (UnicodeDecodeError, RecursionError) as exc:
        raise msgspec.DecodeError(str(exc)) from exc


#: Bytes that one read takes at most.
PIECE = 131_072


class FrameReader:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_buffer", "_piece")

    def __init__(self) -> None:
        self._buffer = bytearray()  # the beginning of a frame that has not come whole
        # Kept: `recv` would ask the system for so much memory each time, which takes longer than all the rest.
        self._piece = memoryview(bytearray(PIECE))

    def receive(self, sock: socket.socket) -> list[tuple[int, bytes]] | None:
        """The frames that are complete after one read; None at the end of the stream. Raises what the socket raises."""
        size = sock.recv_into(self._piece)
        return self.feed(self._piece[:size]) if size else None

    def feed(self, data: bytes | memoryview) -> list[tuple[int, bytes]]:
        """The frames (kind, body) that are complete now."""
        buffer = self._buffer
        source: bytes | bytearray | memoryview = data
        if buffer:
            buffer += data
            source = buffer
        frames, at, end = [], 0, len(source)
        while end - at >= 5:
            length, kind = _head.unpack_from(source, at)
            body = at + 5
            if end - body < length:
                break
            at = body + length
            frames.append((kind, bytes(source[body:at])))
        if source is buffer:
            del buffer[:at]
        elif at < end:
            buffer += data[at:]
        return frames


_CELL = struct.Struct("<qdqqq")
_RUNNING = struct.Struct("<qd")
_Q = struct.Struct("<q")


class Cells:
    """One cell per slot, shared by supervisor and runner.

    A cell holds: serial of the execution that runs (0 = none), its start (monotonic seconds), the range [low, high) of
    serials that were taken back, and the serial whose soft limit has passed.
    """

    def __init__(self, fd: int, slots: int) -> None:
        self._map = mmap.mmap(fd, slots * _CELL.size)
        self.slots = slots

    # the runner's side

    def begin(self, slot: int, serial: int, now: float) -> None:
        """This execution starts now."""
        _RUNNING.pack_into(self._map, slot * _CELL.size, serial, now)

    def end(self, slot: int) -> None:
        """Nothing runs."""
        _Q.pack_into(self._map, slot * _CELL.size, 0)

    def is_recalled(self, slot: int, serial: int) -> bool:
        """Whether the supervisor has taken this frame back."""
        _, _, low, high, _ = _CELL.unpack_from(self._map, slot * _CELL.size)
        return bool(low <= serial < high)

    def is_soft_limited(self, slot: int) -> bool:
        """Whether the soft limit of the execution that runs has passed."""
        serial, _, _, _, soft = _CELL.unpack_from(self._map, slot * _CELL.size)
        return bool(serial and serial == soft)

    # the supervisor's side

    def running(self, slot: int) -> tuple[int, float]:
        """(serial or 0, start) of what runs."""
        return _RUNNING.unpack_from(self._map, slot * _CELL.size)

    def recall(self, slot: int, low: int, high: int) -> None:
        """Take back the frames with these serials."""
        struct.pack_into("<qq", self._map, slot * _CELL.size + 16, low, high)

    def limit_softly(self, slot: int, serial: int) -> None:
        """The soft limit of this execution has passed."""
        _Q.pack_into(self._map, slot * _CELL.size + 32, serial)

    def close(self) -> None:
        """Unmap."""
        self._map.close()


def make_cells(slots: int) -> tuple[int, Cells]:
    """New cells and the file descriptor by which another process can map them."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("celeriac-cells", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, slots * _CELL.size)
    return fd, Cells(fd, slots)


class ZygoteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a zygote needs to know to import the app and to make runners.

    Attributes:
        app: What `-A` names.
        changes: Settings from the command line, which rank above the app's.
        include: Further modules to import.
        node: Name of the worker.
        arguments: Those of the command line, for options of the app's own.
    """

    app: str
    node: str = ""
    changes: dict[str, Any] = {}
    include: list[str] = []
    arguments: list[str] = []
    loglevel: str = "WARNING"
    logfile: str | None = None
    colour: bool | None = None


class TaskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor has to know of a task, since it does not import the app.

    Attributes:
        has_secrets: Whether arguments of it are hidden: they are shown as their texts only.
    """

    time_limit: float | None = None
    soft_time_limit: float | None = None
    acks_late: bool = True
    reject_on_worker_lost: bool = True
    retry_on_worker_lost: bool = False
    limits: TaskLimits | None = None
    has_secrets: bool = False
    shown: dict[str, str] = {}
    batch: int | None = None
    batch_wait: float = 0.0


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """What a zygote tells when it has imported the app, or could not.

    Attributes:
        error: Why it could not, in one line; "" if it could.
        is_missing: Whether that is because there is no such app.
        traceback: Of an error inside the user's modules.
        conf: The changed settings, as plain data.
        not_plain: Settings that are not plain data.
        threads: Threads that were alive after the import; runners are then started by exec instead of fork.
        listens: Whether the supervisor has to import the app, too: for receivers of its signals, control commands, keys.
        received_line: The app's `celeriac.log.LOG_RECEIVED`.
    """

    error: str = ""
    is_missing: bool = False
    traceback: str = ""
    app: str = ""
    conf: dict[str, Any] = {}
    not_plain: list[str] = []
    tasks: dict[str, TaskFacts] = {}
    queues: list[Queue] = []
    default_queue: str = "celery"
    threads: int = 0
    listens: bool = False
    received_line: str = ""


_decoders[Kind.SPAWN] = msgspec.msgpack.Decoder(tuple[int, RunnerOptions])
_decoders[Kind.START] = msgspec.msgpack.Decoder(ZygoteOptions)
_decoders[Kind.HELLO] = msgspec.msgpack.Decoder(Hello)
