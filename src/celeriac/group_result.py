"""`GroupResult`: the results of a group, with an id under which it can be kept in the store.

Made when a group is sent, or by `restore` from what `save` kept, in Celery's form.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from celeriac.codec import dumps, loads
from celeriac.current import get_current_app
from celeriac.loading import import_object
from celeriac.result_base import aside
from celeriac.result_set import ResultSet
from celeriac.results.base import added_id
from celeriac.timing import SYSTEM_CLOCK

__all__ = ["GroupResult"]


class GroupResult(ResultSet):
    """The results of a group.

    Args:
        id: Id of the group.
        results: Those of its members, in order.
        parent: Result of what comes before it in a chain.
        app: The app whose store is asked.
    """

    def __init__(
        self, id: str | None = None, results: Iterable[Any] | None = None, parent: Any = None, **options: Any
    ) -> None:
        super().__init__(results or (), **options)
        self.id = id
        self.parent = parent

    @property
    def children(self) -> list[Any]:
        """The members."""
        return self.results

    # kept in the store

    def save(self, backend: Any = None) -> None:
        """Keep the group under its id, for as long as results are kept."""
        app = self.app
        lifetime: Any = app.conf.result_expires
        if isinstance(lifetime, timedelta):
            lifetime = lifetime.total_seconds()
        value = dumps(self.as_tuple(), app.conf.result_serializer)[2]
        _store(backend, app).save_group(self._own_id(), value, SYSTEM_CLOCK.now() + lifetime if lifetime else None)

    def refresh(self, backend: Any = None) -> list[Any]:
        """Take in the members that were added while the group ran; returns the new ones.

        A member adds others before it ends. So `while group.refresh(): group.get()` waits for all there will ever be.
        """
        kept = self._added(self._own_id(), backend, self.app)
        known = {member.id for member in self.results}
        new = [member for member in kept if member.id not in known]
        self.results.extend(new)
        return new

    @classmethod
    def _added(cls, group_id: str, backend: Any, app: Any) -> list[Any]:
        """The members that the store knows of a chord's header, and those that were added to a group."""
        groups = (cls._kept(each, backend, app) for each in (group_id, added_id(group_id)))
        return [member for group in groups if group is not None for member in group.results]

    def delete(self, backend: Any = None) -> None:
        """Delete what `save` kept; the results of the members stay."""
        _store(backend, self.app).forget_group(self._own_id())

    @classmethod
    def restore(cls, id: str, backend: Any = None, app: Any = None) -> GroupResult | None:
        """The group that was kept under this id; None if there is none.

        Raises:
            DecodeError: What is kept there is no group.
        """
        app = app or cls.bound_app or get_current_app()
        found = cls._kept(id, backend, app)
        if found is not None:
            found.results += [each for each in cls._added(id, backend, app) if each not in found.results]
        return found

    @classmethod
    def _kept(cls, id: str, backend: Any, app: Any) -> GroupResult | None:
        raw = _store(backend, app).get_group(id)
        if raw is None:
            return None
        kind = _content_type(raw)
        kept = loads(raw, kind, "utf-8" if kind == "application/json" else "binary", app.result_accept)
        if isinstance(kept, dict):  # a key/value store of Celery's keeps it so
            kept = kept["result"]
        found: GroupResult = import_object("celeriac.result:result_from_tuple", "restore")(kept, app)
        return found

    # for coroutines

    async def asave(self, backend: Any = None) -> None:
        """`save` for coroutines."""
        await aside(self.save, backend)

    async def arefresh(self, backend: Any = None) -> list[Any]:
        """`refresh` for coroutines."""
        found: list[Any] = await aside(self.refresh, backend)
        return found

    async def adelete(self, backend: Any = None) -> None:
        """`delete` for coroutines."""
        await aside(self.delete, backend)

    @classmethod
    async def arestore(cls, id: str, backend: Any = None, app: Any = None) -> GroupResult | None:
        """`restore` for coroutines."""
        found: GroupResult | None = await aside(cls.restore, id, backend, app)
        return found

    def _own_id(self) -> str:
        if self.id is None:
            raise ValueError("a group without an id can't be kept: give it one, GroupResult(id, results)")
        return self.id

    # plain forms

    def as_tuple(self) -> Any:
        """Plain data from which `result_from_tuple` makes the group again."""
        parent: Any = self.parent
        return (self.id, None if parent is None else parent.as_tuple()), [each.as_tuple() for each in self.results]

    serializable = as_tuple

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return self.id == other.id and self.results == other.results and self.parent == other.parent
        return self.id == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<GroupResult: {self.id} {super().__repr__().partition(': ')[2]}"

    def __reduce__(self) -> tuple[Any, ...]:
        return GroupResult, (self.id, self.results, self.parent)


def _store(backend: Any, app: Any) -> Any:
    store = backend if backend is not None else app.reader
    if store is None:
        raise NotImplementedError("No result backend is configured: set `result_backend` to a URL.")
    return store


def _content_type(raw: bytes) -> str:
    """The format of a kept group, by its first byte: an array or a mapping."""
    first = raw[:1]
    if first in (b"[", b"{"):
        return "application/json"
    if first == b"\x80" and raw[1:2] <= b"\x05":
        return "application/x-python-serialize"
    return "application/x-msgpack" if first >= b"\x80" else "application/x-yaml"
