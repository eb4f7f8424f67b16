"""Compression of message bodies and stored results, by the names and MIME types that Celery uses.

Callers are `wire/messages.py`, `wire/results.py` and whoever registers a method of their own. "gzip" and "zlib" are one
method: bare zlib data (RFC 1950) under the MIME type application/x-gzip, as Celery writes it. Decompression never
yields more than the caller's limit, nor needs memory beyond it, however small the compressed data was.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from celeriac.errors import DecodeError, ImproperlyConfigured, near_match

__all__ = ["compress", "decompress", "mime_of", "names", "register", "unregister"]

#: Bytes of memory an xz decoder may ask for: `xz -9` needs 65 MiB, a forged header could ask for 4 GiB.
_LZMA_MEMORY = 128 * 2**20
#: log2 of the largest zstd window that is accepted (128 MiB, the reference decoder's own limit).
_ZSTD_WINDOW_LOG = 27
#: Bytes given at once to a decoder that can't limit its output; one zstd block of 3 bytes can grow to 128 KiB.
_SMALL_PIECE = 256


class _Method(msgspec.Struct, frozen=True):
    """One way to compress; `expand(body, limit)` stops as soon as it has more than `limit` bytes."""

    mime: str
    aliases: tuple[str, ...]
    squeeze: Callable[[bytes], bytes]
    expand: Callable[[bytes, int], bytes]


_methods: dict[str, _Method] = {}  # by alias and by MIME type


def register(
    encoder: Callable[[bytes], bytes],
    decoder: Callable[[bytes], bytes],
    content_type: str,
    aliases: Iterable[str] = (),
) -> None:
    """Add a compression method.

    Args:
        encoder: Takes bytes and returns them compressed.
        decoder: The reverse. Its output is checked against the limit afterwards, so it should bound its own memory.
        content_type: MIME type that travels in the header `compression`.
        aliases: Names by which it is asked for.
    """
    _add(_Method(content_type, tuple(aliases), encoder, lambda body, limit: decoder(body)))


def unregister(name: str) -> None:
    """Remove a method by its MIME type or an alias; an unknown one is ignored."""
    method = _methods.get(name)
    if method is not None:
        for key in [key for key, known in _methods.items() if known is method]:
            del _methods[key]


def names() -> list[str]:
    """All aliases, sorted."""
    return sorted(name for name, method in _methods.items() if name != method.mime)


def mime_of(name: str) -> str:
    """The MIME type of a method that is named by alias or MIME type.

    Raises:
        ImproperlyConfigured: No such method is known.
    """
    return _known(name).mime


def compress(body: bytes, method: str) -> tuple[bytes, str]:
    """Compress `body`.

    Returns:
        The compressed bytes and the MIME type of the method.

    Raises:
        ImproperlyConfigured: The method is unknown, or its package is not installed.
    """
    known = _known(method)
    return known.squeeze(body), known.mime


def decompress(body: bytes, mime_or_alias: str, limit: int) -> bytes:
    """Decompress `body` to at most `limit` bytes.

    Raises:
        DecodeError: The data is damaged or cut short, it grows beyond `limit`, or the method is unknown.
        ImproperlyConfigured: The method's package is not installed.
    """
    method = _methods.get(mime_or_alias) if isinstance(mime_or_alias, str) else None
    if method is None:
        raise DecodeError(f"unknown compression {mime_or_alias!r}; known are {', '.join(names())}")
    try:
        plain = method.expand(body, limit)
    except (DecodeError, ImproperlyConfigured):
        raise
    except Exception as exc:  # each library, and each registered method, has exceptions of its own
        raise DecodeError(f"can't decompress {len(body)} bytes of {method.mime}: {exc}") from exc
    if len(plain) > limit:
        raise DecodeError(f"a body of {len(body)} bytes ({method.mime}) decompresses to more than {limit} bytes")
    return plain


def _known(name: str) -> _Method:
    method = _methods.get(name)
    if method is None:
        raise ImproperlyConfigured(
            f"unknown compression {name!r}; known are {', '.join(names())}.{near_match(str(name), names())}"
        )
    return method


def _add(method: _Method) -> None:
    for key in (method.mime, *method.aliases):
        _methods[key] = method


def _one_stream(decoder: Any, body: bytes, limit: int) -> bytes:
    """Run a decoder of the standard library's kind; one byte above the limit is enough to know that it is exceeded."""
    plain: bytes = decoder.decompress(body, limit + 1)
    if len(plain) <= limit:
        _check_end(decoder.eof, len(decoder.unused_data), body)
    return plain


def _check_end(is_complete: bool, left: int, body: bytes) -> None:
    if not is_complete:
        raise DecodeError(f"compressed data of {len(body)} bytes is cut short")
    if left:
        raise DecodeError(f"{left} bytes follow the end of the compressed data")


def _expand_zlib(body: bytes, limit: int) -> bytes:
    return _one_stream(zlib.decompressobj(), body, limit)


def _expand_bzip2(body: bytes, limit: int) -> bytes:
    return _one_stream(bz2.BZ2Decompressor(), body, limit)


def _expand_lzma(body: bytes, limit: int) -> bytes:
    return _one_stream(lzma.LZMADecompressor(lzma.FORMAT_AUTO, memlimit=_LZMA_MEMORY), body, limit)


def _brotli() -> Any:
    """The package, imported at first use: few need it, and it would slow down every start."""
    try:
        return importlib.import_module("brotli")
    except ImportError as exc:
        raise ImproperlyConfigured("compression 'brotli' needs brotli: pip install celeriac[brotli]") from exc


def _squeeze_brotli(body: bytes) -> bytes:
    squeezed: bytes = _brotli().compress(body)
    return squeezed


def _expand_brotli(body: bytes, limit: int) -> bytes:
    decoder = _brotli().Decompressor()
    if not hasattr(decoder, "can_accept_more_data"):
        raise ImproperlyConfigured("compression 'brotli' needs brotli>=1.2, which can limit the size of its output")
    pieces = [decoder.process(body, output_buffer_limit=limit + 1)]
    size = len(pieces[0])
    while size <= limit and not decoder.is_finished():
        if decoder.can_accept_more_data():
            raise DecodeError(f"compressed data of {len(body)} bytes is cut short")
        pieces.append(decoder.process(b"", output_buffer_limit=limit + 1 - size))
        size += len(pieces[-1])
    return b"".join(pieces)


def _zstd() -> Any:
    """The zstd module: of the standard library since Python 3.14, else its backport, else the package zstandard."""
    if sys.version_info >= (3, 14):
        return importlib.import_module("compression.zstd")
    try:
        return importlib.import_module("backports.zstd")
    except ImportError:
        pass
    try:
        return importlib.import_module("zstandard")
    except ImportError as exc:
        raise ImproperlyConfigured("compression 'zstd' needs zstandard: pip install celeriac[zstd]") from exc


def _squeeze_zstd(body: bytes) -> bytes:
    squeezed: bytes = _zstd().compress(body)
    return squeezed


def _expand_zstd(body: bytes, limit: int) -> bytes:
    zstd = _zstd()
    if hasattr(zstd, "DecompressionParameter"):
        options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        return _one_stream(zstd.ZstdDecompressor(options=options), body, limit)
    decoder = zstd.ZstdDecompressor(max_window_size=1 << _ZSTD_WINDOW_LOG).decompressobj()
    return _in_small_pieces(decoder, body, limit)


def _in_small_pieces(decoder: Any, body: bytes, limit: int) -> bytes:
    """For a decoder that can't limit its output: give it so little at a time that no step can grow far."""
    plain = bytearray()
    at = 0
    while at < len(body) and len(plain) <= limit and not decoder.eof:
        plain += decoder.decompress(body[at : at + _SMALL_PIECE])
        at += _SMALL_PIECE
    if len(plain) <= limit:
        _check_end(decoder.eof, len(decoder.unused_data) + max(len(body) - at, 0), body)
    return bytes(plain)


for _builtin in (
    _Method("application/x-gzip", ("gzip", "zlib"), zlib.compress, _expand_zlib),
    _Method("application/x-bz2", ("bzip2", "bzip"), bz2.compress, _expand_bzip2),
    _Method("application/x-lzma", ("lzma", "xz"), lzma.compress, _expand_lzma),
    _Method("application/x-brotli", ("brotli",), _squeeze_brotli, _expand_brotli),
    _Method("application/zstd", ("zstd", "zstandard"), _squeeze_zstd, _expand_zstd),
):
    _add(_builtin)
