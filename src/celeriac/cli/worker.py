"""`celeriac worker`: reads its options, makes itself at home as a process, and runs a supervisor to its end.

The supervisor does not import the app (the zygote does), except with the solo pool, whose tasks run in this very process.
Exit codes: 0 after any shutdown, 1 if it could not start, 2 for a wrong use, 73 if its pid file is taken.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from celeriac import __version__, signals
from celeriac.cli.command_context import CommandContext, settings_of
from celeriac.cli.daemon import become, detach, is_detached, node_path, pid_file, start_again
from celeriac.cli.group import option
from celeriac.cli.problems import Failure, ImportProblem
from celeriac.cli.solo import run_solo
from celeriac.cli.values import CommaList, Concurrency, LogLevel, OneOf
from celeriac.cli.worker_app import WorkerApp, worker_app
from celeriac.errors import CeleriacError, ImproperlyConfigured
from celeriac.log import log_level, setup_worker_logging
from celeriac.log_setup import log_as_configured
from celeriac.runner.protocol import Hello, ZygoteOptions
from celeriac.runner.runner import debug_on_signal
from celeriac.runner.zygote import load_app
from celeriac.worker.lifecycle import run_worker
from celeriac.worker.nursery import AppImportError, ZygoteNursery
from celeriac.worker.options import POOLS, WorkerOptions, node_name
from celeriac.worker.supervisor import Supervisor

__all__ = ["worker"]

logger = logging.getLogger("celeriac.worker")

#: Options that are settings: option → setting.
_SETTINGS = {
    "time_limit": "task_time_limit",
    "soft_time_limit": "task_soft_time_limit",
    "max_tasks_per_child": "worker_max_tasks_per_child",
    "max_memory_per_child": "worker_max_memory_per_child",
    "hard_memory_per_child": "worker_hard_memory_per_child",
    "shutdown_grace": "worker_shutdown_grace",
    "statedb": "worker_state_db",
}
#: Options of Celery's that steer what is decided differently here.
_REPLACED = ("optimization", "prefetch_multiplier", "disable_prefetch")

_POSITIVE = click.IntRange(min=1)
_SECONDS = click.FloatRange(min=0)

_OPTIONS = [
    option("-n", "--hostname", help="Node name; %h is the host, %n its first part, %d its domain. [celery@%h]"),
    option("-Q", "--queues", type=CommaList(), help="Queues to consume; default are the app's."),
    option("-X", "--exclude-queues", type=CommaList(), help="Queues to leave out."),
    option("-I", "--include", type=CommaList(), help="Further modules to import."),
    option("-c", "--concurrency", type=Concurrency(), help="Tasks at the same time; auto is the number of CPUs."),
    option("--processes", type=_POSITIVE, help="Runner processes; the slots are spread over them."),
    option("-P", "--pool", type=OneOf(list(POOLS), {"processes": "prefork"}), help="How tasks run. [prefork]"),
    option("--time-limit", type=_SECONDS, help="Seconds after which a task is ended from outside."),
    option("--soft-time-limit", type=_SECONDS, help="Seconds after which SoftTimeLimitExceeded is raised in a task."),
    option("--max-tasks-per-child", type=_POSITIVE, help="Tasks after which a runner is replaced."),
    option("--max-memory-per-child", type=_POSITIVE, help="KiB above which a runner is replaced after its task."),
    option("--hard-memory-per-child", type=_POSITIVE, help="KiB above which a runner is killed in its task."),
    option("--shutdown-grace", type=_SECONDS, help="Seconds that running tasks get at a warm shutdown."),
    option("--purge", "--discard", is_flag=True, help="Delete what waits in the queues before starting."),
    option("-E", "--task-events", "--events", is_flag=True, help="Send events about tasks."),
    option("-l", "--loglevel", type=LogLevel(), default="WARNING", help="[WARNING]"),
    option(
        "-f",
        "--logfile",
        help="Log file; default is standard error. %i is the number of the process.",
    ),
    option("-S", "--statedb", type=click.Path(dir_okay=False), help="File that keeps revoked ids over restarts."),
    option("--pidfile", help="File for the process id."),
    option("-D", "--detach", is_flag=True, help="Run in the background."),
    option("--uid", help="User to become."),
    option("--gid", help="Group to become."),
    option("--umask", help="Umask, octal."),
    option("--executable", help="Python of the worker in the background."),
    option("-O", "--optimization", type=OneOf(["default", "fair"]), help="No effect: scheduling is always fair."),
    option("--prefetch-multiplier", type=click.IntRange(min=0), help="No effect: credit takes its place."),
    option("--disable-prefetch", is_flag=True, help="No effect: credit takes its place."),
    option("--without-gossip", is_flag=True, hidden=True),
    option("--without-mingle", is_flag=True, hidden=True),
    option("--without-heartbeat", is_flag=True, hidden=True),
]


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for each in reversed(_OPTIONS):
        command = each(command)
    return command


@click.command()
@_with_options
@click.argument("settings", nargs=-1, metavar="[-- SETTING=VALUE …]")
@click.pass_obj
def worker(context: CommandContext, /, settings: tuple[str, ...], **given: Any) -> int:
    """Run a worker until it is told to end.

    TERM ends it warmly: running tasks end first. QUIT ends it at once; what runs goes back to its queue. INT (Ctrl-C)
    is warm, then cold. HUP starts it again. Nothing is lost either way.
    """
    named = worker_app(context)
    node = node_name(given["hostname"])
    logfile = node_path(given["logfile"], node, keep_index=True) if given["logfile"] else None
    if given["statedb"]:
        given["statedb"] = os.path.abspath(node_path(given["statedb"], node))
    pidfile = node_path(given["pidfile"], node) if given["pidfile"] else None
    become(given["uid"], given["gid"], given["umask"])
    if given["detach"] and not is_detached():
        pid = detach(given["executable"], logfile, pidfile, context.started_in)
        context.say(f"{node} runs in the background (pid {pid}).")
        return 0
    options = _worker_options(context, given, settings, named, node, logfile)
    with pid_file(pidfile):
        is_restart = _Start(context, options, named).run()
    if is_restart:
        start_again(context.started_in)
    return 0


def _worker_options(
    context: CommandContext,
    given: dict[str, Any],
    settings: tuple[str, ...],
    named: WorkerApp,
    node: str,
    logfile: str | None,
) -> WorkerOptions:
    changes = {**context.changes, **settings_of(settings)}
    changes.update({setting: given[name] for name, setting in _SETTINGS.items() if given[name] is not None})
    if given["task_events"]:
        changes["worker_send_task_events"] = True
    if given["pool"]:
        changes["worker_pool"] = given["pool"]
    if given["concurrency"] is not None:
        changes["worker_concurrency"] = given["concurrency"] or None
    for name in _REPLACED:
        if given[name]:
            click.echo(
                f"Note: --{name.replace('_', '-')} has no effect: what a worker fetches ahead follows its tasks.",
                err=True,
            )
    return WorkerOptions(
        app=named.name or "",
        node=node,
        queues=given["queues"] or [],
        exclude_queues=given["exclude_queues"] or [],
        pool=given["pool"],
        concurrency=given["concurrency"] or None,
        processes=given["processes"],
        purge=given["purge"],
        include=given["include"] or [],
        loglevel=given["loglevel"],
        logfile=logfile,
        colour=context.colour,
        changes=changes,
        is_quiet=context.is_quiet,
    )


class _SoloWanted(CeleriacError):
    """The app's settings ask for the solo pool, which needs the main thread."""


class _Zygote(ZygoteNursery):
    """The zygote of a worker that the settings may still turn into a solo one."""

    def __init__(self, options: ZygoteOptions) -> None:
        super().__init__(options)
        self._zygote_options = options

    async def start(self) -> Hello:
        """Start the zygote; import the app here as well, if it listens to signals of this process."""
        hello = await super().start()
        if hello.conf.get("worker_pool") == "solo":
            self.stop()
            raise _SoloWanted
        if hello.listens:
            self.app = load_app(self._zygote_options)
        return hello


class _Start:
    """One start of a worker, from logging to its end."""

    def __init__(self, context: CommandContext, options: WorkerOptions, named: WorkerApp) -> None:
        self.context = context
        self.options = options
        self.named = named
        self.supervisor: Supervisor

    def run(self) -> bool:
        """Run the worker to its end; returns whether it is to be started again."""
        options = self.options
        try:
            setup_worker_logging(options.loglevel, options.logfile, colour=options.colour)
        except OSError as exc:
            raise Failure(f"log file {options.logfile!r} can't be written: {exc.strerror}.") from exc
        debug_on_signal()
        try:
            if options.pool == "solo" or self.named.name is None:
                return self._run_solo()
            return self._run_with_zygote()
        except _SoloWanted:
            return self._run_solo()
        except AppImportError as exc:
            raise _import_failure(exc) from exc

    def _run_with_zygote(self) -> bool:
        options = self.options
        nursery = _Zygote(
            ZygoteOptions(
                app=options.app, node=options.node, changes=options.changes, include=options.include, loglevel=options.loglevel,
                logfile=options.logfile, colour=options.colour, arguments=self.context.arguments,
            )
        )  # fmt: skip
        self.supervisor = Supervisor(options, nursery, version=__version__, on_banner=self._on_banner)
        # A supervisor makes thousands of small objects at a time, none of them in a cycle: to look for cycles among them as
        # often as Python does by itself cost a tenth of its CPU.
        gc.set_threshold(20_000, 10, 10)
        return run_worker(self.supervisor, on_started=lambda _: self._say_ready())

    def _run_solo(self) -> bool:
        app = self.named.load(self.context, self.options)
        if app.conf.task_time_limit is not None:
            raise ImproperlyConfigured(
                f"the solo pool can't apply a hard time limit ({app.conf.task_time_limit} s): its task runs in the worker's "
                "own process. Use a soft limit, or another pool."
            )
        return run_solo(app, self.options, self._make_solo_supervisor, self._say_ready)

    def _make_solo_supervisor(self, nursery: Any, app: Any) -> Supervisor:
        self.supervisor = Supervisor(
            self.options,
            nursery,
            version=__version__,
            transport=app.transport,
            store=app.backend,
            on_banner=self._on_banner,
        )
        return self.supervisor

    def _on_banner(self, text: str) -> None:
        """The app is known: apply what its settings say about this process."""
        conf, options = self.supervisor.conf, self.options
        nursery = self.supervisor.nursery
        if not isinstance(nursery, _Zygote) or nursery.app is None:  # else it was done when the app was imported
            log_as_configured(conf, options.loglevel, options.logfile, options.colour)
        is_root = os.geteuid() == 0
        if is_root:
            _refuse_pickle_as_root(conf.accept_content)
        if not options.is_quiet:
            click.echo(text)
            sys.stdout.flush()
        if is_root:
            logger.warning("this worker runs as root: its tasks may do anything on this machine. Use --uid")

    def _say_ready(self) -> None:
        """The log line "<node> ready." is hidden at the default level: say it beside the banner, then."""
        options = self.options
        is_elsewhere = options.logfile is not None or bool(signals.setup_logging.receivers)
        is_hidden = is_elsewhere or log_level(options.loglevel) > logging.INFO
        if is_hidden and not options.is_quiet:
            click.echo(f"{self.supervisor.node} ready.")
            sys.stdout.flush()


def _refuse_pickle_as_root(accepted: list[str]) -> None:
    risky = {"pickle", "application/x-python-serialize"} & set(accepted)
    if risky and not os.environ.get("C_FORCE_ROOT"):
        raise ImproperlyConfigured(
            "this worker runs as root and accepts pickle, so whoever can send it a message can do anything on this machine. "
            "Use --uid; or set C_FORCE_ROOT=1 if you must."
        )


def _import_failure(exc: AppImportError) -> click.ClickException:
    if exc.is_missing:
        return click.UsageError(str(exc))
    return ImportProblem(str(exc), exc.traceback) if exc.traceback else Failure(str(exc))
