"""Settings before the configuration was read, under Celery's name; `celery.app.base.PendingConfiguration`. An app uses none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["PendingConfiguration"]


class PendingConfiguration(dict[str, Any]):
    """Settings that are set before the configuration was read, which is done when one is first asked for.

    Args:
        conf: What was set already; further ones are put there.
        callback: Reads the configuration, which is to take `conf` in, and returns it.
    """

    def __init__(self, conf: dict[str, Any], callback: Callable[[], Any]) -> None:
        super().__init__()
        self.__dict__.update(_pending=conf, callback=callback, _read=None)

    @property
    def data(self) -> Any:
        """The configuration, read now if it was not."""
        if self._read is None:
            self.__dict__["_read"] = self.callback()
        return self._read

    def _place(self) -> Any:
        """Where values are put."""
        return self._pending if self._read is None else self._read

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._place()[key] = value

    def __delitem__(self, key: str) -> None:
        del self.data[key]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.data, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __contains__(self, key: object) -> bool:
        return key in self.data

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return repr(self._place() if self._read is None else self._read)

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or `default`."""
        return self.data.get(key, default)

    def keys(self) -> Any:
        """Names."""
        return self.data.keys()

    def values(self) -> Any:
        """Values."""
        return self.data.values()

    def items(self) -> Any:
        """Names and values."""
        return self.data.items()

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several; the configuration need not be read for that."""
        self._place().update(*args, **kwargs)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value that was set, which is `default` if none was."""
        return self._place().setdefault(key, default)

    def clear(self) -> None:
        """Forget what was set."""
        self._place().clear()
