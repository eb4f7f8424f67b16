"""The steps of a long chain, carried on as they came: each is decoded when somebody looks at it.

Every task of a chain brings all that follows it. To decode that and encode it again, less one step, was half of what the
runner did for a step of a chain of a hundred. `bodies` makes these, `messages` writes them into the next message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac import codec

__all__ = ["SealedSteps", "open_sealed"]


class _Embed(msgspec.Struct):
    callbacks: Any = None
    errbacks: Any = None
    chain: msgspec.Raw = msgspec.Raw(b"null")
    chord: Any = None


class _Step(msgspec.Struct):
    task: str


_body = msgspec.json.Decoder(tuple[Any, Any, _Embed])
_steps = msgspec.json.Decoder(list[msgspec.Raw])
_signatures = msgspec.json.Decoder(list[_Step])


class SealedSteps(Sequence[Any]):
    """Signatures, from last to first, as the JSON texts that came.

    Args:
        texts: Of each.
    """

    __slots__ = ("_texts",)

    def __init__(self, texts: Sequence[msgspec.Raw]) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return SealedSteps(self._texts[index])
        return codec.json_loads(bytes(self._texts[index]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __json__(self) -> list[Any]:
        return list(self)

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(self),)  # whoever gets it pickled knows lists

    def __repr__(self) -> str:
        return repr(list(self))

    def json(self) -> str:
        """The array, as `codec.json_dumps` would write it if it had written the steps."""
        return f"[{b', '.join(self._texts).decode()}]"


def open_sealed(body: bytes) -> Any:
    """What a JSON body holds, with the chain sealed; None if it is not [args, kwargs, embed] with a chain, all well formed."""
    try:
        body.decode()  # checks what the decoders skip
        args, kwargs, embed = _body.decode(body)
        steps = _steps.decode(embed.chain)
        _signatures.decode(embed.chain)  # what is none is to be refused before anything of the chain has run
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not steps:
        return None
    chain = SealedSteps(steps)
    return [
        args,
        kwargs,
        {"callbacks": embed.callbacks, "errbacks": embed.errbacks, "chain": chain, "chord": embed.chord},
    ]
