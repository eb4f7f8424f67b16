"""The canvas: signatures composed to workflows.

`chain` runs one call after the other, `group` many at once, `chord` a call with the results of a group; `chunks`, `xmap`
and `xstarmap` spread data over tasks. One module per primitive; how they combine is in `composing`, what is sent and in
which order in `normalizing`, `freezing` and `launching`. The worker's side of a chord is `joining`.
"""

from __future__ import annotations

from celeriac.canvas.chains import _chain, chain
from celeriac.canvas.chords import chord
from celeriac.canvas.groups import group
from celeriac.canvas.maps import chunks, xmap, xstarmap
from celeriac.canvas.stamping import StampingVisitor
from celeriac.signature import Signature, maybe_signature, signature

__all__ = [
    "Signature", "StampingVisitor", "_chain", "_chord", "chain", "chord", "chunks", "group", "maybe_signature",
    "signature", "subtask", "xmap", "xstarmap",
]  # fmt: skip

#: Celery's other names.
_chord = chord
subtask = signature
