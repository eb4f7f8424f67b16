"""What is written is what a stock Celery client writes."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any

import pytest

from celeriac import codec, compression
from celeriac.errors import EncodeError, ImproperlyConfigured, InvalidTaskError, MessageTooLarge
from celeriac.message import Message
from celeriac.wire.messages import (
    CallForm,
    TaskCall,
    decode_body,
    encode_call,
    expiration_ms,
    parse_moment,
    protocol1_headers,
    timelimits,
)
from tests.support.calls import count_calls
from tests.wire import golden

EVERYTHING = frozenset(codec.registry.name_to_type.values())
NOW = 1_800_000_000.0
T0 = dt.datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
EDT = dt.timezone(dt.timedelta(hours=-4))
LIMIT = 2**20

HEADERS = {
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
    "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps",
}  # fmt: skip


def recorded_calls() -> list[Any]:
    return [
        pytest.param(message, id=f"{name}-{number}")
        for name in golden.names("messages")
        if name != "plain_serializers"  # no tasks
        for number, message in enumerate(golden.messages(name))
    ]


def call_of(message: Message) -> tuple[TaskCall, int]:
    """The call that must have led to a recorded message, and its protocol."""
    body = decode_body(message, EVERYTHING, LIMIT)
    protocol = 2 if message.task else 1
    headers = message.headers if message.task else body.fields
    hard, soft = timelimits(headers)
    serializer = codec.registry.type_to_name[message.content_type]
    embed = body.fields if protocol == 1 else codec.loads(*opened(message))[2]
    call = TaskCall(
        task=headers["task"],
        id=headers["id"],
        # A pickle keeps tuples, and the array in pickled embed is one.
        args=tuple(body.args) if serializer == "pickle" else body.args,
        kwargs=body.kwargs,
        serializer=serializer,
        compression=headers.get("compression"),
        eta=headers["eta"],
        expires=headers["expires"],
        retries=headers["retries"],
        time_limit=hard,
        soft_time_limit=soft,
        callbacks=embed["callbacks"],
        errbacks=embed["errbacks"],
        chain=embed.get("chain"),
        chord=embed["chord"],
        group_id=headers["group"],
        group_index=headers["group_index"],
        root_id=headers.get("root_id"),
        parent_id=headers.get("parent_id"),
        shadow=headers.get("shadow"),
        reply_to=message.reply_to,
        origin=headers.get("origin", ""),
        ignore_result=headers.get("ignore_result"),
        argsrepr=headers.get("argsrepr"),
        kwargsrepr=headers.get("kwargsrepr"),
        stamped_headers=headers.get("stamped_headers"),
        stamps=headers.get("stamps", {}),
        headers={key: value for key, value in message.headers.items() if key not in HEADERS | {"compression"}},
        delivery_mode=1 if message.transient else 2,
        priority=message.priority,
    )
    return call, protocol


def opened(message: Message) -> tuple[bytes, str, str, frozenset[str]]:
    method = message.headers.get("compression")
    body = compression.decompress(message.body, method, LIMIT) if method else message.body
    return body, message.content_type, message.content_encoding, EVERYTHING


def skip_without_zstd() -> None:
    try:
        compression.compress(b"", "zstd")
    except ImproperlyConfigured as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize("recorded", recorded_calls())
def test_a_call_is_written_as_celery_writes_it(recorded: Message) -> None:
    if recorded.headers.get("compression") == "application/zstd":
        skip_without_zstd()
    call, protocol = call_of(recorded)

    written = encode_call(call, now=NOW, protocol=protocol)

    assert opened(written)[0] == opened(recorded)[0]
    assert written.headers == recorded.headers
    assert list(written.headers)[: len(HEADERS)] == list(recorded.headers)[: len(HEADERS)]
    assert (written.content_type, written.content_encoding) == (recorded.content_type, recorded.content_encoding)
    assert (written.id, written.reply_to, written.transient) == (recorded.id, recorded.reply_to, recorded.transient)


ORIGINALS: dict[str, tuple[Any, dict[str, Any]]] = {
    "delay_noargs": ((), {}),
    "delay_args": ((2, 3), {}),
    "delay_kwargs": ((), {"x": 2, "y": 3}),
    "delay_args_kwargs": ((1, "two", [3.0, None, True]), {"key": {"a": [1]}}),
    "delay_unicode": (("naïve ☃ 😀",), {}),
    "send_task": (["a"], {"b": 1}),
    "serializer_json_tuple_set": (((1, 2), [3], {"k": (4,)}), {}),
    "serializer_json_intkeys": (({1: "a", None: "b", True: "c", 1.5: "d"},), {}),  # noqa: F601 -- one key, as recorded
    "serializer_json_nan": ((float("nan"), float("inf")), {}),
    "serializer_pickle": ((1, "two", {3}), {"k": dt.date(2026, 1, 2)}),
    "serializer_yaml": ((1, "two", [3.5]), {"k": None}),
    "serializer_msgpack": ((1, "two", b"bin", [3.5]), {"k": None}),
    "argsrepr_deep": (([[[[[[1]]]]]], {"a": {"b": {"c": {"d": 1}}}}), {}),
    "argsrepr_long": (("x" * 3000, list(range(2000))), {}),
    "compress_gzip": (("z" * 200,), {}),
}


@pytest.mark.parametrize("name", ORIGINALS)
def test_arguments_and_their_reprs_are_celerys(name: str) -> None:
    args, kwargs = ORIGINALS[name]
    recorded = golden.messages(name)[0]
    headers = recorded.headers
    call = TaskCall(
        task=headers["task"],
        id=headers["id"],
        args=args,
        kwargs=kwargs,
        serializer=codec.registry.type_to_name[recorded.content_type],
        compression="zlib" if "compression" in headers else None,
        origin=headers["origin"],
        ignore_result=headers["ignore_result"],
    )

    written = encode_call(call, now=NOW)

    assert written.headers == headers
    assert opened(written)[0] == opened(recorded)[0]


def encode(**fields: Any) -> Message:
    return encode_call(TaskCall(task="t", id="1", **fields), now=NOW)


class TestMoments:
    def test_countdown_becomes_an_aware_eta_in_utc(self) -> None:
        message = encode(countdown=1.5)
        assert message.eta == NOW + 1.5
        assert message.headers["eta"] == "2027-01-15T08:00:01.500000+00:00"

    def test_no_countdown_means_no_eta(self) -> None:
        assert encode(countdown=0).headers["eta"] is None

    def test_countdown_wins_over_eta(self) -> None:
        assert encode(countdown=5, eta=T0).eta == NOW + 5

    def test_aware_eta_keeps_its_offset(self) -> None:
        message = encode(eta=T0.astimezone(EDT))
        assert message.headers["eta"] == "2030-01-01T23:04:05.678901-04:00"
        assert message.eta == T0.timestamp()

    def test_naive_eta_is_sent_without_offset_and_meant_in_the_apps_zone(self) -> None:
        call = TaskCall(task="t", id="1", eta=dt.datetime(2030, 1, 2, 3, 4, 5))
        message = encode_call(call, now=NOW, tz=EDT)
        assert message.headers["eta"] == "2030-01-02T03:04:05"
        assert message.eta == dt.datetime(2030, 1, 2, 7, 4, 5, tzinfo=dt.UTC).timestamp()

    def test_text_is_taken_as_iso_8601(self) -> None:
        message = encode(eta="2030-01-02T03:04:05Z", expires="20300103")
        assert message.headers["eta"] == "2030-01-02T03:04:05+00:00"
        assert message.headers["expires"] == "2030-01-03T00:00:00"

    def test_expires_in_seconds_counts_from_now(self) -> None:
        message = encode(expires=30.25)
        assert message.expires_at == NOW + 30.25
        assert message.headers["expires"] == "2027-01-15T08:00:30.250000+00:00"

    @pytest.mark.parametrize("expires", [-1, 0, dt.datetime(2020, 1, 1, tzinfo=dt.UTC)])
    def test_past_expiry_is_sent_with_a_warning(self, expires: Any, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "celeriac"):
            message = encode(expires=expires)
        assert message.expires_at is not None
        assert message.expires_at <= NOW
        assert "t[1] expires at" in caplog.text

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("countdown", "soon"),
            ("countdown", float("nan")),
            ("countdown", 1e300),
            ("countdown", dt.timedelta(1)),
            ("eta", "soon"),
            ("eta", 5),
            ("expires", "never"),
            ("expires", [1]),
        ],
    )
    def test_what_is_no_moment_is_named(self, field: str, value: Any) -> None:
        with pytest.raises(ValueError, match=rf"^{field}=.*$") as caught:
            encode(**{field: value})
        assert repr(value) in str(caught.value)

    @pytest.mark.parametrize(("left", "text"), [(None, ""), (30.25, "30250"), (-5, "0"), (10**9, "4294967295")])
    def test_expiration_is_whole_milliseconds_that_rabbitmq_takes(self, left: float | None, text: str) -> None:
        message = Message(id="1", headers={}, body=b"", expires_at=None if left is None else NOW + left)
        assert expiration_ms(message, NOW) == text


class TestErrors:
    def test_a_bad_argument_is_named_with_its_place(self) -> None:
        with pytest.raises(EncodeError) as caught:
            encode(args=(1, {"when": {3}}))
        assert str(caught.value) == "t: args[1]['when'] of type set can't be serialized as json: pass a list"

    def test_a_bad_keyword_argument_is_named_with_its_place(self) -> None:
        with pytest.raises(EncodeError, match=r"^t: kwargs\['x'\]\[0\] of type object can't be serialized as json"):
            encode(kwargs={"x": [object()]})

    def test_a_bad_callback_is_named_with_its_place(self) -> None:
        with pytest.raises(EncodeError, match=r"^t: link\[0\]\['args'\]\[0\] of type complex"):
            encode(callbacks=[{"task": "u", "args": [1j]}])

    def test_a_body_above_the_limit_names_both_sizes(self) -> None:
        call = TaskCall(task="t", id="1", args=("x" * 100,))
        size = len(encode_call(call, now=NOW).body)
        assert encode_call(call, now=NOW, max_bytes=size).body
        with pytest.raises(MessageTooLarge, match=rf"of t take {size} bytes, more than the {size - 1} allowed"):
            encode_call(call, now=NOW, max_bytes=size - 1)

    def test_the_limit_is_on_what_travels(self) -> None:
        call = TaskCall(task="t", id="1", args=("x" * 10000,), compression="zlib")
        assert encode_call(call, now=NOW, max_bytes=500).headers["compression"] == "application/x-gzip"

    def test_unknown_serializer_and_compression_suggest_a_known_one(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="unknown serializer 'jsn'.*Did you mean 'json'"):
            encode(serializer="jsn")
        with pytest.raises(ImproperlyConfigured, match="unknown compression 'gzp'.*Did you mean 'gzip'"):
            encode(compression="gzp")


class TestHeaders:
    def test_own_headers_lie_on_top(self) -> None:
        headers = encode(headers={"x-trace": "abc", "shadow": "s"}).headers
        assert headers["x-trace"] == "abc"
        assert headers["shadow"] == "s"

    def test_a_compression_header_of_an_earlier_message_is_not_kept(self) -> None:
        message = encode(headers={"compression": "application/x-gzip"}, args=(1,))
        assert decode_body(message, None, LIMIT).args == [1]

    def test_root_id_defaults_to_the_own_id(self) -> None:
        assert encode().headers["root_id"] == "1"

    def test_what_it_is_routed_by_is_kept(self) -> None:
        message = encode(queue="q", exchange="x", routing_key="k", priority=3, reply_to="r", properties={"a": 1})
        assert (message.queue, message.exchange, message.routing_key) == ("q", "x", "k")
        assert (message.priority, message.reply_to, message.properties) == (3, "r", {"a": 1})
        assert not message.transient
        assert encode(delivery_mode=1).transient

    def test_a_plain_call_takes_few_python_calls(self) -> None:
        form = CallForm(TaskCall(task="t", id="1", queue="celery"), now=NOW, max_bytes=1000)
        form.message("1", (2, 3), {"x": 1})
        counted = count_calls(lambda: form.message("1", (2, 3), {"x": 1}))
        assert counted.package_calls <= 6, counted.listing
        assert counted.calls <= 8, counted.listing


class TestProtocol1:
    def test_a_chain_becomes_nested_links(self) -> None:
        chain = [{"task": "c", "options": {}}, {"task": "b", "options": {"link": [{"task": "log"}]}}]
        message = encode_call(TaskCall(task="a", id="1", chain=chain), now=NOW, protocol=1)
        (second,) = decode_body(message, None, LIMIT).callbacks or []
        assert second["task"] == "b"
        assert [signature["task"] for signature in second["options"]["link"]] == ["log", "c"]
        assert chain[1]["options"] == {"link": [{"task": "log"}]}, "the caller's signatures are left alone"

    def test_fields_become_the_headers_of_protocol_2(self) -> None:
        message = golden.messages("proto1_full")[0]
        headers = protocol1_headers(decode_body(message, None, LIMIT))
        assert headers.keys() == HEADERS
        assert headers["task"] == "wire.add"
        assert headers["root_id"] == headers["id"] == message.id
        assert headers["eta"] == "2030-01-02T03:04:05.678901+00:00"
        assert headers["timelimit"] == [9, 8]
        assert headers["argsrepr"] == "[2, 3]"
        assert headers["retries"] == 0

    def test_taskset_is_the_group(self) -> None:
        message = golden.messages("proto1_chord")[0]
        body = decode_body(message, None, LIMIT)
        assert protocol1_headers(body)["group"] == body.fields["taskset"]
        assert body.chord is not None

    @pytest.mark.parametrize(("utc", "eta"), [(True, "2020-01-01T00:00:00+00:00"), (False, "2020-01-01T00:00:00")])
    def test_a_naive_eta_is_utc_only_if_the_body_says_so(self, utc: bool, eta: str) -> None:
        body = codec.dumps({"task": "t", "id": "1", "eta": "2020-01-01T00:00:00", "utc": utc})[2]
        opened_body = decode_body(Message(id="1", headers={}, body=body), None, LIMIT)
        assert protocol1_headers(opened_body)["eta"] == eta


class TestReadingHeaders:
    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            (None, None),
            ("", None),
            ("1970-01-01T00:00:10Z", 10.0),
            ("1970-01-01T00:00:10+00:00", 10.0),
            ("1970-01-01T05:30:10.5+05:30", 10.5),
            ("1969-12-31T20:00:10", 10.0),
            ("0001-01-01T00:00:00+23:59", -62135683140.0),
        ],
    )
    def test_moments(self, text: str | None, moment: float | None) -> None:
        assert parse_moment(text, EDT) == moment

    @pytest.mark.parametrize("text", ["soon", "2020-13-01", 5, [], {}, "2020-01-01T00:00:00+99:00", "\0"])
    def test_what_is_no_date_is_an_invalid_task(self, text: Any) -> None:
        with pytest.raises(InvalidTaskError, match="is not a date in ISO 8601$"):
            parse_moment(text, dt.UTC)

    @pytest.mark.parametrize(
        ("value", "limits"),
        [
            ([30, 20.5], (30, 20.5)),
            ((None, 20), (None, 20)),
            (None, (None, None)),
            ([5], (None, None)),
            ([1, 2, 3], (None, None)),
            ("ab", (None, None)),
            ({}, (None, None)),
            (["5", True], (None, None)),
            ([-1, 0], (None, None)),
            ([float("nan"), float("inf")], (None, None)),
            ([10**400, 1], (None, 1)),
        ],
    )
    def test_time_limits(self, value: Any, limits: Any) -> None:
        assert timelimits({"timelimit": value}) == limits
        assert timelimits({}) == (None, None)
