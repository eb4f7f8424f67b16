"""Remote control, the worker's side: listens to commands, has them carried out in the event loop, and answers.

One thread receives; it decodes and checks what comes, since nothing from the network is trusted, and sends the answers.
Commands are functions in `control_inspect`, `control_change` and `control_revoke`, and those of the user's app. Invariant: a
message that is malformed, or not accepted, costs one log line; a command that fails costs an answer with the error.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from typing import TYPE_CHECKING, Any

from celeriac.asking import ask, box_of
from celeriac.commands import CommandInfo, control_command, inspect_command, own_commands
from celeriac.errors import CeleriacError, OperationalError
from celeriac.log import get_logger
from celeriac.message import ControlMessage
from celeriac.revoking import last_revoke
from celeriac.timing import LamportClock, backoff
from celeriac.transport.base import Mailbox
from celeriac.wire.control import (
    Answer,
    Command,
    accepted,
    command_exchange,
    concerns,
    decode_command,
    encode_answer,
    reply_exchange,
    serializer_for,
)
from celeriac.worker.control_change import COMMANDS as CHANGE
from celeriac.worker.control_inspect import COMMANDS as INSPECT
from celeriac.worker.control_revoke import COMMANDS as REVOKE
from celeriac.worker.control_state import NO_ANSWER, ControlState
from celeriac.worker.revocations import Revocations
from celeriac.worker.state_file import StateFile

if TYPE_CHECKING:
    from celeriac.worker.supervisor import Supervisor

__all__ = ["Control", "control_command", "inspect_command"]

logger = get_logger("celeriac.worker.control")

#: Seconds that a receive waits; it is interrupted when that must end.
WAIT = 30.0
#: Seconds between two attempts to read the store, when it is down as we begin to listen.
STORE_PAUSE = 2.0
#: Seconds for which a worker that starts listens to what the others know.
MINGLE = 1.0


class Control:
    """What listens.

    Args:
        supervisor: The worker. Its transport, store and settings must be there.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._conf = supervisor.conf
        self._transport: Any = supervisor.transport
        self._loop = asyncio.get_running_loop()
        self.clock = LamportClock()
        self.revocations = Revocations()
        self._accept = accepted(self._conf.accept_content)
        self._serializer = serializer_for(self._conf.task_serializer)
        self._state_file = StateFile(self._conf.worker_state_db, self.revocations, self.clock)
        self.state = ControlState(supervisor, self)
        self._stop = threading.Event()
        self._mailbox: Mailbox | None = None
        self._is_synchronised = False
        self._has_mingled = False
        self._thread = threading.Thread(target=self._run, name="celeriac-control", daemon=True)

    @property
    def is_on(self) -> bool:
        """Whether the settings allow it and the broker can do it."""
        return bool(self._conf.worker_enable_remote_control and self._transport.capabilities.broadcast)

    def start(self) -> None:
        """Read what the state file remembers, and listen."""
        self._state_file.load()
        self._thread.start()

    def stop(self) -> None:
        """Listen no more, and write the state file."""
        self._stop.set()
        mailbox = self._mailbox
        if mailbox is not None:
            mailbox.interrupt()
        self._state_file.save()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def save_state(self) -> None:
        """Write the state file, if there is one. Blocks."""
        self._state_file.save()

    # listening

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                if not self.is_on:
                    self._only_synchronise()
                    return
                self._listen()
            except Exception as exc:  # whatever a driver raises: without this thread nobody could reach the worker
                failures += 1
                self.revocations.unheard_until = float("inf")
                trace = None if isinstance(exc, CeleriacError) else exc
                level = logger.warning if failures == 1 or trace else logger.debug
                level("remote control is interrupted, listening anew: %s", exc, exc_info=trace)
                self._stop.wait(backoff(failures, cap=2.0))

    def _only_synchronise(self) -> None:
        while not self._is_synchronised and not self._stop.wait(0 if not self._is_synchronised else STORE_PAUSE):
            self._synchronise()
            if not self._is_synchronised:
                self._stop.wait(STORE_PAUSE)

    def _listen(self) -> None:
        namespace, node = self._conf.control_exchange, self._supervisor.node
        exchange = command_exchange(namespace)
        self._is_synchronised = False
        mailbox = self._mailbox = self._transport.open_mailbox(box_of(self._conf, f"{node}.{exchange}", exchange))
        try:
            self._mingle()
            while not self._stop.is_set():
                if not self._is_synchronised:
                    self._synchronise()
                for message in mailbox.receive(WAIT if self._is_synchronised else STORE_PAUSE):
                    self._take(message)
        finally:
            self._mailbox = None
            mailbox.close()

    def _synchronise(self) -> None:
        """From now on every revoke is heard: what was revoked until now has to be looked up."""
        store = self._supervisor.store
        try:
            last = last_revoke(store) if store is not None and store.capabilities.persistent else None
        except OperationalError as exc:
            logger.debug("when the last revoke was is not known yet: %s", exc)
            return
        self.revocations.unheard_until = last or 0.0
        self._is_synchronised = True

    def _mingle(self) -> None:
        """Ask the other workers what is revoked, once, in a thread of its own: they may be asking us."""
        if not self._has_mingled:
            self._has_mingled = True
            threading.Thread(target=self._ask_others, name="celeriac-mingle", daemon=True).start()

    def _ask_others(self) -> None:
        node = self._supervisor.node
        command = Command(
            method="hello", arguments={"from_node": node, "revoked": self.revocations.ids()}, clock=self.clock.forward()
        )
        try:
            answers = ask(self._transport, self._conf, self.clock, command, MINGLE)
        except CeleriacError as exc:
            logger.debug("the other workers could not be asked: %s", exc)
            return
        for answer in answers:
            if answer.node != node and isinstance(answer.value, dict):
                self._in_loop(self.state.merge, answer.value.get("revoked"), answer.value.get("clock"))

    def _in_loop(self, function: Any, *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            self._stop.set()  # the loop is closed: we are leaving

    # commands

    def _take(self, message: ControlMessage) -> None:
        try:
            command = decode_command(message, self._accept)
        except CeleriacError as exc:  # malformed, not accepted, or wrongly signed
            logger.error("control message dropped: %s", exc)
            return
        self.clock.adjust(command.clock)
        if not concerns(command, self._supervisor.node):
            return
        if command.wants_answer and command.reply_exchange != reply_exchange(self._conf.control_exchange):
            logger.error(
                "control command %r dropped: it wants its answer at %r", command.method, command.reply_exchange
            )
            return
        logger.debug("control command %s %s", command.method, command.arguments)
        value = self._carry_out(command)
        if command.wants_answer and value is not NO_ANSWER:
            self._answer(command, value)

    def _carry_out(self, command: Command) -> Any:
        try:
            future = asyncio.run_coroutine_threadsafe(self._handle(command), self._loop)
        except RuntimeError:
            return NO_ANSWER
        while True:
            try:
                return future.result(0.5)
            except concurrent.futures.TimeoutError:
                if self._stop.is_set():
                    return NO_ANSWER

    def _find(self, name: str) -> CommandInfo:
        for commands in (INSPECT, CHANGE, REVOKE, own_commands()):
            if name in commands:
                return commands[name]
        raise KeyError(name)

    async def _handle(self, command: Command) -> Any:
        """In the loop: the value of the answer."""
        try:
            value = self._find(command.method).handler(self.state, **command.arguments)
            return await value if inspect.isawaitable(value) else value
        except Exception as exc:  # a command of the user's, or arguments that make no sense
            logger.warning("control command %s failed: %r", command.method, exc)
            return {"error": repr(exc)}

    def _answer(self, command: Command, value: Any) -> None:
        answer = Answer(node=self._supervisor.node, value=value, ticket=command.ticket, clock=self.clock.forward())
        try:
            message = encode_answer(answer, self._serializer)
        except CeleriacError as exc:
            failed = Answer(node=answer.node, value={"error": repr(exc)}, ticket=command.ticket, clock=answer.clock)
            message = encode_answer(failed, self._serializer)
        self._transport.post(message, command.reply_exchange, command.reply_key)
