"""Putting a pickled mapping together from values that are pickled already, without loading them.

`wire/results.py` uses it where `result_serializer` is pickle: the document that a stock Celery client reads is one pickle
of the whole task meta, but the process that stores it must not load the values, whose classes run code and may not be
there. Pickles refer back to what they wrote before by index, so the values can't simply be strung together; how the
indices are kept right is told at `pickle_splice`.
"""

from __future__ import annotations

import itertools
import pickle
from typing import Any

__all__ = ["pickle_splice"]

_FRAME = 0x95
#: Opcodes with large payloads, which stand between frames, and the width of their length.
_LARGE = {ord("B"): 4, ord("X"): 4, 0x8D: 8, 0x8E: 8, 0x96: 8}


def pickle_splice(plain: dict[str, Any], values: dict[str, bytes]) -> bytes:
    """The pickle of a dict of `values` (each a pickle of its own) and then `plain`.

    The first value goes in as it is: its indices count from 0, and nothing before it takes one. Each later value would
    go on counting where the one before stopped, so its "remember this next" is rewritten as "remember this at 0, 1, …".
    That overwrites what earlier values remembered, which are complete and need it no more.
    """
    parts = [b"\x80\x04}("]  # protocol 4, empty dict, mark
    for position, (key, value) in enumerate(values.items()):
        parts += (_key(key), _opcodes(value) if position == 0 else _numbered(value))
    for key, item in plain.items():
        parts += (_key(key), _numbered(pickle.dumps(item, protocol=4)))
    parts.append(b"u.")  # set the items, stop
    return b"".join(parts)


def _key(key: str) -> bytes:
    text = key.encode()
    return b"X%b%b" % (len(text).to_bytes(4, "little"), text)


def _opcodes(data: bytes) -> bytes:
    """A pickle without its first two bytes (protocol) and its last (stop)."""
    at, last_frame = 2, None
    while at < len(data):
        opcode = data[at]
        if opcode == _FRAME:
            last_frame = at
            at += 9 + int.from_bytes(data[at + 1 : at + 9], "little")
        elif opcode in _LARGE:
            width = _LARGE[opcode]
            at += 1 + width + int.from_bytes(data[at + 1 : at + 1 + width], "little")
        else:
            break
    if last_frame is None or at != len(data):
        return data[2:-1]
    # The stop is inside the last frame: shorten that.
    size = int.from_bytes(data[last_frame + 1 : last_frame + 9], "little") - 1
    return b"%b\x95%b%b" % (data[2:last_frame], size.to_bytes(8, "little"), data[last_frame + 9 : -1])


def _numbered(data: bytes) -> bytes:
    """The opcodes of a pickle with explicit indices, and without frames, whose sizes they would change."""
    parts = []
    remembered = 0
    import pickletools  # here, since few need it and every import of celeriac would pay for it

    operations = list(pickletools.genops(data))
    for (opcode, _, start), (_, _, end) in itertools.pairwise(operations):
        if opcode.name == "MEMOIZE":
            parts.append(b"r" + remembered.to_bytes(4, "little"))
            remembered += 1
        elif opcode.name not in ("PROTO", "FRAME"):
            parts.append(data[start:end])
    return b"".join(parts)
