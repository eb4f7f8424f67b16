"""What handlers and signals get as `einfo`: the traceback of an error as text, and the error itself under Celery's names."""

from __future__ import annotations

from types import TracebackType
from typing import Self

__all__ = ["ExceptionInfo"]


class ExceptionInfo(str):
    """A traceback's text that knows its exception: `str(einfo)`, `einfo.traceback`, `einfo.exception`, `einfo.type`.

    Attributes:
        exception: The error.
        type: Its class.
        internal: Always False; Celery tells errors of its own so.
    """

    exception: BaseException
    type: type[BaseException]
    internal = False

    def __new__(cls, exception: BaseException, text: str) -> Self:
        """Of an exception whose traceback reads so."""
        self = super().__new__(cls, text)
        self.exception, self.type = exception, type(exception)
        return self

    @property
    def traceback(self) -> str:
        """The text, as plain text."""
        return str.__str__(self)

    @property
    def tb(self) -> TracebackType | None:
        """The traceback itself, where the error was raised in this process."""
        return self.exception.__traceback__

    def __reduce__(self) -> tuple[object, ...]:
        return ExceptionInfo, (self.exception, self.traceback)
