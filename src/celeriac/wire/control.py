"""Remote control on the wire: commands to workers and their answers, as stock Celery's mailboxes send them.

The client (`control`) encodes commands and decodes answers; the worker (`worker.control`) does the reverse. Nothing that comes
from the network is trusted: what has not the form of a command is a DecodeError that says why.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from celeriac import codec
from celeriac.errors import DecodeError
from celeriac.message import ControlMessage

__all__ = [
    "Answer", "Command", "accepted", "command_exchange", "concerns", "decode_answer", "decode_command", "encode_answer",
    "encode_command", "pattern_problem", "reply_exchange", "serializer_for",
]  # fmt: skip

#: Characters of a pattern, and repetitions and choices in a regular expression: it can be made to take for ever.
MAX_PATTERN, MAX_REPEATS = 200, 4
_REPEAT = re.compile(r"[*+?{|]")
_REPEATED_GROUP = re.compile(r"\)[*+?{]")
#: What makes blanks and comments possible, which would hide that a group is repeated.
_VERBOSE = re.compile(r"\(\?(#|[a-zA-Z]*x)")


def command_exchange(namespace: str) -> str:
    """Where commands are told to all workers."""
    return f"{namespace}.pidbox"


def reply_exchange(namespace: str) -> str:
    """Where answers are sent by key."""
    return f"reply.{namespace}.pidbox"


def accepted(names: Sequence[str]) -> frozenset[str]:
    """The content types for the setting `accept_content`."""
    return codec.accept_types(names)


def serializer_for(task_serializer: str) -> str:
    """How commands and answers are written: as tasks are, unless that could not be read by a worker, which opens no pickle."""
    return task_serializer if task_serializer in ("json", "yaml", "msgpack", "auth") else "json"


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command to workers.

    Attributes:
        destination: Node names; None or [] for all, or those that match.
        pattern, matcher: A "glob" or "pcre" pattern of node names.
        ticket: Identifies the answers; "" if none are wanted.
        reply_exchange, reply_key: Where answers go.
        clock: The sender's logical clock.
    """

    method: str
    arguments: dict[str, Any] = {}
    destination: Sequence[str] | None = None
    pattern: str | None = None
    matcher: str | None = None
    ticket: str = ""
    reply_exchange: str = ""
    reply_key: str = ""
    clock: int = 0

    @property
    def wants_answer(self) -> bool:
        """Whether anybody waits for an answer."""
        return bool(self.reply_exchange and self.reply_key)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What one node said."""

    node: str
    value: Any
    ticket: str = ""
    clock: int = 0


def encode_command(command: Command, *, expires: float = 0, serializer: str = "json") -> ControlMessage:
    """The message of a command."""
    body: dict[str, Any] = {
        "method": command.method,
        "arguments": command.arguments,
        "destination": None if command.destination is None else list(command.destination),
        "pattern": command.pattern,
        "matcher": command.matcher,
    }
    if command.wants_answer:
        reply_to = {"exchange": command.reply_exchange, "routing_key": command.reply_key}
        body.update(ticket=command.ticket, reply_to=reply_to)
    return _message(body, {"clock": command.clock, "expires": expires}, serializer)


def encode_answer(answer: Answer, serializer: str = "json") -> ControlMessage:
    """The message of an answer.

    Raises:
        EncodeError: The value is no plain data.
    """
    return _message({answer.node: answer.value}, {"ticket": answer.ticket, "clock": answer.clock}, serializer)


def _message(body: Any, headers: dict[str, Any], serializer: str) -> ControlMessage:
    content_type, encoding, data = codec.dumps(body, serializer)
    return ControlMessage(body=data, headers=headers, content_type=content_type, content_encoding=encoding)


def decode_command(message: ControlMessage, accept: frozenset[str]) -> Command:
    """The command in a message.

    Raises:
        DecodeError: It is none, or its content type is not accepted.
    """
    body = _decoded(message, accept)
    method, arguments = body.get("method"), body.get("arguments")
    if not isinstance(method, str) or not method:
        raise DecodeError(f"a control message without method: {method!r}")
    if arguments is not None and not _is_table(arguments):
        raise DecodeError(f"arguments of the control command {method!r} are no object with names")
    destination = body.get("destination")
    if destination is not None and not _are_texts(destination):
        raise DecodeError(f"the destination of the control command {method!r} is no list of node names")
    reply = body.get("reply_to")
    reply = reply if isinstance(reply, Mapping) else {}
    return Command(
        method=method, arguments=dict(arguments or {}), destination=destination, pattern=_text(body.get("pattern")),
        matcher=_text(body.get("matcher")), ticket=_text(body.get("ticket")) or "",
        reply_exchange=_text(reply.get("exchange")) or "", reply_key=_text(reply.get("routing_key")) or "",
        clock=_clock(message),
    )  # fmt: skip


def decode_answer(message: ControlMessage, accept: frozenset[str]) -> list[Answer]:
    """What a message answers; usually one node.

    Raises:
        DecodeError: It is no answer.
    """
    ticket = _text(message.headers.get("ticket")) or ""
    body = _decoded(message, accept)
    return [
        Answer(node=node, value=value, ticket=ticket, clock=_clock(message))
        for node, value in body.items()
        if isinstance(node, str)
    ]


def _decoded(message: ControlMessage, accept: frozenset[str]) -> dict[str, Any]:
    if "pickle" in message.content_type or "python-serialize" in message.content_type:
        raise DecodeError("a control message in pickle is not opened")
    body = codec.loads(message.body, message.content_type, message.content_encoding, accept)
    if not isinstance(body, dict):
        raise DecodeError(f"a control message is an object, not {type(body).__name__}")
    return body


def _clock(message: ControlMessage) -> int:
    clock = message.headers.get("clock")
    return clock if isinstance(clock, int) and 0 <= clock < 1 << 62 else 0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def concerns(command: Command, node: str) -> bool:
    """Whether a command is for this node."""
    if command.destination:
        return node in command.destination
    if command.pattern and command.matcher:
        if pattern_problem(command.pattern, command.matcher):
            return False
        if command.matcher == "glob":
            return fnmatch.fnmatchcase(node, command.pattern)
        return re.match(command.pattern, node) is not None
    return True


def pattern_problem(pattern: str, matcher: str) -> str:
    """Why no node's name is compared with this pattern; "" if nothing is wrong with it."""
    if matcher not in ("glob", "pcre"):
        return f"matcher is 'glob' or 'pcre', not {matcher!r}"
    if len(pattern) > MAX_PATTERN:
        return f"a pattern of {len(pattern)} characters is too long; {MAX_PATTERN} are allowed"
    if matcher == "glob":
        return ""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as exc:
        return f"{pattern!r} is no regular expression: {exc}"
    bare = re.sub(r"\\.", "", pattern, flags=re.DOTALL)
    repeats = _REPEAT.findall(bare.replace("(?", "("))
    if len(repeats) > MAX_REPEATS or _REPEATED_GROUP.search(bare) or _VERBOSE.search(bare):
        return (
            f"{pattern!r} could take for ever: at most {MAX_REPEATS} of * + ? {{ | are allowed, and none behind a group"
        )
    return ""
