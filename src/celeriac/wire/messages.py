"""Task messages in Celery's formats: protocol 2 (metadata in headers) and protocol 1 (everything in the body).

The client and the runner build messages with `encode_call`. What is written is what a stock Celery client would write,
byte by byte, so that mixed fleets work; a client never sends one of the messages that stop a stock worker. Reading
bodies is in `wire/bodies.py`, reading moments and limits out of headers in `wire/moments.py`; both are offered here too.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, cast

import msgspec
from msgspec.structs import replace

from celeriac import codec, compression
from celeriac.errors import EncodeError, MessageTooLarge
from celeriac.message import CommonHeaders, Message, SharedHeaders
from celeriac.safe_repr import MAX_LENGTH, saferepr
from celeriac.wire.bodies import SealedSteps, TaskBody, decode_body, protocol1_headers
from celeriac.wire.moments import epoch, parse_moment, timelimits

__all__ = [
    "CallForm", "TaskBody", "TaskCall", "decode_body", "encode_call", "expiration_ms", "parse_moment", "protocol1_headers",
    "timelimits",
]  # fmt: skip

logger = logging.getLogger(__name__)

#: RabbitMQ closes the channel on a longer expiration (milliseconds, 49.7 days). The header `expires` holds anyway.
_MAX_EXPIRATION = 2**32 - 1

#: Headers in which the messages of one form differ. With a group, so does `group_index`.
_OWN_HEADERS = ("id", "root_id", "argsrepr", "kwargsrepr")
_NO_MOMENT: tuple[None, None] = (None, None)
#: What may stand for delivery mode 1.
_TRANSIENT = (1, "1", "transient")

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
    chain: Sequence[Any] | None = None
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


class CallForm:
    """A call whose id and arguments are still to be filled in. What all its messages have in common is made once.

    Attributes:
        call: The call; its own id, arguments and group index don't matter.
        is_lasting: Whether messages may be made of it at any time: nothing in it counts from the present moment.
        is_shared: Whether there will be many messages, so that it pays for drivers to encode common headers apart.
    """

    __slots__ = (
        "_bare",
        "_common",
        "_embed",
        "_eta",
        "_expires",
        "_max_bytes",
        "_protocol",
        "call",
        "is_lasting",
        "is_shared",
    )

    def __init__(
        self, call: TaskCall, *, now: float, tz: tzinfo = UTC, max_bytes: int | None = None, protocol: int = 2
    ) -> None:
        self.call = call
        self.is_shared = False
        #: What is serialized of a call without arguments.
        self._bare: tuple[str, str, bytes] | None = None
        self.is_lasting = not call.countdown and call.eta is None and call.expires is None
        self._eta = _eta(call, now, tz) if call.countdown or call.eta is not None else _NO_MOMENT
        self._expires = _expires(call, now, tz) if call.expires is not None else _NO_MOMENT
        self._max_bytes = max_bytes
        self._protocol = protocol
        embed = {"callbacks": call.callbacks, "errbacks": call.errbacks, "chain": call.chain, "chord": call.chord}
        self._embed = codec.Constant(embed) if call.chain.__class__ is not SealedSteps else _sealed(embed, call)
        own = _OWN_HEADERS if call.group_index is None else (*_OWN_HEADERS, "group_index")
        headers = _headers(call, self._eta[0], self._expires[0])
        self._common = CommonHeaders(_laid_over(headers, call) if call.headers else headers, own)

    def message(
        self, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any], group_index: int | None = None
    ) -> Message:
        """The message of one such call.

        Raises:
            EncodeError: An argument can't be serialized; the message says where it sits.
            MessageTooLarge: The body is larger than `max_bytes`.
            ImproperlyConfigured: Unknown serializer or compression.
        """
        call = self.call
        headers: dict[str, Any]
        content: Any
        if self._protocol == 1:
            headers, content, last = *self._protocol1(task_id, args, kwargs, group_index), None
        else:
            headers, content, last = self._protocol2(task_id, args, kwargs, group_index), (args, kwargs), self._embed
        is_bare = args == () and not kwargs and last is not None
        try:
            content_type, content_encoding, body = (is_bare and self._bare) or codec.dumps(
                content, call.serializer, last
            )
        except EncodeError as exc:
            raise _unencodable(replace(call, args=args, kwargs=kwargs), exc) from exc.__cause__
        if is_bare and self._embed.json:  # other serializers may sign, or encrypt
            self._bare = content_type, content_encoding, body
        if call.compression:
            body, mime = compression.compress(body, call.compression)
            headers = {**headers, "compression": mime}
        if self._max_bytes is not None and len(body) > self._max_bytes:
            raise MessageTooLarge(
                f"the arguments of {call.task} take {len(body)} bytes, more than the {self._max_bytes} allowed by"
                " message_max_bytes; store the data and pass a reference to it"
            )
        return Message(
            id=task_id,
            headers=headers,
            body=body,
            content_type=content_type,
            content_encoding=content_encoding,
            queue=call.queue,
            exchange=call.exchange,
            routing_key=call.routing_key,
            priority=call.priority,
            eta=self._eta[1],
            # What waits for this task is told of its end by a worker: no broker may drop the message.
            expires_at=None if call.chain or call.chord else self._expires[1],
            reply_to=call.reply_to or "",
            transient=call.delivery_mode in _TRANSIENT,
            properties=call.properties,
        )

    def opened(
        self, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any], group_index: int | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The headers of one such call, and the body of protocol 1; in protocol 2 all but the arguments is in headers."""
        if self._protocol == 1:
            return self._protocol1(task_id, args, kwargs, group_index)
        return self._protocol2(task_id, args, kwargs, group_index), {}

    def _protocol2(
        self, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any], group_index: int | None
    ) -> dict[str, Any]:
        call = self.call
        headers: dict[str, Any]
        if self.is_shared:
            headers = shared = SharedHeaders(self._common.values)
            shared.common = self._common
        else:
            headers = self._common.values.copy()
        headers["id"] = task_id
        headers["root_id"] = call.root_id or task_id
        headers["argsrepr"] = (_text(args) if args else repr(args)) if call.argsrepr is None else call.argsrepr
        headers["kwargsrepr"] = (
            (_text(kwargs) if kwargs else repr(kwargs)) if call.kwargsrepr is None else call.kwargsrepr
        )
        if call.group_index is not None:
            headers["group_index"] = group_index
        if call.headers:
            _laid_over(headers, call)
        return headers

    def _protocol1(
        self, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any], group_index: int | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        call = replace(self.call, id=task_id, args=args, kwargs=kwargs, group_index=group_index)
        return _laid_over({}, call), _protocol1(call, self._eta[0], self._expires[0])


def _sealed(embed: dict[str, Any], call: TaskCall) -> codec.Constant:
    """The third part of the body with the rest of a long chain, which is not opened for it."""
    steps = cast("SealedSteps", call.chain)
    if codec.registry.writes_json(call.serializer):
        with contextlib.suppress(Exception):  # what has no form as JSON is named when the body is made
            texts = {name: steps.json() if name == "chain" else codec.json_dumps(part) for name, part in embed.items()}
            items = ", ".join(f'"{name}": {text}' for name, text in texts.items())
            return codec.Constant(embed, f"{{{items}}}")
    return codec.Constant({**embed, "chain": list(steps)})


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
    form = CallForm(call, now=now, tz=tz, max_bytes=max_bytes, protocol=protocol)
    return form.message(call.id, call.args, call.kwargs, call.group_index)


def _headers(call: TaskCall, eta: str | None, expires: str | None) -> dict[str, Any]:
    """The headers of protocol 2 in the order in which they are sent. Those in `_OWN_HEADERS` are filled in later."""
    return {
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
        "root_id": "",
        "parent_id": call.parent_id,
        "argsrepr": "",
        "kwargsrepr": "",
        "origin": call.origin,
        "ignore_result": call.ignore_result,
        "replaced_task_nesting": call.replaced_task_nesting,
        "stamped_headers": call.stamped_headers,
        "stamps": call.stamps,
    }


def _laid_over(headers: dict[str, Any], call: TaskCall) -> dict[str, Any]:
    """Headers with the caller's own over them."""
    if call.headers:
        headers.update(call.headers)
        headers.pop("compression", None)  # copied from an earlier message it would make this body unreadable
    return headers


def _text(arguments: Any) -> str:
    """What `saferepr` makes of arguments. Most are few and short, which is seen here at the cost of one call."""
    if type(arguments) not in (tuple, list, dict) or len(arguments) > _FEW:
        return saferepr(arguments)
    if not arguments:
        return repr(arguments)
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


def _protocol1(call: TaskCall, eta: str | None, expires: str | None) -> dict[str, Any]:
    return {
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
