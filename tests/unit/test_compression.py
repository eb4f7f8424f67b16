"""Compression: Celery's names and formats, and no more out than the reader allows."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac import compression
from celeriac.errors import DecodeError, ImproperlyConfigured

MIMES = {
    "gzip": "application/x-gzip",
    "zlib": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "bzip": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
    "brotli": "application/x-brotli",
    "zstd": "application/zstd",
    "zstandard": "application/zstd",
}


def is_installed(name: str) -> bool:
    try:
        compression.compress(b"", name)
    except ImproperlyConfigured:
        return False
    return True


METHODS = [
    pytest.param(name, marks=pytest.mark.skipif(not is_installed(name), reason=f"{name} is not installed"))
    for name in ("zlib", "bzip2", "lzma", "brotli", "zstd")
]


@pytest.mark.parametrize("name", MIMES)
def test_names_and_mime_types(name: str) -> None:
    assert compression.mime_of(name) == compression.mime_of(MIMES[name]) == MIMES[name]
    assert name in compression.names()


@pytest.mark.parametrize("name", METHODS)
def test_round_trip_by_alias_and_by_mime_type(name: str) -> None:
    body = b"some bytes " * 1000
    squeezed, mime = compression.compress(body, name)
    assert mime == MIMES[name]
    assert len(squeezed) < len(body)
    assert compression.decompress(squeezed, mime, len(body)) == body
    assert compression.decompress(squeezed, name, len(body)) == body


def test_gzip_is_bare_zlib() -> None:
    assert zlib.decompress(compression.compress(b"x", "gzip")[0]) == b"x"
    with pytest.raises(DecodeError):
        compression.decompress(gzip.compress(b"x"), "gzip", 100)


def test_lzma_is_an_xz_container() -> None:
    assert compression.compress(b"x", "lzma")[0].startswith(b"\xfd7zXZ\x00")


@pytest.mark.parametrize("name", METHODS)
def test_a_bomb_ends_at_the_limit_in_bounded_memory(name: str) -> None:
    bomb, _ = compression.compress(bytes(64 * 2**20), name)
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="decompresses to more than 1048576 bytes"):
            compression.decompress(bomb, name, 2**20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20


@pytest.mark.parametrize("name", METHODS)
def test_exactly_the_limit_passes(name: str) -> None:
    squeezed, _ = compression.compress(bytes(100_000), name)
    assert len(compression.decompress(squeezed, name, 100_000)) == 100_000
    with pytest.raises(DecodeError, match="more than 99999 bytes"):
        compression.decompress(squeezed, name, 99_999)


@pytest.mark.parametrize("name", METHODS)
def test_cut_data(name: str) -> None:
    squeezed, _ = compression.compress(b"some bytes " * 1000, name)
    for end in (0, 1, len(squeezed) // 2, len(squeezed) - 1):
        with pytest.raises(DecodeError):
            compression.decompress(squeezed[:end], name, 2**20)


@pytest.mark.parametrize("name", METHODS)
def test_bytes_after_the_end(name: str) -> None:
    squeezed, _ = compression.compress(b"x", name)
    with pytest.raises(DecodeError):
        compression.decompress(squeezed + b"more", name, 100)


def test_an_xz_header_cannot_ask_for_much_memory() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 256 * 2**20}]
    squeezed = lzma.compress(b"x", filters=filters)
    with pytest.raises(DecodeError):
        compression.decompress(squeezed, "lzma", 100)


@pytest.mark.parametrize("name", ["nope", "", None, 5, ["gzip"]])
def test_an_unknown_method_of_a_message_is_a_decode_error(name: Any) -> None:
    with pytest.raises(DecodeError, match="unknown compression"):
        compression.decompress(b"x", name, 100)


def test_an_unknown_method_of_a_setting_suggests_a_known_one() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"unknown compression 'gzi'; known are .*Did you mean 'gzip'\?"):
        compression.compress(b"x", "gzi")


@pytest.mark.parametrize(("name", "modules"), [("brotli", ["brotli"]), ("zstd", ["backports.zstd", "zstandard"])])
def test_a_missing_package_is_named(name: str, modules: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "zstd" and sys.version_info >= (3, 14):
        pytest.skip("zstd is in the standard library")
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    for call in (lambda: compression.compress(b"x", name), lambda: compression.decompress(b"x", name, 100)):
        with pytest.raises(ImproperlyConfigured, match=rf"pip install celeriac\[{name}\]$"):
            call()


class TestOwnMethods:
    @pytest.fixture(autouse=True)
    def _registered(self) -> Any:
        compression.register(lambda body: body[::-1], lambda body: body[::-1], "application/x-back", ["back"])
        yield
        compression.unregister("back")

    def test_they_work_like_built_in_ones(self) -> None:
        assert compression.compress(b"abc", "back") == (b"cba", "application/x-back")
        assert compression.decompress(b"cba", "application/x-back", 3) == b"abc"

    def test_their_output_is_limited(self) -> None:
        with pytest.raises(DecodeError, match="more than 2 bytes"):
            compression.decompress(b"cba", "back", 2)

    def test_they_can_be_removed(self) -> None:
        compression.unregister("application/x-back")
        assert "back" not in compression.names()
        with pytest.raises(DecodeError):
            compression.decompress(b"x", "back", 10)


@settings(deadline=None)
@given(
    st.binary(max_size=300)
    | st.binary(max_size=50).map(zlib.compress)
    | st.binary(max_size=50).map(bz2.compress)
    | st.builds(
        lambda data, at: data[:at] + b"\xff" + data[at:], st.just(lzma.compress(b"abc" * 99)), st.integers(0, 99)
    ),
    st.sampled_from([name for name in MIMES if is_installed(name)]),
    st.integers(0, 100),
)
def test_any_bytes_decompress_within_the_limit_or_are_refused(body: bytes, name: str, limit: int) -> None:
    try:
        assert len(compression.decompress(body, name, limit)) <= limit
    except DecodeError as exc:
        assert str(exc)
