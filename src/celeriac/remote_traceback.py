"""A worker's traceback as a real one, made of its text: the setting `task_remote_tracebacks`, with the extra `tblib`.

`result_base.raise_error` asks for it, so that debuggers and error reports of the client show the worker's frames as they
show its own. The frames have no local variables: these never left the worker.
"""

from __future__ import annotations

import importlib
from types import TracebackType

__all__ = ["real_traceback"]

#: What Python writes between an exception and the one that led to it, which stands before it.
_BETWEEN = (
    "\n\nThe above exception was the direct cause of the following exception:\n\n",
    "\n\nDuring handling of the above exception, another exception occurred:\n\n",
)


def real_traceback(text: str) -> TracebackType | None:
    """The frames that a traceback's text names; None if there are none, or tblib is not installed."""
    try:
        tblib = importlib.import_module("tblib")
    except ImportError:
        return None
    for sentence in _BETWEEN:
        text = text.rpartition(sentence)[2]
    try:
        found: TracebackType = tblib.Traceback.from_string(text).as_traceback()
    except tblib.TracebackParseError:
        return None
    return found
