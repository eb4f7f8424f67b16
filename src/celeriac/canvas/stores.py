"""The result store that counts the parts of chords, or the reason why there is none."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celeriac.canvas.launching import part_ids
from celeriac.recording import lifetime_of
from celeriac.results.base import Record, header_id
from celeriac.states import SUCCESS
from celeriac.timing import iso_now

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["chord_store", "header_ids", "header_record"]


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


def header_record(app: Celeriac, group_id: str) -> Record | None:
    """What keeps the header of a chord visible when its counts are gone; None if it is not known."""
    value = chord_store(app).get_group(group_id)
    if value is None:
        return None
    lifetime = lifetime_of(app, SUCCESS)
    expires_at = time.time() + lifetime if lifetime else None
    return Record(id=header_id(group_id), state=SUCCESS, result=value, date_done=iso_now(), expires_at=expires_at)
