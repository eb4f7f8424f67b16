"""How a workflow that is to follow is written into a message: flat, as stock clients write it.

In normal form what follows a chord goes on its body, so ten chords one after the other are nested ten deep. In a message
they are a list: the steps of a chain, last to first, each without what follows it. A chord's body that goes on with further
chords is its first step, which has the others as its option `chain`. `launching` writes, `joining` reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from celeriac.canvas.members import own_copy
from celeriac.canvas.normalizing import is_chain, is_chord
from celeriac.signature import Signature

__all__ = ["carried", "flat", "opened"]


def flat(steps: Sequence[Any]) -> Iterator[Any]:
    """Normalized steps, and what goes on after the chord at their end as further steps."""
    for step in steps:
        if is_chord(step) and is_chain(step.body):
            first, *rest = step.body.tasks
            yield step.with_body(first)
            yield from flat(rest)
        else:
            yield step


def carried(body: Any, size: int) -> Any:
    """The body of a chord of `size` parts as these carry it. What is linked and placed is shared with it.

    Its result goes to a store that everybody reads, so where a reply to the client would go is left out.
    """
    twin = own_copy(body)
    if is_chain(body):
        first, *rest = flat(body.tasks)
        first = _without_reply(first)
        if any(map(is_chord, rest)):
            first.options["chain"] = [*(body.options.get("chain") or ()), *reversed(rest)]
            twin = first
        else:
            twin["kwargs"] = {**body["kwargs"], "tasks": [first, *rest]}
    else:
        twin = _without_reply(body)
    twin["chord_size"] = size
    return twin


def _without_reply(signature: Any) -> Any:
    twin = own_copy(signature)
    twin.options.pop("reply_to", None)
    return twin


def opened(body: Any) -> Any:
    """The same body as a workflow."""
    rest = body.options.get("chain")
    if not rest or body.get("subtask_type"):
        return body
    first = own_copy(body)
    del first.options["chain"]
    return Signature.TYPES["chain"](first, *reversed(rest), app=body._app)
