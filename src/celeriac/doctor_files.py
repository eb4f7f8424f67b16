"""The part of `celeriac doctor` that looks at files: rights, free space, and file systems that can't do what is needed.

`doctor` calls it for each driver that has a `path`. Nothing is written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from typing import Any

from celeriac.doctor_finding import Finding, Level

__all__ = ["examine_files"]

#: Free bytes below which it is about to fail, and below which it is worth a warning.
FULL, NEARLY_FULL = 50 * 2**20, 1 * 2**30
#: File systems over a network: locks and shared memory of SQLite don't work there.
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs", "lustre")


def examine_files(topic: str, driver: Any) -> Iterator[Finding]:
    """Findings about the file or folder of a driver; none for one that has no `path`."""
    path = getattr(driver, "path", None)
    if not isinstance(path, str) or not path:
        return
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    if not os.path.isdir(folder):
        yield Finding(Level.FAIL, topic, f"the folder {folder} does not exist", f"Make it: mkdir -p {folder}")
        return
    yield from _rights(topic, path, folder)
    yield from _space(topic, folder)
    kind = _file_system(folder)
    if kind in _NETWORK and os.path.isfile(path):
        text = f"{path} is on a network file system ({kind}), where SQLite's locks don't work: it may be damaged"
        yield Finding(Level.FAIL, topic, text, "Move it to a local disk, or use a server such as PostgreSQL or Redis.")


def _rights(topic: str, path: str, folder: str) -> Iterator[Finding]:
    for place in dict.fromkeys((path, folder)):
        if os.path.exists(place) and not os.access(place, os.R_OK | os.W_OK):
            advice = f"Give this user (uid {os.geteuid()}) the right to read and write it and its folder."
            yield Finding(Level.FAIL, topic, f"{place} can't be read and written by this user", advice)
            return
    if os.path.exists(path) and stat.S_IMODE(os.stat(path).st_mode) & stat.S_IWOTH:
        text = f"{path} can be written by every user of this machine, who can thereby run tasks"
        yield Finding(Level.WARN, topic, text, f"chmod o-w {path}")


def _space(topic: str, folder: str) -> Iterator[Finding]:
    usage = shutil.disk_usage(folder)
    text = f"{_size(usage.free)} of {_size(usage.total)} are free on the disk of {folder}"
    if usage.free < FULL:
        yield Finding(Level.FAIL, topic, text, "Free some: a full disk takes no task and no result.")
    elif usage.free < NEARLY_FULL:
        yield Finding(Level.WARN, topic, text, "Free some: a full disk takes no task and no result.")
    else:
        yield Finding(Level.OK, topic, text)


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:.3g} TiB"


def _file_system(folder: str) -> str:
    """Kind of the file system of a folder, such as "ext4"; "" where the system doesn't tell."""
    best, kind = "", ""
    with contextlib.suppress(OSError), open("/proc/mounts", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, place, found, *_ = line.split(" ")
            place = place.replace("\\040", " ")
            inside = folder == place or folder.startswith(place.rstrip("/") + "/")
            if inside and len(place) >= len(best):
                best, kind = place, found
    return kind
