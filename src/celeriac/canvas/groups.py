"""`group`: calls that run at the same time. Its result is a GroupResult, in the order of its members.

A group of a generator is consumed while it is sent, in batches, so that its messages are never all in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain as chained
from itertools import islice
from typing import Any

from celeriac.canvas.members import as_member, signatures
from celeriac.loading import import_object
from celeriac.signature import Signature, maybe_signature

__all__ = ["group"]


@Signature.register_type()
class group(Signature):  # noqa: N801 -- Celery's documented name
    """Calls that run at the same time.

    Args:
        tasks: Signatures, or one list, group or generator of them. A generator is consumed when the group is sent.
        options: Options of every member.

    Example:
        >>> group(add.s(i, i) for i in range(3))().get()
        [0, 2, 4]
    """

    def __init__(self, *tasks: Any, **options: Any) -> None:
        app = options.get("app")
        if len(tasks) == 1 and isinstance(tasks[0], group):
            members: Any = tasks[0]["kwargs"]["tasks"]
        elif len(tasks) == 1 and isinstance(tasks[0], Iterator):
            members = (as_member(task, app) for task in tasks[0])
        else:
            members = signatures(tasks, app)
        super().__init__("celery.group", (), {"tasks": members}, **options)
        self["subtask_type"] = "group"
        if self._app is None and isinstance(members, list):
            self._app = next((member._app for member in members if member._app is not None), None)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        """The group whose dict form this is."""
        twin = cls.__new__(cls)
        dict.__init__(twin, d)
        twin._app = app
        twin["kwargs"] = {**d["kwargs"], "tasks": [maybe_signature(member, app) for member in d["kwargs"]["tasks"]]}
        twin["options"] = dict(d.get("options") or {})
        twin.setdefault("args", ())
        twin.setdefault("immutable", False)
        return twin

    @property
    def app(self) -> Any:
        """The app that would send it: its own, or that of its first member."""
        members = self["kwargs"]["tasks"]
        if self._app is None and isinstance(members, Iterator):
            first = list(islice(members, 1))
            self["kwargs"]["tasks"] = chained(first, members)
            self._app = first[0]._app if first else None
        return super().app

    @property
    def tasks(self) -> list[Any]:
        """Its members. Of a generator, they are all made now."""
        members = self["kwargs"]["tasks"]
        if not isinstance(members, list):
            members = self["kwargs"]["tasks"] = list(members)
            if self._app is None:
                self._app = next((member._app for member in members if member._app is not None), None)
        found: list[Any] = members
        return found

    def take_members(self) -> Iterable[Any]:
        """Its members, to be sent now; a generator is used up by it."""
        members: Iterable[Any] = self["kwargs"]["tasks"]
        if not isinstance(members, list):
            self["kwargs"]["tasks"] = _UsedUp()
        return members

    def __len__(self) -> int:
        return len(self.tasks)

    def __bool__(self) -> bool:
        return True

    def __call__(self, *partial_args: Any, **options: Any) -> Any:
        """Send it with these arguments added to every member."""
        return self.apply_async(partial_args, **options)

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        route_name: str | None = None,
        add_to_parent: bool = True,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        **options: Any,
    ) -> Any:
        """Send every member, with these arguments and options added.

        Returns:
            A GroupResult with the members' results in order.

        Raises:
            TypeError: `link` or `link_error` is given: a group has no end of its own. Use a chord, or link to members.
        """
        if link is not None:
            raise TypeError("Cannot add link to group: use a chord, or link to the members")
        if link_error is not None:
            raise TypeError("Cannot add link_error to group: do that on the members, with group.link_error()")
        options["add_to_parent"] = add_to_parent
        return import_object("celeriac.canvas.publishing:send", "group")(self, args, kwargs, options)

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run every member here; returns a GroupResult of EagerResults."""
        return import_object("celeriac.canvas.eager:apply", "group")(self, args, kwargs, options)

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> group:
        """Give the members growing countdowns: `start`, `start + step`, …; from `start` again before `stop` is reached."""
        countdown = start
        for member in self.tasks:
            member.set(countdown=countdown)
            countdown += step
            if stop is not None and countdown >= stop:
                countdown = start
        return self

    def link(self, callback: Any) -> Any:
        """Run `callback` when the first member succeeds: a group has no end of its own."""
        return self.tasks[0].link(callback.clone().set(immutable=True)) if self.tasks else callback

    def link_error(self, errback: Any) -> Any:
        """Run `errback` for every member that fails."""
        for member in self.tasks:
            member.link_error(errback)
        return errback

    def set_immutable(self, immutable: bool) -> None:
        """Whether the members ignore further arguments."""
        for member in self.tasks:
            member.set_immutable(immutable)

    def __repr__(self) -> str:
        return f"group({self.tasks!r})" if isinstance(self["kwargs"]["tasks"], list) else "group(<generator>)"

    def __deepcopy__(self, memo: dict[int, Any]) -> Signature:
        _ = self.tasks  # a generator can't be copied
        return super().__deepcopy__(memo)


class _UsedUp:
    """In the place of a generator that was consumed."""

    def __iter__(self) -> Iterator[Any]:
        raise ValueError("the generator of this group is used up: pass a list of signatures to send the group twice")
