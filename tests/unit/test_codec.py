"""Serializers: byte-equal to Celery's, strict when writing, unshakeable when reading."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import math
import uuid
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac import codec
from celeriac.errors import ContentDisallowed, DecodeError, EncodeError, ImproperlyConfigured
from tests.support.calls import count_calls

TYPES = {
    "json": "application/json",
    "pickle": "application/x-python-serialize",
    "yaml": "application/x-yaml",
    "msgpack": "application/x-msgpack",
    "text": "text/plain",
    "raw": "application/data",
}
EVERYTHING = frozenset(TYPES.values())
STRUCTURED = ["json", "pickle", "yaml", "msgpack"]


def round_trip(value: Any, serializer: str) -> Any:
    content_type, content_encoding, body = codec.dumps(value, serializer)
    return codec.loads(body, content_type, content_encoding, EVERYTHING)


class WithForm:
    def __json__(self) -> Any:
        return {"form": [1, (2,)]}


class RaisingForm:
    def __json__(self) -> Any:
        raise ZeroDivisionError


@dataclasses.dataclass
class Point:
    x: int = 1


class Model(pydantic.BaseModel):
    x: int = 1


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    pass


class Table(dict[str, Any]):
    pass


class TestFormats:
    @pytest.mark.parametrize(
        ("serializer", "value", "encoding", "body"),
        [
            ("json", {"a": 1}, "utf-8", b'{"a": 1}'),
            ("yaml", {"a": 1}, "utf-8", b"a: 1\n"),
            ("msgpack", {"a": 1}, "binary", b"\x81\xa1a\x01"),
            ("pickle", {"a": 1}, "binary", b"\x80\x04\x95\n\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s."),
            ("raw", b"\x00\xffbytes", "binary", b"\x00\xffbytes"),
            ("raw", "text é", "utf-8", "text é".encode()),
            ("text", "a str", "utf-8", b"a str"),
        ],
    )
    def test_as_kombu_publishes(self, serializer: str, value: Any, encoding: str, body: bytes) -> None:
        assert codec.dumps(value, serializer) == (TYPES[serializer], encoding, body)
        assert codec.loads(body, TYPES[serializer], encoding, EVERYTHING) == value

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (
                dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
                '{"__type__": "datetime", "__value__": "2026-01-02T03:04:05.000006+00:00"}',
            ),
            (dt.datetime(2026, 1, 2, 3, 4, 5), '{"__type__": "datetime", "__value__": "2026-01-02T03:04:05"}'),
            (dt.date(2026, 1, 2), '{"__type__": "date", "__value__": "2026-01-02"}'),
            (dt.time(3, 4, 5, 600000), '{"__type__": "time", "__value__": "03:04:05.600000"}'),
            (decimal.Decimal("1.50"), '{"__type__": "decimal", "__value__": "1.50"}'),
            (uuid.UUID(int=5), '{"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000005"}}'),
            (b"text", '{"__type__": "bytes", "__value__": "text"}'),
            (b"\xff\x00", '{"__type__": "base64", "__value__": "/wA="}'),
        ],
        ids=repr,
    )
    def test_typed_values_of_json(self, value: Any, text: str) -> None:
        assert codec.dumps(value)[2].decode() == text
        back = round_trip([value], "json")[0]
        assert (type(back), back) == (type(value), value)

    def test_json_text_is_ascii_and_spaced(self) -> None:
        assert codec.dumps({"é": [1, (2,)], 1: "a", None: 1.5})[2] == rb'{"\u00e9": [1, [2]], "1": "a", "null": 1.5}'

    @pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack"])
    def test_an_object_with_a_form_is_replaced_by_it(self, serializer: str) -> None:
        assert round_trip([WithForm()], serializer) == [{"form": [1, [2]]}]

    @pytest.mark.parametrize("serializer", STRUCTURED)
    def test_subclasses_of_plain_types(self, serializer: str) -> None:
        assert round_trip([Table(a=1)], serializer) == [{"a": 1}]
        if serializer in ("json", "msgpack"):
            assert round_trip([Text("t"), Level.HIGH], serializer) == ["t", 3]

    def test_msgpack_keeps_text_and_bytes_apart(self) -> None:
        assert round_trip(["a", b"a"], "msgpack") == ["a", b"a"]

    def test_big_integers_stay_exact(self) -> None:
        assert round_trip(2**70, "json") == 2**70

    def test_a_small_list_takes_few_python_calls(self) -> None:
        codec.dumps([1, 2])
        counted = count_calls(lambda: codec.dumps([1, 2]))
        assert counted.calls <= 4, counted.listing


class TestWriting:
    @pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack"])
    @pytest.mark.parametrize("value", [Point(), Model(), Color.RED, object(), 1j, dt.timedelta(1)], ids=repr)
    def test_what_has_no_form_is_refused_and_not_changed(self, serializer: str, value: Any) -> None:
        with pytest.raises(EncodeError, match=rf"^value\['a'\]\[1\] of type .* can't be serialized as {serializer}: "):
            codec.dumps({"a": [1, value]}, serializer)

    @pytest.mark.parametrize("value", [{1}, uuid.UUID(int=5), decimal.Decimal(1), dt.date(2026, 1, 2)], ids=repr)
    def test_msgpack_refuses_what_its_readers_would_get_as_something_else(self, value: Any) -> None:
        with pytest.raises(EncodeError, match=r"^value\[0\] of type "):
            codec.dumps([value], "msgpack")

    def test_advice(self) -> None:
        with pytest.raises(EncodeError, match=r"value\[0\] of type set .*: pass a list$"):
            codec.dumps([{1}])
        with pytest.raises(
            EncodeError, match=r"Model can't be serialized as json: pass its model_dump\(mode='json'\)$"
        ):
            codec.dumps(Model())
        with pytest.raises(EncodeError, match=r"pass plain data, or give its class a __json__\(\) method$"):
            codec.dumps(Point())

    def test_bad_keys_are_named(self) -> None:
        with pytest.raises(EncodeError, match=r"^a key of type tuple in value\[0\] can't be serialized as json$"):
            codec.dumps([{(1, 2): 3}])

    def test_the_value_is_not_shown(self) -> None:
        class Secret:
            def __repr__(self) -> str:
                return "hunter2"

        for serializer in ("json", "yaml", "msgpack"):
            with pytest.raises(EncodeError) as caught:
                codec.dumps([Secret()], serializer)
            assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack"])
    def test_loops(self, serializer: str) -> None:
        loop: list[Any] = [1]
        loop.append({"again": loop})
        with pytest.raises(EncodeError, match="contains itself"):
            codec.dumps(loop, serializer)

    @pytest.mark.parametrize("serializer", STRUCTURED)
    def test_deep_nesting(self, serializer: str) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(EncodeError, match="^value can't be serialized as .*nested too deeply"):
            codec.dumps(deep, serializer)

    def test_a_form_that_raises(self) -> None:
        with pytest.raises(EncodeError, match=r"^value\[0\] of type .*RaisingForm"):
            codec.dumps([RaisingForm()])

    def test_what_pickle_cannot_find_again(self) -> None:
        with pytest.raises(
            EncodeError, match=r"^value\['f'\] of type function can't be serialized as pickle: .*lambda"
        ):
            codec.dumps({"f": lambda: 1}, "pickle")

    def test_numbers_beyond_a_format(self) -> None:
        with pytest.raises(EncodeError, match=r"^value\[0\] of type int .*as msgpack"):
            codec.dumps([2**70], "msgpack")
        with pytest.raises(EncodeError, match=r"^value\[0\] of type int .*as json"):
            codec.dumps([10**5000])

    def test_raw_and_text_take_nothing_else(self) -> None:
        for serializer in ("raw", "text"):
            with pytest.raises(EncodeError, match="of type dict"):
                codec.dumps({}, serializer)

    def test_unknown_serializer(self) -> None:
        with pytest.raises(
            ImproperlyConfigured, match=r"unknown serializer 'jason'; known are .*Did you mean 'json'\?"
        ):
            codec.dumps(1, "jason")


class TestReading:
    @pytest.mark.parametrize(
        ("body", "value"),
        [
            (b"[Infinity, -Infinity]", [math.inf, -math.inf]),
            (b"\xef\xbb\xbf[1]", [1]),
            ("[1]".encode("utf-16"), [1]),
            (b'"\\ud800"', "\ud800"),
            (b"1e400", math.inf),
            (b'{"a": 1, "a": 2}', {"a": 2}),
            (rb'{"\u005f_type__": "date", "__value__": "2026-01-02"}', dt.date(2026, 1, 2)),
            (b'{"__type__": "date"}', {"__type__": "date"}),
            (b'{"__type__": "date", "__value__": 1, "x": 2}', {"__type__": "date", "__value__": 1, "x": 2}),
        ],
    )
    def test_json_that_peers_may_send(self, body: bytes, value: Any) -> None:
        assert codec.loads(body, "application/json") == value

    def test_nan(self) -> None:
        assert math.isnan(codec.loads(b"NaN", "application/json"))

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{nope",
            b"\xff",
            b"[1] x",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"[" * 500 + b'{"__type__": "date", "__value__": ' * 100_000,
            b"1" * 100_000,
            b'{"__type__": "planet", "__value__": 1}',
            b'{"__type__": ["date"], "__value__": 1}',
            b'{"__type__": "date", "__value__": 1}',
            b'{"__type__": "uuid", "__value__": "x"}',
            b'{"__type__": "base64", "__value__": "\xc3\xa9"}',
            b'{"__type__": "decimal", "__value__": "x"}',
        ],
    )
    def test_json_that_is_none(self, body: bytes) -> None:
        with pytest.raises(DecodeError) as caught:
            codec.loads(body, "application/json")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "body",
        [
            b"[" * 100_000,
            b"- " * 10_000 + b"1",
            b"&a [*a]",
            b"*nowhere",
            b"a: &a {k: 1}\nb: {<<: *a}",
            b"!!python/object/apply:os.system ['true']",
            b"{[1]: 2}",
            b"a: 1\n---\nb: 2",
            b"\x00",
            b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 10)),
        ],
        ids=range(10),
    )
    def test_yaml_that_is_dangerous_or_none(self, body: bytes) -> None:
        with pytest.raises(DecodeError):
            codec.loads(body, TYPES["yaml"], accept=EVERYTHING)

    def test_yaml_aliases_as_stock_writes_them(self) -> None:
        assert codec.loads(b"- &id001 [1]\n- *id001\n", TYPES["yaml"], accept=EVERYTHING) == [[1], [1]]

    @pytest.mark.parametrize(
        "body", [b"", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc1", b"\x01\x01", b"\xa1\xff"]
    )
    def test_msgpack_that_is_none(self, body: bytes) -> None:
        with pytest.raises(DecodeError):
            codec.loads(body, TYPES["msgpack"], accept=EVERYTHING)

    @pytest.mark.parametrize("body", [b"", b"\x80\x04", b"cnowhere\nnothing\n.", b"cbuiltins\nint\n(S'x'\ntR."])
    def test_pickles_that_fail(self, body: bytes) -> None:
        with pytest.raises(DecodeError):
            codec.loads(body, TYPES["pickle"], accept=EVERYTHING)

    @pytest.mark.parametrize(
        ("content_type", "encoding", "value"),
        [
            ("application/data", "binary", b"caf\xc3\xa9"),
            ("application/data", "utf-8", "café"),
            ("application/text", "utf-8", "café"),
            ("application/data", "", b"caf\xc3\xa9"),
            ("application/data", "idna", b"caf\xc3\xa9"),
        ],
    )
    def test_text_and_bytes_pass_unlisted(self, content_type: str, encoding: str, value: Any) -> None:
        assert codec.loads(b"caf\xc3\xa9", content_type, encoding, frozenset()) == value

    def test_text_in_the_wrong_charset(self) -> None:
        with pytest.raises(DecodeError, match="not utf-8 text"):
            codec.loads(b"\xff", "application/data", "utf-8", frozenset())


class TestAccepting:
    def test_only_what_is_listed(self) -> None:
        with pytest.raises(ContentDisallowed, match="'application/x-yaml' is not accepted, only application/json"):
            codec.loads(b"1", TYPES["yaml"], "utf-8", codec.accept_types(["json"]))

    @pytest.mark.parametrize("serializer", ["pickle", "yaml", "msgpack"])
    def test_insecure_ones_are_off_where_nothing_is_listed(self, serializer: str) -> None:
        with pytest.raises(ContentDisallowed):
            codec.loads(codec.dumps(1, serializer)[2], TYPES[serializer])

    def test_a_type_that_nobody_registered(self) -> None:
        with pytest.raises(DecodeError, match="no serializer for content type 'x/y'"):
            codec.loads(b"1", "x/y", "utf-8", frozenset({"x/y"}))

    def test_names_and_mime_types(self) -> None:
        assert codec.accept_types(["json", "application/x-yaml"]) == {"application/json", "application/x-yaml"}
        assert codec.accept_types(["auth"]) == {"application/data"}
        assert codec.accept_types([]) == frozenset()

    @pytest.mark.parametrize(
        ("name", "hint"), [("pickel", "Did you mean 'pickle'"), ("application/jsn", "Did you mean 'application/json'")]
    )
    def test_unknown_names_suggest_a_known_one(self, name: str, hint: str) -> None:
        with pytest.raises(ImproperlyConfigured, match=f"{name!r}; known are .*{hint}"):
            codec.accept_types([name])

    def test_disabling_and_enabling(self) -> None:
        try:
            codec.enable_insecure_serializers(["yaml"])
            assert codec.loads(b"a: 1", TYPES["yaml"]) == {"a": 1}
            codec.disable_insecure_serializers(["msgpack"])
            assert codec.loads(b"\x01", TYPES["msgpack"]) == 1
            for name in ("json", "yaml"):
                with pytest.raises(ContentDisallowed):
                    codec.loads(b"1", TYPES[name])
            assert codec.loads(b"1", TYPES["json"], accept=codec.accept_types(["json"])) == 1, "a list has priority"
        finally:
            codec.enable_insecure_serializers(["json", "text", "raw"])
            for name in ("pickle", "yaml", "msgpack"):
                codec.registry.disable(name)


class TestOwnSerializers:
    @pytest.fixture
    def hexadecimal(self) -> Iterator[str]:
        codec.register("hex", lambda value: f"{value:x}", lambda body: int(body, 16), "application/x-hex")
        yield "hex"
        codec.unregister("hex")

    def test_they_work_like_built_in_ones(self, hexadecimal: str) -> None:
        assert codec.dumps(255, hexadecimal) == ("application/x-hex", "utf-8", b"ff")
        assert codec.loads(b"ff", "application/x-hex", accept=codec.accept_types([hexadecimal])) == 255

    def test_their_exceptions_become_ours(self, hexadecimal: str) -> None:
        with pytest.raises(EncodeError, match="value of type str can't be serialized as hex"):
            codec.dumps("x", hexadecimal)
        with pytest.raises(DecodeError, match="can't decode 1 bytes of application/x-hex"):
            codec.loads(b"x", "application/x-hex")

    def test_lookups(self, hexadecimal: str) -> None:
        assert hexadecimal in codec.registry.names()
        assert codec.registry.name_to_type[hexadecimal] == "application/x-hex"
        assert codec.registry.type_to_name["application/x-hex"] == hexadecimal

    def test_unregistering_gives_a_shared_type_back(self) -> None:
        registry = codec.Registry()
        registry.register("raw", bytes, None, "application/data", "")
        registry.register("auth", bytes, lambda body: b"opened", "application/data")
        assert registry.loads(b"x", "application/data") == b"opened"
        registry.unregister("auth")
        assert registry.loads(b"x", "application/data", "binary") == b"x"
        with pytest.raises(ImproperlyConfigured, match="unknown serializer 'auth'"):
            registry.unregister("auth")

    def test_json_types(self) -> None:
        codec.register_json_type(complex, "complex", str, complex)
        try:
            assert round_trip([1j], "json") == [1j]
        finally:
            del codec._json_encoders[complex], codec._json_decoders["complex"]


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
typed = st.recursive(
    plain
    | st.binary()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.just(dt.UTC))
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None)
@given(typed)
def test_json_returns_what_it_was_given(value: Any) -> None:
    assert round_trip(value, "json") == value


@settings(deadline=None)
@given(plain, st.sampled_from(["pickle", "msgpack"]))
def test_the_others_return_what_they_were_given(value: Any, serializer: str) -> None:
    assert round_trip(value, serializer) == value


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text().map(str.encode), st.sampled_from(sorted(EVERYTHING - {TYPES["pickle"]})),
       st.sampled_from(["utf-8", "binary", "utf-16"]))  # fmt: skip
def test_any_bytes_decode_or_are_refused(body: bytes, content_type: str, encoding: str) -> None:
    try:
        codec.loads(body, content_type, encoding, EVERYTHING)
    except DecodeError as exc:
        assert "\n" not in str(exc)
