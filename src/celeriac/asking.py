"""Sends control commands and collects answers: used by clients (`control`) and by a worker that asks the others as it starts.

Who wants answers opens a box of its own before the command is sent, and closes it in the end, so that no answer is missed and
a late one disturbs nobody.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from celeriac.config import Settings
from celeriac.errors import CeleriacError
from celeriac.log import get_logger
from celeriac.message import ControlMessage
from celeriac.timing import Deadline, LamportClock
from celeriac.transport.base import Box, Mailbox, Transport
from celeriac.wire.control import (
    Answer,
    Command,
    accepted,
    command_exchange,
    decode_answer,
    encode_command,
    reply_exchange,
    serializer_for,
)

__all__ = ["ask", "box_of", "tell"]

logger = get_logger("celeriac.control")


def box_of(conf: Settings, name: str, exchange: str, key: str = "") -> Box:
    """A box with the flags and limits of the settings `control_queue_…`."""
    return Box(
        name=name, exchange=exchange, key=key, ttl=conf.control_queue_ttl, expires=conf.control_queue_expires,
        durable=conf.control_queue_durable, exclusive=conf.control_queue_exclusive,
    )  # fmt: skip


def tell(transport: Transport, conf: Settings, command: Command, timeout: float | None) -> None:
    """Send a command.

    Raises:
        OperationalError: The broker can't be reached.
    """
    expires = time.time() + timeout if timeout else 0
    message = encode_command(command, expires=expires, serializer=serializer_for(conf.task_serializer))
    transport.post(message, command_exchange(conf.control_exchange))


def ask(
    transport: Transport,
    conf: Settings,
    clock: LamportClock,
    command: Command,
    timeout: float | None,
    limit: int | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
) -> list[Answer]:
    """Send a command and collect answers for `timeout` seconds, or until there are `limit`."""
    oid, exchange = str(uuid.uuid4()), reply_exchange(conf.control_exchange)
    mailbox = transport.open_mailbox(box_of(conf, f"{oid}.{exchange}", exchange, oid))
    try:
        asked = msgspec.structs.replace(command, ticket=str(uuid.uuid4()), reply_exchange=exchange, reply_key=oid)
        tell(transport, conf, asked, timeout)
        return _collect(mailbox, accepted(conf.accept_content), clock, asked.ticket, timeout, limit, callback)
    finally:
        mailbox.close()


def _collect(
    mailbox: Mailbox,
    accept: frozenset[str],
    clock: LamportClock,
    ticket: str,
    timeout: float | None,
    limit: int | None,
    callback: Callable[[dict[str, Any]], Any] | None,
) -> list[Answer]:
    answers: list[Answer] = []
    deadline = Deadline(timeout)
    while (limit is None or len(answers) < limit) and not deadline.passed():
        left = deadline.left()
        for message in mailbox.receive(3600.0 if left is None else left):
            for answer in _read(message, accept):
                clock.adjust(answer.clock)
                if answer.ticket == ticket:
                    answers.append(answer)
                    if callback is not None:
                        callback({answer.node: answer.value})
    return answers


def _read(message: ControlMessage, accept: frozenset[str]) -> list[Answer]:
    try:
        return decode_answer(message, accept)
    except CeleriacError as exc:
        logger.warning("answer to a control command dropped: %s", exc)
        return []
