"""The zygote: imports the app once and forks runners on request, in about a millisecond each, memory shared.

A fresh single-threaded interpreter, started by the supervisor as `python -m celeriac.runner.zygote FD`. It tells the
supervisor what the app is (HELLO), freezes the heap, and from then on only forks and reaps. It never runs a task.
If threads are alive after the import, forking would copy their locks: runners are then started by exec instead, as are those
of gevent and eventlet, which have to be patched before anything is imported.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import msgspec

from celeriac import log, signals
from celeriac.commands import own_commands
from celeriac.errors import CeleriacError
from celeriac.loading import AppNotFound, find_app, import_object
from celeriac.log import expand_index, set_process_index, setup_worker_logging
from celeriac.log_setup import log_as_configured
from celeriac.runner.greenlets import PATCHES
from celeriac.runner.protocol import (
    FrameReader,
    Hello,
    Kind,
    RunnerOptions,
    TaskFacts,
    ZygoteOptions,
    decode_frame,
    encode_frame,
)
from celeriac.runner.runner import debug_on_signal, run_runner
from celeriac.task import Task
from celeriac.task_limits import limits_of

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["facts_of", "hello_of", "load_app", "main", "tell_init"]

#: What the interpreter of a runner that is started by exec runs, once it is patched.
_MAIN = "import sys\nfrom celeriac.runner.zygote import main\nmain(sys.argv[1:])"
#: Carries the options to it.
_OPTIONS_VARIABLE = "CELERIAC_RUNNER_OPTIONS"


#: Attributes of tasks that `inspect registered` can show.
SHOWN = (
    "acks_late", "batch", "default_retry_delay", "exchange", "expires", "ignore_result", "max_retries", "priority", "queue",
    "rate_limit", "routing_key", "serializer", "soft_time_limit", "time_limit", "track_started",
)  # fmt: skip


def load_app(options: ZygoteOptions) -> Celeriac:
    """Import the app as the command line asks for it: in the zygote, and in the supervisor if it has to."""
    app: Celeriac = find_app(options.app)
    if options.changes:
        app.conf.update(options.changes)
    app.tell_preload_options("worker", options.arguments)
    tell_init(app, options, options.arguments)
    app.import_modules()
    for module in options.include:
        import_object(module, "--include")
    app.finalize()
    app.conf.validate()
    log_as_configured(app.conf, options.loglevel, options.logfile, options.colour)
    return app


def tell_init(app: Celeriac, options: Any, arguments: list[str]) -> None:
    """Send `celeryd_init`. Its receivers may change settings, so it comes before anything is made of them.

    Args:
        options: Of the zygote or of the worker.
        arguments: Of the command line.
    """
    given = {name: getattr(options, name) for name in ("include", "loglevel", "logfile")}
    given |= app.command_options("worker", arguments)
    signals.celeryd_init.send(sender=options.node, instance=None, conf=app.conf, options=given)


def facts_of(task: Any) -> TaskFacts:
    """What the supervisor has to know of a task."""
    return TaskFacts(
        time_limit=task.time_limit,
        soft_time_limit=task.soft_time_limit,
        acks_late=bool(task.acks_late),
        reject_on_worker_lost=bool(task.reject_on_worker_lost),
        retry_on_worker_lost=bool(task.retry_on_worker_lost),
        limits=limits_of(task),
        batch=import_object("celeriac.batch_task:size_of", "batch")(task) if task.batch is not None else None,
        batch_wait=task.batch_wait,
        has_secrets=task.secrets is not None,
        shown={name: str(value) for name in SHOWN if (value := getattr(task, name, None)) is not None},
    )


def _is_needed(app: Celeriac) -> bool:
    """Whether the supervisor has to import the app: for receivers, commands and requests of the user's own, keys."""
    listens = any(signals.ALL[name].receivers for name in signals.OF_THE_SUPERVISOR)
    if any(task.Request != Task.Request for task in app.tasks.values()):
        return True
    return listens or bool(own_commands()) or "auth" in app.conf.accept_content


def hello_of(app: Celeriac) -> Hello:
    """What the app is, as plain data."""
    conf, not_plain = app.conf.plain()
    return Hello(
        app=f"{app.main or '__main__'}",
        conf=conf,
        not_plain=list(not_plain),
        tasks={name: facts_of(task) for name, task in app.tasks.items()},
        queues=list(app.consumed_queues.values()),
        default_queue=app.router.default.name,
        threads=threading.active_count() - 1,
        listens=_is_needed(app),
        received_line=log.LOG_RECEIVED,
    )


def main(argv: list[str]) -> None:
    """Serve the supervisor on the socket whose descriptor is given."""
    if argv[0] == "exec":
        _run_by_exec(*argv[1:])
        return
    sock = socket.socket(fileno=int(argv[0]))
    with contextlib.suppress(BrokenPipeError):  # the supervisor has gone
        _serve(sock)


def _serve(sock: socket.socket) -> None:
    options = _read_options(sock)
    setup_worker_logging(options.loglevel, options.logfile, colour=options.colour)
    debug_on_signal()
    app, hello = _import(options)
    sock.sendall(encode_frame(Kind.HELLO, hello))
    if app is not None:
        app.close()
        gc.collect()
        gc.freeze()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # the supervisor has gone
            _Zygote(sock, app, options, by_exec=hello.threads > 0).serve()


def _read_options(sock: socket.socket) -> ZygoteOptions:
    reader = FrameReader()
    while True:
        frames = reader.receive(sock)
        if frames is None:
            sys.exit(0)
        for kind, body in frames:
            options: ZygoteOptions = decode_frame(kind, body)
            return options


def _import(options: ZygoteOptions) -> tuple[Celeriac | None, Hello]:
    try:
        app = load_app(options)
        app.tell_fixups("before_fork")  # before threads are counted: a pool of connections has some
        return app, hello_of(app)
    except AppNotFound as exc:
        return None, Hello(error=str(exc), is_missing=True)
    except CeleriacError as exc:
        return None, Hello(error=str(exc))
    except Exception as exc:  # the user's modules: their error is shown, with its traceback
        name = type(exc).__name__
        return None, Hello(error=f"importing {options.app!r} failed: {name}: {exc}", traceback=traceback.format_exc())


class _Zygote:
    """Forks on request and reports exits."""

    def __init__(self, sock: socket.socket, app: Celeriac, options: ZygoteOptions, *, by_exec: bool) -> None:
        self._sock = sock
        self._app = app
        self._options = options
        self._by_exec = by_exec
        self._reader = FrameReader()
        self._fds: list[int] = []
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def serve(self) -> None:
        """Until the supervisor closes the socket."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj == self._wake_read:
                        os.read(self._wake_read, 4096)
                        self._reap()
                    elif not self._receive():
                        return

    def _receive(self) -> bool:
        data, fds, _flags, _address = socket.recv_fds(self._sock, 65536, 64)
        self._fds += fds
        if not data:
            return False
        for kind, body in self._reader.feed(data):
            if kind == Kind.SPAWN:
                number, runner = decode_frame(kind, body)
                fds, self._fds = self._fds[:3], self._fds[3:]
                self._spawn(number, runner, fds)
        return True

    def _spawn(self, number: int, runner: RunnerOptions, fds: list[int]) -> None:
        by_exec = self._by_exec or runner.pool in PATCHES
        pid = self._exec(runner, fds) if by_exec else self._fork(runner, fds)
        for fd in fds:
            os.close(fd)
        self._sock.sendall(encode_frame(Kind.SPAWNED, (number, pid)))

    def _fork(self, runner: RunnerOptions, fds: list[int]) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            return pid
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._sock.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            for fd in self._fds:
                os.close(fd)
            _log_as_runner(self._app, self._options, runner)
            run_runner(self._app, runner, *fds)
        except BaseException:  # the last thing this process says; it must never go back into the zygote's loop
            traceback.print_exc()
        finally:
            os._exit(1)

    def _exec(self, runner: RunnerOptions, fds: list[int]) -> int:
        options = msgspec.msgpack.encode((self._options, runner)).hex()
        command = [sys.executable, "-c", f"{PATCHES.get(runner.pool, '')}\n{_MAIN}", "exec", *map(str, fds)]
        # Not as an argument: everybody can read those, and a broker's URL may hold a password.
        process = subprocess.Popen(command, pass_fds=fds, env={**os.environ, _OPTIONS_VARIABLE: options})
        process.returncode = 0  # `_reap` waits for it; `subprocess` must not
        return process.pid

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._sock.sendall(encode_frame(Kind.EXITED, (pid, status)))


def _run_by_exec(*fds: str) -> None:
    """A runner that was started by exec: imports the app for itself."""
    encoded = bytes.fromhex(os.environ.pop(_OPTIONS_VARIABLE))
    options, runner = msgspec.msgpack.decode(encoded, type=tuple[ZygoteOptions, RunnerOptions])
    setup_worker_logging(options.loglevel, options.logfile, colour=options.colour)
    app = load_app(options)
    _log_as_runner(app, options, runner)
    run_runner(app, runner, *map(int, fds))


def _log_as_runner(app: Celeriac, options: ZygoteOptions, runner: RunnerOptions) -> None:
    """A runner writes to a log file of its own when the file's name asks for that."""
    set_process_index(runner.number)
    if options.logfile and expand_index(options.logfile) != options.logfile:
        log_as_configured(app.conf, options.loglevel, options.logfile, options.colour)


if __name__ == "__main__":
    main(sys.argv[1:])
