"""The base class of tasks in Django projects: they can be sent once the database transaction has committed.

    with transaction.atomic():
        order.save()
        ship.delay_on_commit(order.pk)

Without it a worker may look for the order before it is there, or for one that was rolled back. Where the broker is the very
database, `apply_async(connection=…)` does the same without the gap between commit and sending.
"""

from __future__ import annotations

import functools
from typing import Any

from django.db import transaction  # type: ignore[import-untyped]

from celeriac.task import Task

__all__ = ["DjangoTask"]


class DjangoTask(Task[..., Any]):
    """A task that can be sent when the transaction of this thread commits. Outside of one that is at once."""

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """`delay`, once the transaction has committed; nothing is sent if it is rolled back."""
        transaction.on_commit(functools.partial(self.delay, *args, **kwargs))

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """`apply_async`, once the transaction has committed."""
        transaction.on_commit(functools.partial(self.apply_async, *args, **kwargs))
