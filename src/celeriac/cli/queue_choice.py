"""Which queues a command is about: all of the app's, or those that `-Q` and `-X` choose; used by `purge` and `list`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from celeriac.app import Celeriac
from celeriac.errors import near_match

__all__ = ["chosen_queues"]


def chosen_queues(app: Celeriac, queues: Sequence[str] | None, exclude: Sequence[str] | None = None) -> list[str]:
    """Names of the queues.

    Raises:
        UsageError: All were left out, or one is neither the app's nor may be made.
    """
    known = list(app.router.queues)
    for name in (*(queues or ()), *(exclude or ())):
        if name not in known and not app.conf.task_create_missing_queues:
            raise click.UsageError(
                f"Queue {name!r} is not in task_queues ({', '.join(known)}).{near_match(name, known)}"
            )
    found = [name for name in (queues or known) if name not in (exclude or ())]
    if not found:
        raise click.UsageError("No queue is left: -X leaves out all of them.")
    return found
