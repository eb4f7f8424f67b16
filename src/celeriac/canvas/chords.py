"""`chord`: a group, its header, and a call that gets the list of its results, the body.

The parts of the header carry the body. Whoever commits the last of them has it sent: nobody polls. If a part fails, the
body does not run: it fails with `ChordError` once all parts have ended, and its error callbacks are called.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

from celeriac.canvas.groups import group
from celeriac.canvas.members import as_member, own_copy
from celeriac.errors import ChordErrorCallbackWarning
from celeriac.loading import import_object
from celeriac.signature import Signature, maybe_signature

__all__ = ["chord"]


@Signature.register_type()
class chord(Signature):  # noqa: N801 -- Celery's documented name
    """A group and a call that gets the list of its results.

    Args:
        header: The signatures of the group, or the group.
        body: The call; may be given when the chord is called.

    Example:
        >>> chord(add.s(i, i) for i in range(3))(total.s()).get()
        6
    """

    def __init__(
        self,
        header: Any,
        body: Any = None,
        task: Any = "celery.chord",
        args: Any = None,
        kwargs: Any = None,
        app: Any = None,
        **options: Any,
    ) -> None:
        parts = _parts(header, app)
        body = None if body is None else as_member(body, app)
        inner = {"kwargs": dict(kwargs or {}), "header": parts, "body": body}
        super().__init__(task, args, inner, app=app, **options)
        self["subtask_type"] = "chord"
        found = [each._app for each in (*parts, body) if each is not None]
        self._app = self._app or next((each for each in found if each is not None), None)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], app: Any = None) -> Signature:
        """The chord whose dict form this is; its header may be a group or a list."""
        inner = d["kwargs"]
        header, body = inner["header"], inner.get("body")
        is_group = isinstance(header, Mapping)
        header = maybe_signature(header, app) if is_group else [maybe_signature(part, app) for part in header]
        twin = cls.__new__(cls)
        dict.__init__(twin, d)
        twin._app = app
        twin["kwargs"] = {**inner, "header": header, "body": maybe_signature(body, app)}
        twin["options"] = dict(d.get("options") or {})
        twin.setdefault("args", ())
        twin.setdefault("immutable", False)
        return twin

    @property
    def tasks(self) -> list[Any]:
        """The parts of its header."""
        header = self["kwargs"]["header"]
        parts: list[Any] = header if isinstance(header, list) else header.tasks
        return parts

    @property
    def body(self) -> Any:
        """Its body, or None."""
        return self["kwargs"]["body"]

    @body.setter
    def body(self, body: Any) -> None:
        self["kwargs"]["body"] = body

    def with_body(self, body: Any) -> chord:
        """The same header with another body."""
        twin: chord = own_copy(self)
        twin["kwargs"] = {**self["kwargs"], "body": body}
        return twin

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with this body."""
        return self.apply_async((), {"body": body} if body is not None else {}, **options)

    def apply_async(self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any) -> Any:
        """Send it. `args` go to every part of the header; options to the header and the body.

        Options of time (`countdown`, `eta`) are the header's alone, and `task_id` is the body's.

        Returns:
            The result of the body; its `parent` is the header's GroupResult.

        Raises:
            ImproperlyConfigured: There is no result backend, or one that can't count the parts.
            ValueError: It has no body.
        """
        whole = self._with_given(kwargs)
        return import_object("celeriac.canvas.publishing:send", "chord")(whole, args, None, options)

    def run(
        self, header: Any, body: Any, partial_args: Any = (), app: Any = None, interval: float | None = None,
        countdown: float = 1, max_retries: int | None = None, eager: bool = False, task_id: str | None = None,
        kwargs: Any = None, header_delay: Mapping[str, Any] | None = None, **options: Any,
    ) -> Any:  # fmt: skip
        """Send, or run here with `eager`, a chord of this header and body.

        Args:
            partial_args: Arguments for the parts of the header.
            interval, countdown, max_retries: No effect: nobody polls for the end of the header.
            task_id: Id of the body.
            kwargs: Keyword arguments for the body.
            header_delay: `countdown` or `eta` of the header.
        """
        whole = chord(header, body, app=app or self._app)
        if eager:
            return whole.apply(partial_args, kwargs, **options)
        given = {**options, **(header_delay or {}), **({"task_id": task_id} if task_id else {})}
        return whole.apply_async(partial_args, kwargs, **given)

    def apply(
        self, args: Any = None, kwargs: Any = None, propagate: bool = True, body: Any = None, **options: Any
    ) -> Any:
        """Run header and body here; returns the body's EagerResult."""
        whole = self._with_given({**(kwargs or {}), **({"body": body} if body is not None else {})})
        return import_object("celeriac.canvas.eager:apply", "chord")(whole, args, None, options)

    def _with_given(self, kwargs: Any) -> chord:
        given = dict(kwargs or {})
        body = given.pop("body", None)
        whole = self if body is None else self.with_body(as_member(body, self._app))
        if whole.body is None:
            raise ValueError("a chord needs a body: pass it as chord(header, body) or chord(header)(body)")
        if given:
            whole = whole.with_body(copy.deepcopy(whole.body))
            whole.body["kwargs"] = {**whole.body["kwargs"], **given}
        return whole

    def link(self, callback: Any) -> Any:
        """Run `callback` with what the body returns."""
        return self.body.link(callback)

    def link_error(self, errback: Any) -> Any:
        """Run `errback` when the chord fails; with `task_allow_error_cb_on_chord_header` for each failed part, too."""
        if self.app.conf.task_allow_error_cb_on_chord_header:
            for part in self.tasks:
                part.link_error(errback.clone())
        else:
            text = (
                "an error callback of a chord is called for its body only; set task_allow_error_cb_on_chord_header to have"
                " it called for failed tasks of the header, too"
            )
            warnings.warn(ChordErrorCallbackWarning(text), stacklevel=2)
        return self.body.link_error(errback)

    def set_immutable(self, immutable: bool) -> None:
        """Whether the parts of the header ignore further arguments."""
        for part in self.tasks:
            part.set_immutable(immutable)

    def __repr__(self) -> str:
        if self.body is None:
            return f"<chord without body: {self.tasks!r}>"
        return f"{self.body!r} of {self.tasks!r}"


def _parts(header: Any, app: Any) -> list[Any]:
    if isinstance(header, group):
        return header.tasks
    if isinstance(header, Mapping):
        return [as_member(header, app)]
    return [as_member(part, app) for part in header]
