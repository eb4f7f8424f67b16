"""What daemons do: pid files, going to the background, another user, starting again with the same arguments.

Called by the command `worker`, in this order: `become`, `detach`, `PidFile`, and at the end perhaps `start_again`.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from celeriac.cli.problems import Failure

__all__ = ["become", "detach", "is_detached", "node_path", "pid_file", "start_again"]

#: Set for the process in the background, so that it does not go there again.
_MARK = "CELERIAC_DETACHED"
#: "Can't create": what Celery exits with when the pid file belongs to a worker that runs.
EX_CANTCREAT = 73
_FIELD = re.compile(r"%([nhdpiI%])")


def node_path(path: str, node: str, *, keep_index: bool = False) -> str:
    """A path with the parts of the node name put in: %p node, %n name, %h host, %d domain; %i is 0 and %I is empty.

    Args:
        keep_index: Leave %i and %I, which each process of the worker puts in for itself (`log.expand_index`).
    """
    name, _, host = node.partition("@")
    parts = {"p": node, "n": name, "h": host, "d": host.partition(".")[2], "i": "0", "I": "", "%": "%"}
    if keep_index:
        parts.update(i="%i", I="%I")
    return _FIELD.sub(lambda match: parts[match[1]], path)


def become(uid: str | None, gid: str | None, umask: str | None) -> None:
    """Take another umask, group and user, in this order.

    Raises:
        Failure: There is no such user or group, or this process may not become them.
    """
    if umask is not None:
        try:
            os.umask(int(umask, 8))
        except ValueError:
            raise click.UsageError(f"--umask is an octal number such as 022, not {umask!r}.") from None
    try:
        user = _user(uid) if uid else None
        group = _group(gid) if gid else user.pw_gid if user else None
        if group is not None:
            os.setgid(group)
        if user is not None:
            os.initgroups(user.pw_name, group if group is not None else user.pw_gid)
            os.setuid(user.pw_uid)
    except KeyError:
        raise Failure(
            f"There is no user {uid!r}." if gid is None else f"There is no user {uid!r} or no group {gid!r}."
        ) from None
    except PermissionError:
        raise Failure(f"Only root may run a worker as another user ({uid or gid!r}).") from None


def _user(text: str) -> pwd.struct_passwd:
    return pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)


def _group(text: str) -> int:
    return int(text) if text.isdecimal() else grp.getgrnam(text).gr_gid


def is_detached() -> bool:
    """Whether this is the process in the background."""
    return os.environ.get(_MARK) == "1"


def detach(executable: str | None, logfile: str | None, pidfile: str | None, started_in: Path) -> int:
    """Start the same command once more in the background; returns its pid.

    Raises:
        Failure: The log file or the pid file can't be written.
    """
    for path in filter(None, (logfile, pidfile)):
        folder = Path(path).absolute().parent
        if not os.access(path if os.path.exists(path) else folder, os.W_OK):
            raise Failure(f"{path!r} can't be written.", EX_CANTCREAT)
    command = [executable or sys.executable, *sys.orig_argv[1:]]
    try:
        process = subprocess.Popen(
            command,
            cwd=started_in,
            env={**os.environ, _MARK: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as exc:
        raise Failure(f"{command[0]!r} can't be started: {exc.strerror}.") from exc
    process.returncode = 0  # it is on its own from here: nobody waits for it
    return process.pid


@contextlib.contextmanager
def pid_file(path: str | None) -> Iterator[None]:
    """Hold a file with this process's id; one that a dead process left is replaced.

    Raises:
        Failure: It belongs to a process that runs, or can't be written (exit code 73).
    """
    if not path:
        yield
        return
    _write_pid(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _read_pid(path) == os.getpid():
                os.unlink(path)


def _write_pid(path: str) -> None:
    for _ in range(2):
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            owner = _read_pid(path)
            if owner is not None and owner != os.getpid() and _is_alive(owner):
                raise Failure(f"pid file {path!r}: a worker runs already, with pid {owner}.", EX_CANTCREAT) from None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        except OSError as exc:
            raise Failure(f"pid file {path!r} can't be written: {exc.strerror}.", EX_CANTCREAT) from exc
        else:
            with os.fdopen(file, "w") as stream:
                stream.write(f"{os.getpid()}\n")
            return
    raise Failure(f"pid file {path!r}: another worker is starting.", EX_CANTCREAT)


def _read_pid(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def start_again(started_in: Path) -> None:
    """Become a new process of the same command."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(started_in)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 -- no shell is meant
