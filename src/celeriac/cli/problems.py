"""Errors as people see them: one line without secrets, and the exceptions by which commands end.

Used by every command. Invariant: no text that goes out through here holds a password of a URL.
"""

from __future__ import annotations

import re
from typing import IO, Any

import click

from celeriac.config_mask import mask_url

__all__ = ["Failure", "ImportProblem", "one_line"]

_URL = re.compile(r"[a-zA-Z][\w+.-]*://[^\s'\"]+")


def one_line(problem: object) -> str:
    """The text of an error, on one line, with the passwords of URLs masked."""
    text = " ".join(str(problem).split()) or type(problem).__name__
    return _URL.sub(lambda match: mask_url(match[0]), text)


class Failure(click.ClickException):
    """A command could not do what it was asked: one line, and an exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(one_line(message))
        self.exit_code = exit_code  # type: ignore[misc]  # per error, as click reads it


class ImportProblem(Failure):
    """The user's own module raised when it was imported: its traceback is shown, for it is theirs."""

    def __init__(self, text: str, traceback: str) -> None:
        super().__init__(text)
        self.traceback = traceback

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the traceback, then the line."""
        click.echo(self.traceback.rstrip(), err=True)
        super().show(file)
