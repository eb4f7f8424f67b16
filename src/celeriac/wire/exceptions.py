"""Exceptions as data: the form in which Celery stores them, and exceptions made of that form again.

The runner writes forms, clients and error callbacks read them. Reading never raises and never imports: only classes in
modules that are already loaded are used, and only subclasses of `Exception`. An exception whose class is not here, or
can't be rebuilt from its arguments, comes back as a stand-in with the same name, module and text; where the class is
here the stand-in is a subclass of it, so that `except` clauses still work.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

from celeriac import codec, errors
from celeriac.errors import CeleriacError
from celeriac.safe_repr import saferepr

__all__ = ["exception_form", "exception_from_form"]

#: How long a chain of causes is carried.
_MAX_CAUSES = 8
_MAX_NOTES = 32

_BILLIARD = ("SoftTimeLimitExceeded", "Terminated", "TimeLimitExceeded", "WorkerLostError")
_KOMBU = ("ContentDisallowed", "DecodeError", "EncodeError", "OperationalError")
_OWN = ("CeleriacError", "CeleriacWarning", "LeaseLost", "MessageTooLarge")
#: The module under which a stock client knows each class of ours, so that it can catch it.
_PEER_MODULES = {
    name: "billiard.exceptions" if name in _BILLIARD else "kombu.exceptions" if name in _KOMBU else "celery.exceptions"
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, BaseException) and value.__module__ == errors.__name__
    if name not in _OWN
}


# --- writing ---


def exception_form(exc: BaseException, serializer: str = "json") -> dict[str, Any]:
    """Celery's form of an exception: `exc_type`, `exc_message` (the arguments) and `exc_module`.

    Arguments that `serializer` can't write become their repr. Where there is more to tell, peers ignore the keys that
    tell it: `exc_text` (of a class with its own `__str__`), `exc_notes` and `exc_cause`.
    """
    return _form(exc, serializer, _MAX_CAUSES)


def _form(exc: BaseException, serializer: str, causes: int) -> dict[str, Any]:
    kind = type(exc)
    args = _args(exc)
    form: dict[str, Any] = {
        "exc_type": kind.__qualname__,
        "exc_message": [_item(item, serializer) for item in args],
        "exc_module": _module(kind),
    }
    if _has_own_text(kind):
        text = _text(exc)
        if text != _default_text(args):
            form["exc_text"] = text
    notes = getattr(exc, "__notes__", None)
    if isinstance(notes, list) and notes:
        form["exc_notes"] = [note for note in notes[:_MAX_NOTES] if isinstance(note, str)]
    cause = exc.__cause__
    if cause is not None and cause is not exc and causes > 0:  # the count also ends longer loops
        form["exc_cause"] = _form(cause, serializer, causes - 1)
    return form


def _has_own_text(kind: type) -> bool:
    """Whether its text is made by a class of others: in Python, or in C or Rust as pydantic's."""
    maker = next(base for base in kind.__mro__ if "__str__" in vars(base))
    return maker.__module__ not in ("builtins", errors.__name__)


def _module(kind: type) -> str:
    if kind.__module__ == errors.__name__:
        return _PEER_MODULES.get(kind.__name__, kind.__module__)
    return kind.__module__


def _args(exc: BaseException) -> tuple[Any, ...]:
    try:
        return tuple(exc.args)
    except Exception:  # a class may define `args` as it likes
        return (_text(exc),)


def _item(item: Any, serializer: str) -> Any:
    if item is None or type(item) in (str, float, bool):
        return item
    try:
        codec.dumps(item, serializer)
    except CeleriacError:
        return saferepr(item)
    return item


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as problem:
        return f"<{type(exc).__qualname__} object, its __str__ raised {type(problem).__name__}>"


def _default_text(args: Sequence[Any]) -> str:
    """What `str` says of an exception whose class leaves that to its base."""
    return _text(Exception(*args))


# --- reading ---


def exception_from_form(form: Any) -> Exception:
    """The exception that a form describes. Whatever the form is, this returns one and never raises."""
    return _from_form(form, _MAX_CAUSES)


def _from_form(form: Any, causes: int) -> Exception:
    if isinstance(form, Exception):
        return form
    if not isinstance(form, dict) or not isinstance(form.get("exc_type"), str):
        return Exception(form if isinstance(form, str) else saferepr(form))
    name, module = form["exc_type"], form.get("exc_module")
    message, text = form.get("exc_message"), form.get("exc_text")
    args = tuple(message) if isinstance(message, (list, tuple)) else () if message is None else (message,)
    exc = _build(name, module if isinstance(module, str) else "", args, text if isinstance(text, str) else None)
    notes = form.get("exc_notes")
    for note in notes[:_MAX_NOTES] if isinstance(notes, list) else ():
        if isinstance(note, str):
            exc.add_note(note)
    if isinstance(form.get("exc_cause"), dict) and causes > 0:
        exc.__cause__ = _from_form(form["exc_cause"], causes - 1)
    return exc


def _build(name: str, module: str, args: tuple[Any, ...], text: str | None) -> Exception:
    kind = _find(name, module)
    if kind is not None:
        for make in (kind, kind.__new__):
            exc = _attempt(make, kind, args, text)
            if exc is not None:
                return exc
    return _stand_in(name, module, args, _default_text(args) if text is None else text)


def _attempt(make: Any, kind: type[Exception], args: tuple[Any, ...], text: str | None) -> Exception | None:
    """Call the class, or its `__new__` alone; None unless the outcome says the same as the original."""
    try:
        exc = make(*args) if make is kind else make(kind, *args)
        # A class that wraps its argument ("no user bob") would wrap the text once more.
        is_same = type(exc) is kind and exc.args == args and (str(exc) == text or text is None)
    except Exception:  # constructors of users raise what they like
        return None
    return exc if is_same else None


def _find(name: str, module: str) -> type[Exception] | None:
    """The class, if its module is loaded and it is an exception class. Plain attributes only: nothing is run."""
    if name in _PEER_MODULES and module in ("celery.exceptions", "billiard.exceptions", "kombu.exceptions"):
        module = errors.__name__
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        if not isinstance(found, (ModuleType, type)):
            return None
        found = vars(found).get(part)
    # SystemExit, KeyboardInterrupt or CancelledError of a task must not end or cancel the program that asks for it.
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _stand_in(name: str, module: str, args: tuple[Any, ...], text: str) -> Exception:
    base: Any = _find(name, module) or Exception
    try:
        return _fill(_stand_in_class(name, module, base), args, text)
    except Exception:  # the class forbids subclasses, or needs its own __new__
        return _fill(_stand_in_class(name, module, Exception), args, text)


def _fill(kind: Any, args: tuple[Any, ...], text: str) -> Exception:
    exc: Exception = Exception.__new__(kind)
    exc.args = args
    exc.__dict__["_text"] = text
    return exc


@lru_cache(maxsize=256)
def _stand_in_class(name: str, module: str, base: Any) -> type[Exception]:
    def show(self: Exception) -> str:
        return str(self.__dict__.get("_text", ""))

    def reduce(self: Exception) -> tuple[Any, ...]:
        return _stand_in, (name, module, self.args, show(self))

    body = {"__module__": module, "__qualname__": name, "__str__": show, "__reduce__": reduce}
    title = name.rpartition(".")[2] or "Exception"
    # A class takes any name but one with half a surrogate pair or a NUL.
    title = title.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return type(title, (base,), body)
