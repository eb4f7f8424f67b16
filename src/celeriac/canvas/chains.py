"""`chain`: calls that run one after the other, each with what the one before returned.

One message is sent, for the first step; it carries the other steps, and each worker passes on what is left. The result
is that of the last step, whose `parent` is the result of the step before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.canvas.composing import join_all
from celeriac.canvas.members import link_all, signatures
from celeriac.loading import import_object
from celeriac.signature import Signature, maybe_signature

__all__ = ["_chain", "chain"]


@Signature.register_type(name="chain")
class _chain(Signature):  # noqa: N801 -- Celery's documented name
    """A chain as it is, without the rules of `|` applied to its steps. `chain` makes them."""

    def __init__(self, *tasks: Any, **options: Any) -> None:
        steps = signatures(tasks, options.get("app"))
        super().__init__("celery.chain", (), {"tasks": steps}, **options)
        self["subtask_type"] = "chain"
        self._app = self._app or next((step._app for step in steps if step._app is not None), None)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        """The chain whose dict form this is."""
        twin = cls.__new__(_chain)
        dict.__init__(twin, d)
        twin._app = app
        twin["kwargs"] = {**d["kwargs"], "tasks": [maybe_signature(step, app) for step in d["kwargs"]["tasks"]]}
        twin["options"] = dict(d.get("options") or {})
        twin.setdefault("args", ())
        twin.setdefault("immutable", False)
        return twin

    @property
    def tasks(self) -> list[Any]:
        """Its steps."""
        steps: list[Any] = self["kwargs"]["tasks"]
        return steps

    def unchain_tasks(self) -> list[Any]:
        """Its steps, with what is linked to the chain linked to them."""
        steps = list(self.tasks)
        link_all(steps, self.options)
        return steps

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send it; an empty chain gives None."""
        return self.apply_async(args, kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any) -> Any:
        """Send it. Options such as `countdown` and `queue` are those of the first step.

        Returns:
            The result of the last step; None for an empty chain.
        """
        if not self.tasks:
            return None
        return import_object("celeriac.canvas.publishing:send", "chain")(self, args, kwargs, options)

    def run(
        self, args: Any = None, kwargs: Any = None, group_id: str | None = None, chord: Any = None,
        task_id: str | None = None, link: Any = None, link_error: Any = None, publisher: Any = None, producer: Any = None,
        root_id: str | None = None, parent_id: str | None = None, app: Any = None, group_index: int | None = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        """`apply_async`, with options by position."""
        given = {
            "group_id": group_id, "chord": chord, "task_id": task_id, "link": link, "link_error": link_error,
            "producer": producer or publisher, "root_id": root_id, "parent_id": parent_id, "group_index": group_index,
        }  # fmt: skip
        self._app = self._app or app
        return self.apply_async(
            args, kwargs, **{key: value for key, value in given.items() if value is not None}, **options
        )

    def prepare_steps(
        self, args: Any, kwargs: Any, tasks: Any, root_id: str | None = None, parent_id: str | None = None,
        link_error: Any = None, app: Any = None, last_task_id: str | None = None, group_id: str | None = None,
        chord_body: Any = None, clone: bool = True, from_dict: Any = None, group_index: int | None = None,
    ) -> tuple[list[Any], list[Any]]:  # fmt: skip
        """The steps as they would be sent, and their results; both from last to first, as Celery has them."""
        given = {"root_id": root_id, "parent_id": parent_id}
        last = {"group_id": group_id, "chord": chord_body}
        make = import_object("celeriac.canvas.freezing:steps_of", "prepare_steps")
        found: tuple[list[Any], list[Any]] = make(
            app or self.app, tasks, args, kwargs, given, last, link_error, last_task_id, group_index
        )
        return found

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run it here, step by step; returns the last step's EagerResult."""
        return import_object("celeriac.canvas.eager:apply", "chain")(self, args, kwargs, options)

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.tasks)) if self.tasks else "<chain of nothing>"


class chain(_chain):  # noqa: N801 -- Celery's documented name
    """Calls that run one after the other, each with what the one before returned.

    `chain(a, b, c)` is `a | b | c`; a list or generator of signatures may be given, too. What it makes follows the
    rules of `|`: a group that is followed by a task becomes a chord.

    Example:
        >>> chain(add.s(2, 2), mul.s(4))().get()
        16
    """

    def __new__(cls, *tasks: Any, **options: Any) -> Any:  # noqa: D102
        if not options and tasks and not (len(tasks) == 1 and isinstance(tasks[0], Signature)):
            return join_all(signatures(tasks, None))
        return super().__new__(cls)
