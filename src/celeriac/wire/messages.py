"""Task messages in Celery's formats: protocol 2 (metadata in headers) and protocol 1 (everything in the body).

The client and the runner build messages with `encode_call`. What is written is what a stock Celery client would write,
byte by byte, so that mixed fleets work; a client never sends one of the messages that stop a stock worker. Reading
bodies is in `wire/bodies.py`, reading moments and limits out of headers in `wire/moments.py`; both are offered here too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

import msgspec

from celeriac import codec, compression
from celeriac.errors import EncodeError, MessageTooLarge
from celeriac.message import Message
from celeriac.safe_repr import MAX_LENGTH, saferepr
from celeriac.wire.bodies import TaskBody, decode_body, protocol1_headers
from celeriac.wire.moments import epoch, parse_moment, timelimits

__all__ = [
    "TaskBody", "TaskCall", "decode_body", "encode_call", "expiration_ms", "parse_moment", "protocol1_headers",
    "timelimits",
]  # fmt: skip

logger = logging.getLogger(__name__)

#: RabbitMQ closes the channel on a longer expiration (milliseconds, 49.7 days). The header `expires` holds anyway.
_MAX_EXPIRATION = 2**32 - 1

#: Types whose `repr` is short and can't run foreign code.
_FLAT = frozenset({int, float, bool, type(None), str})
#: Flat arguments of at most this many items of at most this many characters fit into the length that `saferepr` allows.
_FEW, _SHORT = 12, 60


class TaskCall(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one call that is to be sent.

    Attributes:
        countdown: Seconds from now until it may run; wins over `eta`.
        eta: Moment from which it may run. A naive datetime is in the app's time zone.
        expires: Seconds from now, or moment, after which it is not to be run.
        callbacks, errbacks: Signatures (dicts) for success and for failure.
        chain: Signatures that follow, last to first.
        chord: Signature of the chord's body.
        headers: The caller's own, laid over the protocol's.
        properties: Further message properties, passed on as they are.
    """

    task: str
    id: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}
    queue: str = ""
    exchange: str = ""
    routing_key: str = ""
    priority: int | None = None
    serializer: str = "json"
    compression: str | None = None
    countdown: float | None = None
    eta: datetime | str | None = None
    expires: float | datetime | str | None = None
    retries: int = 0
    time_limit: float | None = None
    soft_time_limit: float | None = None
    callbacks: list[Any] | None = None
    errbacks: list[Any] | None = None
    chain: list[Any] | None = None
    chord: Any = None
    group_id: str | None = None
    group_index: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    shadow: str | None = None
    reply_to: str | None = None
    origin: str = ""
    ignore_result: bool | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] = {}
    headers: Mapping[str, Any] | None = None
    delivery_mode: int | str | None = None
    properties: dict[str, Any] = {}


def encode_call(
    call: TaskCall, *, now: float, tz: tzinfo = UTC, max_bytes: int | None = None, protocol: int = 2
) -> Message:
    """Build the message of a call.

    Args:
        call: The call.
        now: The present moment, from which `countdown` and `expires` count.
        tz: Time zone of naive moments.
        max_bytes: Largest body allowed, after compression; None for no limit.
        protocol: Celery's task protocol, 2 or 1.

    Raises:
        EncodeError: An argument can't be serialized; the message says where it sits.
        MessageTooLarge: The body is larger than `max_bytes`.
        ValueError: `countdown`, `eta` or `expires` is no moment.
        ImproperlyConfigured: Unknown serializer or compression.
    """
    eta_text = expires_text = eta = expires_at = None
    if call.countdown or call.eta is not None:
        eta_text, eta = _eta(call, now, tz)
    if call.expires is not None:
        expires_text, expires_at = _expires(call, now, tz)
    if protocol == 1:
        headers, content = _protocol1(call, eta_text, expires_text)
    else:
        headers, content = _protocol2(call, eta_text, expires_text)
    if call.headers:
        headers.update(call.headers)
        headers.pop("compression", None)  # copied from an earlier message it would make this body unreadable
    try:
        content_type, content_encoding, body = codec.dumps(content, call.serializer)
    except EncodeError as exc:
        raise _unencodable(call, exc) from exc.__cause__
    if call.compression:
        body, headers["compression"] = compression.compress(body, call.compression)
    if max_bytes is not None and len(body) > max_bytes:
        raise MessageTooLarge(
            f"the arguments of {call.task} take {len(body)} bytes, more than the {max_bytes} allowed by"
            " message_max_bytes; store the data and pass a reference to it"
        )
    return Message(
        id=call.id,
        headers=headers,
        body=body,
        content_type=content_type,
        content_encoding=content_encoding,
        queue=call.queue,
        exchange=call.exchange,
        routing_key=call.routing_key,
        priority=call.priority,
        eta=eta,
        expires_at=expires_at,
        reply_to=call.reply_to or "",
        transient=call.delivery_mode in (1, "1", "transient"),
        properties=call.properties,
    )


def _protocol2(call: TaskCall, eta: str | None, expires: str | None) -> tuple[dict[str, Any], Any]:
    headers = {
        "lang": "py",
        "task": call.task,
        "id": call.id,
        "shadow": call.shadow,
        "eta": eta,
        "expires": expires,
        "group": call.group_id,
        "group_index": call.group_index,
        "retries": call.retries,
        "timelimit": [call.time_limit, call.soft_time_limit],
        "root_id": call.root_id or call.id,
        "parent_id": call.parent_id,
        "argsrepr": _text(call.args) if call.argsrepr is None else call.argsrepr,
        "kwargsrepr": _text(call.kwargs) if call.kwargsrepr is None else call.kwargsrepr,
        "origin": call.origin,
        "ignore_result": call.ignore_result,
        "replaced_task_nesting": call.replaced_task_nesting,
        "stamped_headers": call.stamped_headers,
        "stamps": call.stamps,
    }
    embed = {"callbacks": call.callbacks, "errbacks": call.errbacks, "chain": call.chain, "chord": call.chord}
    return headers, (call.args, call.kwargs, embed)


def _text(arguments: Any) -> str:
    """What `saferepr` makes of arguments. Most are few and short, which is seen here at the cost of one call."""
    if type(arguments) not in (tuple, list, dict) or len(arguments) > _FEW:
        return saferepr(arguments)
    items = [*arguments, *arguments.values()] if type(arguments) is dict else arguments
    if not _FLAT.issuperset(map(type, items)):
        return saferepr(arguments)
    for item in items:
        if type(item) is str:
            if len(item) > _SHORT:
                return saferepr(arguments)
        elif type(item) is int and not -(10**18) < item < 10**18:  # a long one takes quadratic time
            return saferepr(arguments)
    text = repr(arguments)
    return text if len(text) <= MAX_LENGTH else saferepr(arguments)


def _protocol1(call: TaskCall, eta: str | None, expires: str | None) -> tuple[dict[str, Any], Any]:
    return {}, {
        "task": call.task,
        "id": call.id,
        "args": call.args,
        "kwargs": call.kwargs,
        "group": call.group_id,
        "group_index": call.group_index,
        "retries": call.retries,
        "eta": eta,
        "expires": expires,
        "utc": True,
        "callbacks": [*(call.callbacks or ()), _chain_as_link(call.chain)] if call.chain else call.callbacks,
        "errbacks": call.errbacks,
        "timelimit": (call.time_limit, call.soft_time_limit),
        "taskset": call.group_id,
        "chord": call.chord,
    }


def _chain_as_link(chain: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Protocol 1 knows no chains: make each task of it a callback of the one before."""
    linked: dict[str, Any] = {}
    for signature in chain:  # from last to first
        options = dict(signature.get("options") or {})
        if linked:
            options["link"] = [*(options.get("link") or ()), linked]
        linked = {**signature, "options": options}
    return linked


def _unencodable(call: TaskCall, error: EncodeError) -> EncodeError:
    parts = {
        "args": call.args,
        "kwargs": call.kwargs,
        "link": call.callbacks,
        "link_error": call.errbacks,
        "chain": call.chain,
        "chord": call.chord,
    }
    named = codec.explain(parts, call.serializer, error.__cause__ or error)
    return EncodeError(f"{call.task}: {named}")


def _eta(call: TaskCall, now: float, tz: tzinfo) -> tuple[str, float]:
    if call.countdown:
        return _after("countdown", call.countdown, now)
    return _moment("eta", call.eta, tz)


def _expires(call: TaskCall, now: float, tz: tzinfo) -> tuple[str, float]:
    if isinstance(call.expires, (datetime, str)):
        text, at = _moment("expires", call.expires, tz)
    else:
        text, at = _after("expires", call.expires, now)
    if at <= now:
        logger.warning("%s[%s] expires at %s, which is over already: it will not be run", call.task, call.id, text)
    return text, at


def _after(option: str, seconds: Any, now: float) -> tuple[str, float]:
    try:
        at = now + seconds
        return datetime.fromtimestamp(at, UTC).isoformat(), at
    except (TypeError, ValueError, OverflowError) as exc:
        raise ValueError(f"{option}={seconds!r} is not a number of seconds from now that ends in a date") from exc


def _moment(option: str, value: Any, tz: tzinfo) -> tuple[str, float]:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return moment.isoformat(), epoch(moment, tz)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ValueError(f"{option}={value!r} is neither a datetime nor a date in ISO 8601") from exc


def expiration_ms(message: Message, now: float) -> str:
    """The property `expiration`: milliseconds left, as text, "0" when it is over; "" for a message that never expires."""
    if message.expires_at is None:
        return ""
    return str(min(max(int((message.expires_at - now) * 1000), 0), _MAX_EXPIRATION))
