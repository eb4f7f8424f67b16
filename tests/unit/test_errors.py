"""The tree of errors: bases that Celery's users catch, texts for people, and what survives pickling."""

from __future__ import annotations

import inspect
import pickle
from datetime import UTC, datetime

import pytest

from celeriac import errors
from celeriac.errors import MaxRetriesExceededError, NotRegistered, Reject, Retry, near_match

EXCEPTIONS = [value for name in errors.__all__ if inspect.isclass(value := getattr(errors, name))]
#: Raised into tasks, or by the worker about them; Celery's own are plain exceptions too.
OUTSIDE_THE_TREE = {
    errors.SoftTimeLimitExceeded,
    errors.TimeLimitExceeded,
    errors.WorkerLostError,
    errors.Terminated,
    errors.WorkerShutdown,
    errors.WorkerTerminate,
}


def test_all_names_everything_public() -> None:
    own = {
        name
        for name, value in vars(errors).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == errors.__name__
    }
    assert own == set(errors.__all__)


@pytest.mark.parametrize("exception", EXCEPTIONS, ids=lambda exception: exception.__name__)
def test_every_error_has_one_root_and_says_what_it_is(exception: type[BaseException]) -> None:
    roots = (errors.CeleriacError, errors.CeleriacWarning)
    assert issubclass(exception, roots) or exception in OUTSIDE_THE_TREE
    assert inspect.getdoc(exception)


@pytest.mark.parametrize(
    ("exception", "base"),
    [
        (errors.NotRegistered, KeyError),
        (errors.QueueNotFound, KeyError),
        (errors.EncodeError, TypeError),
        (errors.DecodeError, ValueError),
        (errors.ContentDisallowed, errors.DecodeError),
        (errors.MessageTooLarge, ValueError),
        (errors.TimeoutError, errors.TaskError),
        (errors.WorkerShutdown, SystemExit),
        (errors.WorkerTerminate, SystemExit),
        (errors.LeaseLost, errors.OperationalError),
        (errors.BackendGetMetaError, errors.BackendError),
        (errors.DuplicateNodenameWarning, UserWarning),
    ],
)
def test_bases_that_callers_catch(exception: type[BaseException], base: type[BaseException]) -> None:
    assert issubclass(exception, base)


@pytest.mark.parametrize("exception", sorted(OUTSIDE_THE_TREE - {errors.Terminated}, key=lambda e: e.__name__))
def test_limits_and_losses_are_not_task_errors(exception: type[BaseException]) -> None:
    # `except TaskError` in a task must not swallow the soft time limit.
    assert not issubclass(exception, errors.TaskError)


def test_near_match_names_the_nearest_or_nothing() -> None:
    assert near_match("task_ack_late", ["task_acks_late", "task_routes"]) == " Did you mean 'task_acks_late'?"
    assert near_match("zzz", ["task_acks_late"]) == ""
    assert near_match("x", []) == ""


def test_not_registered_names_the_task() -> None:
    assert str(NotRegistered("shop.add")) == "Task of name 'shop.add' is not registered here."


def test_key_errors_are_shown_without_quotes() -> None:
    assert str(errors.QueueNotFound("no queue 'a'")) == "no queue 'a'"
    assert str(errors.QueueNotFound()) == ""


def test_retry_says_when_and_why() -> None:
    assert str(Retry(exc=OSError("gone"), when=3)) == "Retry in 3s: OSError('gone')"
    moment = datetime(2030, 1, 2, tzinfo=UTC)
    assert Retry(when=moment).humanize() == "at 2030-01-02 00:00:00+00:00"
    assert str(Retry("later")) == "later"


def test_retry_survives_pickling() -> None:
    retry = pickle.loads(pickle.dumps(Retry("later", ValueError("x"), 5)))
    assert (retry.message, repr(retry.exc), retry.excs, retry.when) == (
        "later",
        "ValueError('x')",
        "ValueError('x')",
        5,
    )


def test_retry_with_an_error_that_is_only_text() -> None:
    retry = pickle.loads(pickle.dumps(Retry("later", "ValueError('x')", 5)))
    assert (retry.exc, retry.excs) == (None, "ValueError('x')")


def test_reject_shows_its_reason() -> None:
    reject = pickle.loads(pickle.dumps(Reject("no stock", requeue=True)))
    assert (reject.reason, reject.requeue) == ("no stock", True)
    assert repr(reject) == "reject requeue=True: no stock"


def test_max_retries_carries_the_arguments() -> None:
    error = MaxRetriesExceededError("used up", task_args=(1,), task_kwargs={"a": 2})
    assert (str(error), error.task_args, error.task_kwargs) == ("used up", (1,), {"a": 2})


def test_time_limits_show_their_seconds() -> None:
    assert str(errors.SoftTimeLimitExceeded(10)) == "SoftTimeLimitExceeded(10,)"
    assert str(errors.TimeLimitExceeded(20)) == "TimeLimitExceeded(20,)"


def test_backend_errors_name_the_task() -> None:
    assert repr(errors.BackendGetMetaError("lost", task_id="1")) == "BackendGetMetaError('lost') task_id:1"
    shown = repr(errors.BackendStoreError("lost", state="SUCCESS", task_id="1"))
    assert shown == "BackendStoreError('lost') state:SUCCESS task_id:1"
