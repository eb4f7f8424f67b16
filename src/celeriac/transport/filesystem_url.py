"""What a `filesystem://` URL and its options say: which folders, and how messages are written.

The filesystem transport calls `parse_url`. The options are those of kombu's filesystem transport and two of our own. Folders
are made absolute here: a later chdir (a daemon does one) must not make them others. Nothing is made or opened.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import msgspec

from celeriac.errors import ImproperlyConfigured
from celeriac.results.drivers import check_options, split_query

__all__ = ["Settings", "parse_url"]

_OPTIONS = ("control_folder", "data_folder_in", "data_folder_out", "polling_interval", "processed_folder",
            "store_processed", "synchronous")  # fmt: skip
#: Options that mean nothing here; configurations carry them along.
_IGNORED = frozenset({"client_name", "data_folder_processed", "interval_max", "interval_start", "interval_step",
                      "max_retries", "visibility_timeout"})  # fmt: skip


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Folders and manners.

    Attributes:
        folder_in: Read from.
        folder_out: Written to.
        control: Bindings and broadcasts.
        processed: Where acknowledged messages go; "" deletes them.
        polling_interval: Longest pause between two looks, in seconds.
        is_synchronous: Whether what is published outlives a power cut, not only a crash of any process.
    """

    folder_in: str
    folder_out: str
    control: str
    processed: str
    polling_interval: float
    is_synchronous: bool


def parse_url(url: str, options: Mapping[str, Any]) -> Settings:
    """The settings in a URL such as `filesystem:///var/lib/queue`, and in `broker_transport_options`.

    Raises:
        ImproperlyConfigured: No folder is named, or an option is unknown or wrong.
    """
    base, query = split_query(url)
    given = {name: value for name, value in {**options, **query}.items() if name not in _IGNORED}
    check_options(given, _OPTIONS, "filesystem://")
    folder_in, folder_out, control = _folders(base, given)
    processed = _absolute(given.get("processed_folder") or "processed")
    return Settings(
        folder_in=folder_in,
        folder_out=folder_out,
        control=control,
        processed=processed if _is_true("store_processed", given.get("store_processed", False)) else "",
        polling_interval=_seconds("polling_interval", given.get("polling_interval", 0.05)),
        is_synchronous=_is_full(given.get("synchronous", "FULL")),
    )


def _folders(base: str, given: Mapping[str, Any]) -> tuple[str, str, str]:
    """The folders for reading, writing and control."""
    place = base.partition("://")[2]
    path = place.removeprefix("localhost") if place.startswith("localhost/") else place
    folder_in, folder_out = (given.get(name) or path for name in ("data_folder_in", "data_folder_out"))
    if not str(folder_in).strip("/") or not str(folder_out).strip("/"):
        raise ImproperlyConfigured(
            f"{base!r} names no folder: write 'filesystem:///var/lib/queue', or set data_folder_in and data_folder_out "
            "(for workers that read what they send, the same folder) in broker_transport_options."
        )
    found_in, found_out = _absolute(folder_in), _absolute(folder_out)
    default = os.path.join(found_in, ".celeriac") if found_in == found_out else "control"
    return found_in, found_out, _absolute(given.get("control_folder") or default)


def _absolute(folder: Any) -> str:
    try:
        return os.path.realpath(str(folder))
    except ValueError as exc:
        raise ImproperlyConfigured(f"filesystem:// can't have a folder {folder!r}: {exc}.") from exc


def _is_true(name: str, value: Any) -> bool:
    if isinstance(value, bool) or str(value).lower() in ("true", "false", "1", "0", "yes", "no"):
        return str(value).lower() in ("true", "1", "yes")
    raise ImproperlyConfigured(f"filesystem:// option {name} is true or false, not {value!r}.")


def _is_full(value: Any) -> bool:
    if str(value).upper() not in ("FULL", "NORMAL"):
        raise ImproperlyConfigured(f"filesystem:// option synchronous is FULL or NORMAL, not {value!r}.")
    return str(value).upper() == "FULL"


def _seconds(name: str, value: Any) -> float:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if 0 < float(value) < 3600:
            return float(value)
    raise ImproperlyConfigured(f"filesystem:// option {name} is a number of seconds above 0, not {value!r}.")
