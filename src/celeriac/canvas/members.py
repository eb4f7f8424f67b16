"""What composites share: taking in their members, and handing on to these what is linked to the whole."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from celeriac.safe_repr import saferepr
from celeriac.signature import maybe_signature

__all__ = ["as_member", "link_all", "own_copy", "signatures"]


def as_member(value: Any, app: Any) -> Any:
    """A member of a composite as a signature.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(value, Mapping):
        hint = f"; pass {value.name}.s()" if hasattr(value, "apply_async") else ""
        raise TypeError(f"a workflow is made of signatures, not of {saferepr(value, 60)}{hint}")
    return maybe_signature(value, app)


def signatures(values: tuple[Any, ...], app: Any) -> list[Any]:
    """The members that a composite was given: as arguments, or as one list or generator."""
    found: Iterable[Any] = values
    if len(values) == 1 and not isinstance(values[0], Mapping) and isinstance(values[0], Iterable):
        found = values[0]
    return [as_member(value, app) for value in found]


def own_copy(signature: Any) -> Any:
    """A copy whose options may be changed; arguments and what is linked are shared."""
    twin = signature.__class__.__new__(signature.__class__)
    dict.__init__(twin, signature)
    twin._app = signature._app
    options = twin["options"] = dict(signature.get("options") or {})
    for key in ("link", "link_error"):
        if options.get(key):
            links = options[key]
            options[key] = list(links) if isinstance(links, (list, tuple)) else [links]
    return twin


def link_all(steps: list[Any], options: Mapping[str, Any]) -> None:
    """Link to copies of a chain's steps what is linked to the chain: callbacks to the last, error callbacks to each."""
    callbacks, errbacks = _listed(options.get("link")), _listed(options.get("link_error"))
    if not (callbacks or errbacks):
        return
    for number, step in enumerate(steps):
        step = steps[number] = copy.deepcopy(step)
        for errback in errbacks:
            step.link_error(errback)
        if number == len(steps) - 1:
            for callback in callbacks:
                step.link(callback)


def _listed(links: Any) -> list[Any]:
    if not links:
        return []
    return list(links) if isinstance(links, (list, tuple)) else [links]
