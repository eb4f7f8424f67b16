"""Finding a driver by the scheme of its URL: shared by `transport.open` and `results.open`, and by nobody else.

Drivers are the only modules that are imported late, and only here: a program that uses Redis never loads the driver
of another broker, nor its vendor library. Third parties add drivers by entry points, which are read only when a
scheme is not one of ours. Passwords in URLs never reach an error message.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from celeriac.config_mask import mask_url
from celeriac.errors import ImproperlyConfigured, near_match

__all__ = ["check_options", "find_factory", "mask_url", "split_query"]

#: What may be shown of a text that is no URL: a word, or host, port and path. Anything else may hold a password.
_HARMLESS = re.compile(r"[\w.+-]*(:\d+)?(/[\w.-]*)?")


def find_factory(url: str, table: Mapping[str, str], group: str, what: str) -> Callable[..., Any]:
    """The function or class that opens `url`.

    Args:
        url: As the user wrote it.
        table: Scheme to "module:factory"; "db+*" stands for all that begin with "db+".
        group: Name of the entry point group for schemes that are not in the table.
        what: "broker" or "result backend", for messages.

    Raises:
        ImproperlyConfigured: The URL has no scheme, or one that nobody offers, or its library is not installed.
    """
    if not isinstance(url, str):
        raise ImproperlyConfigured(f"The {what} URL must be text such as 'sqlite:///celeriac.db', not {url!r}.")
    scheme, separator, _ = url.partition("://")
    if not separator:
        # `result_backend = "redis"` is seen in the wild, so a bare scheme gets its own hint.
        hint = f" Write {url + '://'!r}." if url in table else ""
        shown = f"{url!r} is not a {what} URL: it" if _HARMLESS.fullmatch(url) else f"The {what} URL"
        raise ImproperlyConfigured(f"{shown} must start with 'scheme://', as 'sqlite:///celeriac.db' does.{hint}")
    target = table.get(scheme) or table.get(scheme.partition("+")[0] + "+*")
    if target is not None:
        module, _, name = target.partition(":")
        return _load(lambda: getattr(importlib.import_module(module), name), scheme, what)
    offered = {entry.name: entry for entry in entry_points(group=group)}
    if scheme in offered:
        return _load(offered[scheme].load, scheme, what)
    known = sorted({name for name in (*table, *offered) if not name.endswith("+*")})
    raise ImproperlyConfigured(
        f"No {what} driver for {scheme!r} in {mask_url(url)!r}; known are {', '.join(known)}.{near_match(scheme, known)}"
    )


def entry_points(group: str) -> Iterable[Any]:
    """What installed packages offer."""
    # Takes a fifth of what `import celeriac` costs, and few need it.
    metadata = importlib.import_module("importlib.metadata")
    found: Iterable[Any] = metadata.entry_points(group=group)
    return found


def _load(load: Callable[[], Any], scheme: str, what: str) -> Callable[..., Any]:
    try:
        factory: Callable[..., Any] = load()
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.split(".")[0] == "celeriac":
            raise  # a broken driver, not a missing library
        raise ImproperlyConfigured(
            f"The {what} {scheme}:// needs the package {exc.name!r}, which is not here."
        ) from exc
    return factory


def split_query(url: str) -> tuple[str, dict[str, str]]:
    """The URL without its query, and the query's options."""
    base, _, query = url.partition("?")
    return base, dict(parse_qsl(query, keep_blank_values=True))


def check_options(options: Iterable[str], known: Iterable[str], what: str) -> None:
    """Refuse option names that a driver doesn't know.

    Raises:
        ImproperlyConfigured: Naming the first one and the nearest known name.
    """
    allowed = sorted(known)
    for name in options:
        if name not in allowed:
            listed = ", ".join(allowed) or "none"
            raise ImproperlyConfigured(f"{what} has no option {name!r}; it has {listed}.{near_match(name, allowed)}")
