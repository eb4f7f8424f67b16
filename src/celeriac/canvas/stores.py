"""The result store that counts the parts of chords, or the reason why there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celeriac.canvas.launching import part_ids

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["chord_store", "header_ids"]


def chord_store(app: Celeriac) -> Any:
    """The store.

    Raises:
        NotImplementedError: Results are disabled, or the store can't count.
    """
    store = app.backend
    if store is None:
        raise NotImplementedError(
            "a chord needs a result backend to count its parts: set `result_backend`, for example to"
            " 'sqlite:///celeriac.db' or 'redis://localhost'"
        )
    if not store.capabilities.counts_chords:
        raise NotImplementedError(
            f"a chord needs a result backend that can count its parts, and {store.url} can't: use a database, Redis,"
            " Memcached or a folder"
        )
    return store


def header_ids(app: Celeriac, group_id: str) -> list[Any] | None:
    """Ids of the parts of a chord's header in order; None if the store does not (or no longer) know it."""
    value = chord_store(app).get_group(group_id)
    return None if value is None else part_ids(value)
