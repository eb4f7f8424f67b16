"""The task of `celeriac demo`, as a user would write it: it measures one Python file.

The demo's worker imports this module by `-A`; the demo itself sends the tasks. The answer tells the pid of the runner, so that
the demo can kill one, and whether the message was delivered before, so that it can tell that the task was run again.
"""

from __future__ import annotations

import ast
import io
import os
import tokenize
from typing import Any

from celeriac import Celeriac

__all__ = ["app", "measure"]

app = Celeriac("demo", set_as_current=False)


@app.task(bind=True, name="demo.measure")
def measure(self: Any, path: str) -> dict[str, Any]:
    """Lines, tokens, functions and the longest function of a Python file."""
    with open(path, "rb") as file:
        source = file.read()
    answer = {
        "path": path, "pid": os.getpid(), "is_repeated": self.request.delivery_info["redelivered"],
        "is_readable": True, "lines": source.count(b"\n"), "tokens": 0, "functions": 0, "longest": 0, "name": "",
    }  # fmt: skip
    try:
        tree = ast.parse(source)
        tokens = sum(1 for _ in tokenize.tokenize(io.BytesIO(source).readline))
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError, MemoryError):
        # The standard library's tests hold files that are wrong on purpose.
        return {**answer, "is_readable": False}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    length, name = max(((_length(node), node.name) for node in functions), default=(0, ""))
    return {**answer, "tokens": tokens, "functions": len(functions), "longest": length, "name": name}


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
