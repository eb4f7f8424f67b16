"""Members of a group that are nothing but a call: what they have in common is made once for each task.

Most large groups are made of such members. `publishing` asks for each; the others go the general way, by which they would
get the very same messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celeriac.message import Message
from celeriac.result import AsyncResult
from celeriac.sending import filled, form_key, prepare
from celeriac.signature import Signature

if TYPE_CHECKING:
    from celeriac.app import Celeriac
    from celeriac.wire.messages import CallForm

__all__ = ["Alike"]


class Alike:
    """The plain members of one group.

    Args:
        args: Put before the members' own arguments, unless they are immutable.
        kwargs: Added to theirs.
        options: Of every member, but for its place in the group.
    """

    def __init__(
        self, app: Celeriac, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: dict[str, Any]
    ) -> None:
        self._app = app
        self._args = args
        self._kwargs = kwargs
        self._options = options
        self._tasks = app.tasks
        self._forms: dict[Any, CallForm] = {}
        self._by_name: dict[str, CallForm] = {}

    @staticmethod
    def takes(member: Any) -> bool:
        """Whether it is a call without options of its own."""
        is_call = type(member) is Signature and member["task"] != "celery.chunks"
        return is_call and not (member["options"] or member["subtask_type"])

    def message(self, member: Signature, task_id: str, index: int) -> tuple[Message, AsyncResult[Any]]:
        """Its message, and its result to come."""
        name, args, kwargs = member["task"], member["args"], member["kwargs"]
        if not member["immutable"]:
            args = (*self._args, *args) if self._args else args
            kwargs = {**kwargs, **self._kwargs} if self._kwargs else kwargs
        task = self._tasks.get(name)
        if task is not None and task.typing:
            task.check_arguments(args, kwargs)
        form = self._by_name.get(name)
        if form is not None:
            return filled(self._app, form, task_id, args, kwargs, index)
        options = {**self._options, "group_index": index}
        made = prepare(self._app, name, args, kwargs, task_id, task=task, options=options, forms=self._forms)
        form = self._forms.get(form_key(name, options))
        if form is not None:
            self._by_name[name] = form
        return made
