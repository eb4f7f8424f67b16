"""Stamps: headers that mark every task of a workflow, to find, watch or revoke them by.

`Signature.stamp` walks a workflow and what is linked to it. A visitor is asked at each signature which stamps it gets,
and at the start of each composite which stamps all its members get. Stamps stand flat in the options, their names in
the option `stamped_headers`; when a task is sent they become the header `stamps`.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from typing import Any

from celeriac.canvas.composing import is_group
from celeriac.canvas.groups import group
from celeriac.canvas.normalizing import is_chain, is_chord
from celeriac.signature import Signature, maybe_signature

__all__ = ["StampingVisitor", "stamp", "stamp_links"]

NAMES = "stamped_headers"


class StampingVisitor(metaclass=ABCMeta):
    """Says which stamps the signatures of a workflow get. Override `on_signature` and whatever else is of interest.

    Each method gets the stamps so far as keyword arguments and returns a mapping of stamps, or None. With a key
    `stamped_headers` only the names listed there are stamps; the other keys are ignored.
    """

    @abstractmethod
    def on_signature(self, sig: Signature, **headers: Any) -> Mapping[str, Any] | None:
        """Stamps of one task."""

    def on_group_start(self, sig: Signature, **headers: Any) -> Mapping[str, Any] | None:  # noqa: B027 -- may be overridden
        """Stamps of all members of a group."""

    def on_group_end(self, sig: Signature, **headers: Any) -> None:  # noqa: B027 -- may be overridden
        """The members of a group are stamped."""

    def on_chain_start(self, sig: Signature, **headers: Any) -> Mapping[str, Any] | None:  # noqa: B027 -- may be overridden
        """Stamps of all steps of a chain."""

    def on_chain_end(self, sig: Signature, **headers: Any) -> None:  # noqa: B027 -- may be overridden
        """The steps of a chain are stamped."""

    def on_chord_header_start(self, sig: Any, **headers: Any) -> Mapping[str, Any] | None:
        """Stamps of all parts of a chord's header; those of a group unless overridden."""
        if not isinstance(sig["kwargs"]["header"], Mapping):
            sig["kwargs"]["header"] = group(sig.tasks, app=sig._app)
        return self.on_group_start(sig["kwargs"]["header"], **headers)

    def on_chord_header_end(self, sig: Signature, **headers: Any) -> None:
        """The parts of a chord's header are stamped."""
        self.on_group_end(sig["kwargs"]["header"], **headers)

    def on_chord_body(self, sig: Signature, **headers: Any) -> Mapping[str, Any] | None:  # noqa: B027 -- may be overridden
        """Stamps of a chord's body; called with the chord."""

    def on_callback(self, callback: Signature, **headers: Any) -> Mapping[str, Any] | None:  # noqa: B027 -- may be overridden
        """Stamps of a callback that is linked to a signature."""

    def on_errback(self, errback: Signature, **headers: Any) -> Mapping[str, Any] | None:  # noqa: B027 -- may be overridden
        """Stamps of an error callback that is linked to a signature."""


def stamp(signature: Any, visitor: StampingVisitor | None, append: bool, headers: Mapping[str, Any]) -> None:
    """Stamp a workflow and what is linked to it."""
    stamps = _merged({}, headers)
    if is_chain(signature):
        inner = _merged(stamps, visitor.on_chain_start(signature, **stamps) if visitor else None)
        _stamp_linked(signature, visitor, append, inner)
        for step in signature.tasks:
            stamp(step, visitor, append, inner)
        if visitor:
            visitor.on_chain_end(signature, **inner)
    elif is_group(signature):
        inner = _merged(stamps, visitor.on_group_start(signature, **stamps) if visitor else None)
        for member in signature.tasks:
            stamp(member, visitor, append, inner)
        if visitor:
            visitor.on_group_end(signature, **inner)
    elif is_chord(signature):
        _stamp_chord(signature, visitor, append, stamps)
    else:
        _stamp_linked(signature, visitor, append, stamps)
        own = _merged(stamps, visitor.on_signature(signature, **stamps) if visitor else None)
        _put(signature.options, own, append)


def _stamp_chord(signature: Any, visitor: StampingVisitor | None, append: bool, stamps: dict[str, Any]) -> None:
    inner = _merged(stamps, visitor.on_chord_header_start(signature, **stamps) if visitor else None)
    for part in signature.tasks:
        stamp(part, visitor, append, inner)
    if visitor:
        visitor.on_chord_header_end(signature, **inner)
    body = _merged(stamps, visitor.on_chord_body(signature, **stamps) if visitor else None)
    if signature.body is not None:
        stamp(signature.body, visitor, append, body)


def stamp_links(signature: Any, visitor: StampingVisitor | None, append: bool, headers: Mapping[str, Any]) -> None:
    """Stamp what is linked to a signature, but not the signature."""
    _stamp_linked(signature, visitor, append, _merged({}, headers))


def _stamp_linked(signature: Any, visitor: StampingVisitor | None, append: bool, stamps: dict[str, Any]) -> None:
    for key in ("link", "link_error"):
        links = signature.options.get(key)
        if not links:
            continue
        found = [maybe_signature(each, signature._app) for each in (links if isinstance(links, list) else [links])]
        signature.options[key] = found
        for each in found:
            told = None
            if visitor:
                told = visitor.on_callback(each, **stamps) if key == "link" else visitor.on_errback(each, **stamps)
            stamp(each, visitor, append, _merged(stamps, told))


def _merged(stamps: Mapping[str, Any], more: Mapping[str, Any] | None) -> dict[str, Any]:
    """Stamps so far and further ones, with the names of all."""
    if not more:
        return dict(stamps)
    names = more.get(NAMES)
    names = [key for key in more if key != NAMES] if names is None else list(names)
    merged = {**stamps, **{name: more[name] for name in names if name in more}}
    merged[NAMES] = list(dict.fromkeys([*(stamps.get(NAMES) or ()), *(name for name in names if name in merged)]))
    return merged


def _put(options: dict[str, Any], stamps: Mapping[str, Any], append: bool) -> None:
    if not stamps.get(NAMES):
        return
    known = options.get(NAMES) or []
    for name in stamps[NAMES]:
        value = stamps[name]
        if append and name in known and name in options:
            value = list(dict.fromkeys([*_listed(value), *_listed(options[name])]))
        options[name] = value
    options[NAMES] = list(dict.fromkeys([*known, *stamps[NAMES]]))


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
