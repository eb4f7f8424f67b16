"""The tasks of an app, by name."""

from __future__ import annotations

from typing import Any

from celeriac.errors import NotRegistered

__all__ = ["TaskRegistry"]


class TaskRegistry(dict[str, Any]):
    """Tasks by name, as Celery documents it."""

    NotRegistered = NotRegistered

    def __missing__(self, key: str) -> Any:
        raise NotRegistered(key)

    def register(self, task: Any) -> None:
        """Add a task (an instance or its class)."""
        instance = task() if isinstance(task, type) else task
        self[instance.name] = instance

    def unregister(self, name: Any) -> None:
        """Remove a task, by name or itself.

        Raises:
            NotRegistered: There is none of this name.
        """
        key = getattr(name, "name", name)
        if key not in self:
            raise NotRegistered(key)
        del self[key]

    def regular(self) -> dict[str, Any]:
        """The tasks that are not periodic ones of Celery 3."""
        return self.filter_types("regular")

    def periodic(self) -> dict[str, Any]:
        """The periodic tasks of Celery 3: those whose attribute `type` says so."""
        return self.filter_types("periodic")

    def filter_types(self, type: str) -> dict[str, Any]:
        """The tasks whose attribute `type` is this; without one a task is "regular"."""
        return {name: task for name, task in self.items() if getattr(task, "type", "regular") == type}
