"""Which Celery this is, for programs that ask: the release whose documented interface and messages celeriac follows."""

from __future__ import annotations

from typing import NamedTuple

from celeriac import __version__ as _own_version

__all__ = ["SERIES", "VERSION", "VERSION_BANNER", "__version__", "version_info"]


class VersionInfo(NamedTuple):
    """The parts of a version."""

    major: int
    minor: int
    micro: int
    releaselevel: str = ""
    serial: str = ""


VERSION = version_info = VersionInfo(5, 7, 0)
__version__ = "5.7.0"
SERIES = "celeriac"
VERSION_BANNER = f"{__version__} (celeriac {_own_version})"
