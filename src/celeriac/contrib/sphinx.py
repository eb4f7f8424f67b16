"""For Sphinx: tasks in the pages that autodoc makes, with their own arguments, and a role that refers to them.

    extensions = ["celeriac.contrib.sphinx"]
    celery_task_prefix = "(task)"

`automodule` with `:members:` has a module's tasks then, `autotask` one task by name, `task` one that is described by hand; the
role `task` refers to it. Needs Sphinx 7 or newer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any

from docutils import nodes  # type: ignore[import-untyped]
from sphinx import addnodes
from sphinx.domains import ObjType
from sphinx.domains.python import PyFunction, PyXRefRole
from sphinx.ext.autodoc import FunctionDocumenter
from sphinx.util.docstrings import prepare_docstring

from celeriac.shared import SharedTask
from celeriac.task import Task

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

__all__ = ["TaskDirective", "TaskDocumenter", "autodoc_skip_member_handler", "setup"]

#: What stands before the name of a task, unless `celery_task_prefix` says otherwise.
PREFIX = "(task)"


class TaskDocumenter(FunctionDocumenter):
    """Documents a task as the function that it is made of; the directive `autotask`."""

    objtype = "task"
    #: Sorted by groups, tasks stand before functions.
    member_order = 25

    @classmethod
    def can_document_member(cls, member: Any, membername: str, isattr: bool, parent: Any) -> bool:
        """Whether this is a task."""
        return _is_task(member)

    def import_object(self, raiseerror: bool = False) -> bool:
        """Import the task; what is shown is its function, without the task itself where that is the first argument."""
        found = super().import_object(raiseerror)
        self._task = self.object if found and _is_task(self.object) else None
        if self._task is not None:
            self.object = _function_of(self.object)
        return found

    def get_doc(self) -> list[list[str]] | None:
        """The text about it: its function's, else that of its class."""
        if self._task is None or self.object.__doc__:
            return super().get_doc()
        text = _text_of(self._task)  # not what `Task.run` says to all of them
        return [prepare_docstring(text)] if text else []


class TaskDirective(PyFunction):
    """Describes a task: `.. task:: add(x, y)`."""

    def get_signature_prefix(self, sig: str) -> Sequence[nodes.Node]:
        """What stands before its name."""
        prefix = self.env.config.celery_task_prefix
        mark: list[nodes.Node] = [addnodes.desc_sig_keyword("", prefix), addnodes.desc_sig_space()] if prefix else []
        return [*mark, *super().get_signature_prefix(sig)]


def autodoc_skip_member_handler(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Keep a task that autodoc takes for undocumented: its text is that of its class, which was made for it alone.

    Returns:
        False to keep it, None to let autodoc decide.
    """
    excluded = getattr(options, "exclude_members", None) or ()
    if not skip or name.startswith("_") or name in excluded or not _is_task(obj) or not _text_of(obj):
        return None
    return False


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.add_config_value("celery_task_prefix", PREFIX, "env", types=frozenset({str}))
    app.add_autodocumenter(TaskDocumenter)
    app.add_directive_to_domain("py", "task", TaskDirective)
    app.add_role_to_domain("py", "task", PyXRefRole())
    app.registry.domain_object_types.setdefault("py", {})["task"] = ObjType("task", "task", "obj")
    app.connect("autodoc-skip-member", autodoc_skip_member_handler)
    # Before autodoc itself looks at it.
    app.connect("config-inited", _ask_documenters, priority=100)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _ask_documenters(app: Sphinx, config: Config) -> None:
    """From Sphinx 9 on, autodoc asks documenters such as ours about the members of a module only if it is told to."""
    if "autodoc_use_legacy_class_based" in config:
        config.autodoc_use_legacy_class_based = True


def _is_task(value: Any) -> bool:
    # By the type alone: the class of mocks and stand-ins is whatever one asks for.
    return issubclass(type(value), (Task, SharedTask))


def _function_of(task: Any) -> Callable[..., Any]:
    """What takes the arguments that callers give."""
    function: Callable[..., Any] | None = getattr(task, "__wrapped__", None)
    if function is None:  # it is a class of the user's
        run: Callable[..., Any] = task.run
        return run
    return MethodType(function, task) if task._bind else function


def _text_of(task: Any) -> str | None:
    """What is written about a task itself, not about tasks in general."""
    text = _function_of(task).__doc__ or type(task).__dict__.get("__doc__")
    return inspect.cleandoc(text) if text else None
