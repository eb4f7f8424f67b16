"""How the table of names is written: many names of one module of ours in a line."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["rows", "same"]


def same(module: str, *names: str, **others: str) -> dict[str, str]:
    """Names that are the same in `module`, in texts with spaces between; `others` are called something else there."""
    listed = {name: f"{module}:{name}" for text in names for name in text.split()}
    return listed | {name: f"{module}:{there}" for name, there in others.items()}


def rows(*parts: Mapping[str, str], **targets: str) -> dict[str, str]:
    """Several such rows as one; `targets` name module and attribute."""
    found: dict[str, str] = {}
    for part in (*parts, targets):
        found.update(part)
    return found
