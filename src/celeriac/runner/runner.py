"""A runner process: what every kind of runner does before its loop, whether forked or started by exec.

It ignores the signals that are meant for the supervisor, dumps its stacks on SIGUSR1, opens a debugger on SIGUSR2 if told to,
and dies at once with its supervisor: that alone holds the other end of the `lifeline`, and the kernel kills us when it closes.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import os
import random
import signal
import socket
import sys
import threading
import traceback
from typing import TYPE_CHECKING

from celeriac import signals
from celeriac.loading import import_object
from celeriac.log_setup import stdouts_as_configured
from celeriac.runner.channel import Channel
from celeriac.runner.protocol import Cells, Kind, RunnerOptions

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["debug_on_signal", "run_runner"]

#: pool → its runner, imported when it is the one
RUNNERS = {
    "prefork": "celeriac.runner.serial:SerialRunner",
    "threads": "celeriac.runner.threads:ThreadsRunner",
    "asyncio": "celeriac.runner.aio:AsyncioRunner",
    "gevent": "celeriac.runner.greenlets:gevent_runner",
    "eventlet": "celeriac.runner.greenlets:eventlet_runner",
}


def run_runner(app: Celeriac, options: RunnerOptions, sock_fd: int, cells_fd: int, lifeline_fd: int) -> None:
    """Run tasks until the supervisor closes the socket. The process ends afterwards."""
    _prepare_process(lifeline_fd)
    app.after_fork()
    app.origin = options.node
    cells = Cells(cells_fd, options.slots)
    os.close(cells_fd)
    channel = Channel(socket.socket(fileno=sock_fd), owns_process=True)
    signals.worker_process_init.send(sender=None)
    channel.send(Kind.READY, os.getpid())
    code = 0
    try:
        with stdouts_as_configured(app.conf):
            runner = import_object(RUNNERS[options.pool], f"pool {options.pool}")
            runner(app, options.node, channel, cells).run()
    except SystemExit as exc:  # a task called sys.exit(): the supervisor treats that as a crash
        code = exc.code if isinstance(exc.code, int) else 1
    except BaseException:  # a fault of ours; what this process ran is given back by the supervisor
        traceback.print_exc()
        code = 1
    finally:
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=code)
        with contextlib.suppress(Exception):
            app.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _prepare_process(lifeline_fd: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.set_wakeup_fd(-1)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    debug_on_signal()
    random.seed()
    die_with(lifeline_fd)


def debug_on_signal() -> None:
    """Where CELERY_RDBSIG is set, SIGUSR2 opens a debugger in this process; called by each process of a worker."""
    if os.environ.get("CELERY_RDBSIG"):
        import_object("celeriac.contrib.rdb:handle_signals", "CELERY_RDBSIG")()


def die_with(lifeline_fd: int) -> None:
    """Be killed when the other end of this pipe closes, even in the middle of a C call."""
    if sys.platform == "linux":
        fcntl.fcntl(lifeline_fd, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline_fd, _F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline_fd, fcntl.F_GETFL)
        fcntl.fcntl(lifeline_fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    else:
        threading.Thread(target=_die_at_end, args=(lifeline_fd,), daemon=True).start()


#: Linux's F_SETSIG, which the fcntl module does not name before Python 3.13.
_F_SETSIG = 10


def _die_at_end(fd: int) -> None:
    os.read(fd, 1)
    os._exit(1)
