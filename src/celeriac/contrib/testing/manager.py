"""Helpers for tests that run tasks on real workers: Celery's documented `celery.contrib.testing.manager`.

They ask until something is so, with pauses that grow, and end in an error that says what did not happen. Where a result can be
waited for, `result.get(timeout=…)` is quicker.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TextIO

from celeriac import states
from celeriac.errors import TimeoutError
from celeriac.inspecting import Inspect
from celeriac.result import AsyncResult
from celeriac.result_set import ResultSet

__all__ = ["Manager", "ManagerMixin", "Sentinel"]

#: States of a task that a worker has, as `inspect query_task` calls them, and of one that has ended.
_RECEIVED = ("reserved", "active", "ready")
_ACCEPTED = ("active", "ready")


class Sentinel(Exception):  # noqa: N818 -- Celery's documented name
    """What is waited for is not so yet."""


class ManagerMixin:
    """What `Manager` can do, for classes that have an `app`.

    Attributes:
        block_timeout: Longest wait of `join` for one attempt, in seconds.
        no_join: `join` returns at once.
    """

    app: Any
    block_timeout: float
    no_join: bool
    stdout: TextIO
    stderr: TextIO

    def _init_manager(
        self, block_timeout: float = 30 * 60.0, no_join: bool = False, stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:  # fmt: skip
        self.block_timeout = block_timeout
        self.no_join = no_join
        self.stdout = sys.stdout if stdout is None else stdout
        self.stderr = sys.stderr if stderr is None else stderr

    def remark(self, s: str, sep: str = "-") -> None:
        """Print a line."""
        print(f"{sep}{s}", file=self.stdout)

    def warn(self, s: str) -> None:
        """Print a line on standard error."""
        print(s, file=self.stderr)

    # waiting

    def wait_for(
        self, fun: Callable[..., Any], catch: Any, desc: str = "thing", args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None, errback: Callable[..., Any] | None = None, max_retries: int | None = 10,
        interval_start: float = 0.1, interval_step: float = 0.5, interval_max: float = 5.0, emit_warning: bool = False,
        **options: Any,
    ) -> Any:  # fmt: skip
        """Call a function until it doesn't raise; returns what it returned.

        Args:
            catch: Exceptions that say: not yet.
            desc: What is waited for, for warnings.
            errback: Called before each pause with the error, the pauses to come, and the number of attempts; may return
                another pause.
            max_retries: How often it is called again; None is without end.
            interval_start, interval_step, interval_max: The first pause, how much longer each next one is, the longest.
            emit_warning: Say each time that it is not so yet.
            options: No effect.

        Raises:
            Exception: The last error, when no attempt is left.
        """
        attempt = 0
        while True:
            try:
                return fun(*args, **(kwargs or {}))
            except catch as exc:
                if max_retries is not None and attempt >= max_retries:
                    raise
                pause = min(interval_start + attempt * interval_step, interval_max)
                attempt += 1
                if emit_warning:
                    self.warn(f"Waiting for {desc}: {exc!r} (attempt {attempt}, next in {pause:g} s)")
                if errback is not None:
                    pause = errback(exc, iter([pause]), attempt) or pause
            time.sleep(pause)

    def retry_over_time(self, fun: Callable[..., Any], catch: Any, *args: Any, **kwargs: Any) -> Any:
        """The same as `wait_for`."""
        return self.wait_for(fun, catch, *args, **kwargs)

    def ensure_not_for_a_while(
        self, fun: Callable[..., Any], catch: Any, desc: str = "thing", max_retries: int = 20, interval_start: float = 0.1,
        interval_step: float = 0.02, interval_max: float = 1.0, emit_warning: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        """Call a function again and again, and see that it raises each time.

        Raises:
            AssertionError: It did not: what was not to happen has happened.
        """
        try:
            found = self.wait_for(
                fun, catch, desc, max_retries=max_retries, interval_start=interval_start, interval_step=interval_step,
                interval_max=interval_max, emit_warning=emit_warning, **options,
            )  # fmt: skip
        except catch:
            return
        raise AssertionError(f"{desc} should not have happened, and gave {found!r}")

    def true_or_raise(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What a function returns, if that is true.

        Raises:
            Sentinel: It is not.
        """
        found = fun(*args, **kwargs)
        if not found:
            raise Sentinel(f"{getattr(fun, '__name__', fun)} returned {found!r}")
        return found

    # results

    def missing_results(self, r: Sequence[AsyncResult[Any]]) -> list[str]:
        """Ids of those results that are not there."""
        return [result.id for result in r if not result.ready()]

    def join(self, r: Any, propagate: bool = False, max_retries: int = 10, **kwargs: Any) -> Any:
        """Wait for the results of a group or a set; returns them, in order.

        Args:
            propagate: Raise the first error; else errors stand among the results.
            max_retries: How many times `block_timeout` is waited once more.
            kwargs: As for `ResultSet.get`.

        Raises:
            AssertionError: Some did not come; it says which.
        """
        if self.no_join:
            return None
        if not isinstance(r, ResultSet):
            r = self.app.ResultSet([r] if isinstance(r, AsyncResult) else list(r))
        for _ in range(max_retries + 1):
            try:
                return r.get(timeout=self.block_timeout, propagate=propagate, **kwargs)
            except TimeoutError:
                waiting = self.missing_results(r.results)
                if not waiting:  # it is the error of a task
                    raise
                self.remark(f"Still waiting for {len(waiting)} of {len(r)} results: {', '.join(waiting[:10])}", "!")
        raise AssertionError(f"Test failed: no results of {', '.join(self.missing_results(r.results))}")

    # workers

    def inspect(self, timeout: float = 3.0) -> Inspect:
        """Questions to workers."""
        found: Inspect = self.app.control.inspect(timeout=timeout)
        return found

    def query_tasks(self, ids: Any, timeout: float = 0.5) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """What workers know of tasks: pairs of a node's name and its answer."""
        yield from (self.inspect(timeout).query_task(_ids(ids)) or {}).items()

    def query_task_states(self, ids: Any, timeout: float = 0.5) -> dict[str, set[str]]:
        """Ids by state, of the tasks that workers have: "reserved", "active"."""
        found: dict[str, set[str]] = defaultdict(set)
        for _node, answer in self.query_tasks(ids, timeout):
            for task_id, (state, _info) in answer.items():
                found[state].add(task_id)
        return found

    def is_received(self, ids: Any, **kwargs: Any) -> bool:
        """Whether workers have all of these tasks, or have ended them."""
        return self._ids_matches_state(_RECEIVED, ids, **kwargs)

    def is_accepted(self, ids: Any, **kwargs: Any) -> bool:
        """Whether all of these tasks run, or have ended."""
        return self._ids_matches_state(_ACCEPTED, ids, **kwargs)

    def _ids_matches_state(self, expected_states: Collection[str], ids: Any, timeout: float = 0.5) -> bool:
        wanted = set(_ids(ids))
        found = self.query_task_states(wanted, timeout)
        known = set().union(*(found[state] for state in expected_states if state in found))
        left = wanted - known
        if "ready" in expected_states and self.app.backend is not None:
            left = {task_id for task_id in left if not self.app.AsyncResult(task_id).ready()}
        return not left

    def assert_accepted(
        self, ids: Any, interval: float = 0.5, desc: str = "waiting for tasks to be accepted", **policy: Any
    ) -> Any:
        """Wait until these tasks run.

        Raises:
            Sentinel: They don't.
        """
        return self.assert_task_worker_state(self.is_accepted, ids, interval=interval, desc=desc, **policy)

    def assert_received(
        self, ids: Any, interval: float = 0.5, desc: str = "waiting for tasks to be received", **policy: Any
    ) -> Any:
        """Wait until workers have these tasks.

        Raises:
            Sentinel: They have them not.
        """
        return self.assert_task_worker_state(self.is_received, ids, interval=interval, desc=desc, **policy)

    def assert_task_worker_state(self, fun: Callable[..., Any], ids: Any, interval: float = 0.5, **policy: Any) -> Any:
        """Wait until `fun(ids, timeout=interval)` is true."""
        return self.wait_for(partial(self.true_or_raise, fun, ids, timeout=interval), Sentinel, **policy)

    def assert_result_tasks_in_progress_or_completed(
        self, async_results: Any, interval: float = 0.5, desc: str = "waiting for tasks to be started or completed",
        **policy: Any,
    ) -> Any:  # fmt: skip
        """Wait until these results say that their tasks have begun (see `task_track_started`) or succeeded.

        Raises:
            Sentinel: They don't.
        """
        return self.assert_task_state_from_result(
            self.is_result_task_in_progress, async_results, interval=interval, desc=desc, **policy
        )

    def assert_task_state_from_result(
        self, fun: Callable[..., Any], results: Any, interval: float = 0.5, **policy: Any
    ) -> Any:
        """Wait until `fun(results, timeout=interval)` is true."""
        return self.wait_for(partial(self.true_or_raise, fun, results, timeout=interval), Sentinel, **policy)

    @staticmethod
    def is_result_task_in_progress(results: Any, **kwargs: Any) -> bool:
        """Whether the tasks of these results have begun, or succeeded."""
        found = [results] if isinstance(results, AsyncResult) else list(results)
        return all(result.state in (states.STARTED, states.SUCCESS) for result in found)

    def wait_until_idle(self) -> None:
        """Delete what waits in the app's queues, until nothing does."""
        while self.app.control.purge():
            pass


class Manager(ManagerMixin):
    """Helpers for the tests of an app.

    Args:
        app: The app.
        kwargs: `block_timeout`, `no_join`, and where `remark` and `warn` print: `stdout`, `stderr`.

    Example:
        >>> manager = Manager(app)
        >>> result = add.delay(2, 3)
        >>> manager.assert_received([result.id])
    """

    def __init__(self, app: Any, **kwargs: Any) -> None:
        self.app = app
        self._init_manager(**kwargs)


def _ids(given: Any) -> list[str]:
    if isinstance(given, ResultSet):
        given = given.results  # a group has an id, which is none of a task
    each = [given] if isinstance(given, str) or hasattr(given, "id") else given
    return [str(getattr(one, "id", one)) for one in each]
