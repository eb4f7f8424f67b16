"""Chords whose parts or whose last step were lost: they end, in a state that can be read, and their body runs once at most."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from celeriac import Celeriac, chain, chord
from celeriac.chord_notes import note_id
from celeriac.errors import ChordError
from celeriac.message import Action, Delivery, Settlement
from celeriac.results.base import Record
from celeriac.testing.worker import start_worker
from tests.support.files import eventually

#: Seconds between two sweeps of workers under test.
SWEEP = 0.2


@pytest.fixture
def app(each_app: Celeriac) -> Iterator[Celeriac]:
    """The tasks; which bodies have run stands in `app.ran`."""
    app = each_app
    app.conf.result_chord_sweep_interval = SWEEP
    app.conf.accept_content = ["json"]
    app.conf.task_unknown_delay = 0.01
    app.ran = []  # type: ignore[attr-defined]
    app.task(lambda x, y=0: x + y, name="add")
    app.task(lambda values: app.ran.append(values) or values, name="echo")  # type: ignore[attr-defined]
    yield app


def take(app: Celeriac) -> list[Delivery]:
    """The messages that wait."""
    return app.transport.fetch(["celery"], 100, 0, 30.0)


def lose(app: Celeriac, deliveries: list[Delivery]) -> None:
    """They are gone, as if a worker had died that acknowledges early."""
    app.transport.settle([Settlement(each) for each in deliveries])


def three(app: Celeriac, **options: Any) -> Any:
    add = app.tasks["add"]
    return chord([add.s(1, 1), add.s(2, 2).set(**options), add.s(3, 3)], app.tasks["echo"].s()).apply_async()


def store_value(app: Celeriac, task_id: str, value: int) -> None:
    app.backend.store([Record(id=task_id, state="SUCCESS", result=b"%d" % value, fence=(0, 1))])  # type: ignore[union-attr]


def assert_failed(result: Any, match: str) -> None:
    error = result.get(timeout=20, propagate=False)
    assert (result.state, type(error)) == ("FAILURE", ChordError)
    assert match in str(error)


def test_a_part_that_ended_uncounted_is_counted(app: Celeriac) -> None:
    result = three(app)
    deliveries = take(app)
    lost = next(each for each in deliveries if each.message.id == result.parent.results[1].id)
    store_value(app, lost.message.id, 4)
    lose(app, [lost])
    with start_worker(app, pool="solo"):
        app.transport.settle([Settlement(each, Action.REQUEUE) for each in deliveries if each is not lost])
        assert result.get(timeout=20) == [2, 4, 6]
    assert app.ran == [[2, 4, 6]]  # type: ignore[attr-defined]


def test_parts_that_were_added_are_counted_beside_those_it_was_sent_with(app: Celeriac) -> None:
    result = three(app)
    lose(app, take(app))
    group_id = result.parent.id
    for number in range(2):
        app.backend.grow_group(group_id, f"{group_id}-{number}", None, True)  # type: ignore[union-attr]
    for value, task_id in enumerate([*(part.id for part in result.parent.results), f"{group_id}-0"]):
        store_value(app, task_id, value)
    with start_worker(app, pool="solo"):
        eventually(lambda: app.backend.ended_parts(group_id) == {0, 1, 2, 3}, 20)  # type: ignore[union-attr]
        assert app.ran == []  # type: ignore[attr-defined]
        store_value(app, f"{group_id}-1", 4)
        assert result.get(timeout=20) == [0, 1, 2, 3, 4]


def test_a_lost_last_step_is_made_up_for(app: Celeriac) -> None:
    """All parts are counted, and whoever was to send the body is gone."""
    result = three(app)
    lose(app, take(app))
    for index, part in enumerate(result.parent.results):
        store_value(app, part.id, index)
        record = Record(id=part.id, state="SUCCESS", result=b"%d" % index)
        app.backend.join_part(result.parent.id, index, 3, record)  # type: ignore[union-attr]
    name = msgspec.json.encode(result.parent.results[2].id)
    app.backend.store([Record(id=f"{result.parent.id}.body", state="SUCCESS", result=name)])  # type: ignore[union-attr]
    with start_worker(app, pool="solo"):
        assert result.get(timeout=20) == [0, 1, 2]
    assert app.ran == [[0, 1, 2]]  # type: ignore[attr-defined]


def test_what_a_sweep_made_is_not_made_again(app: Celeriac) -> None:
    """A part that comes late, or that was sent twice, finds that its chord is over; nothing of it remains."""
    result = three(app)
    deliveries = take(app)
    for index, delivery in enumerate(deliveries):
        store_value(app, delivery.message.id, index)
    group_id = result.parent.id
    with start_worker(app, pool="solo"):
        assert result.get(timeout=20) == [0, 1, 2]
        app.publish([each.message for each in deliveries])
        app.transport.settle([Settlement(each, Action.REQUEUE) for each in deliveries])
        eventually(lambda: app.transport.size("celery").ready + app.transport.size("celery").leased == 0, 20)
        eventually(lambda: app.backend.get([note_id(group_id)])[0].state == "SUCCESS", 20)  # type: ignore[union-attr]
    assert app.ran == [[0, 1, 2]]  # type: ignore[attr-defined]
    assert app.backend.get_group(group_id) is None  # type: ignore[union-attr]
    assert result.get(timeout=1) == [0, 1, 2]


def test_a_chord_that_waits_is_left_alone(app: Celeriac) -> None:
    result = three(app, countdown=6 * SWEEP)
    group_id = result.parent.id
    with start_worker(app, pool="solo"):
        eventually(lambda: app.backend.ended_parts(group_id) == {0, 2}, 20)  # type: ignore[union-attr]
        assert result.get(timeout=20) == [2, 4, 6]
    assert app.ran == [[2, 4, 6]]  # type: ignore[attr-defined]


def test_a_chord_without_a_note_is_left_alone(app: Celeriac) -> None:
    """Its body can't be written down with the usual serializer, though its parts carry it."""
    app.conf.accept_content = ["json", "pickle"]
    slow = app.tasks["add"].s(1, 1).set(serializer="pickle", countdown=5 * SWEEP)
    quick = app.tasks["add"].s(2, 2).set(serializer="pickle")
    app.task(lambda values, more: [*values, more.imag], name="more")
    result = chord([slow, quick], app.signature("more", (5j,), serializer="pickle")).apply_async()
    group_id = result.parent.id
    assert app.backend.get([note_id(group_id)]) == [None]  # type: ignore[union-attr]
    with start_worker(app, pool="solo"):
        eventually(lambda: app.backend.ended_parts(group_id) == {1}, 20)  # type: ignore[union-attr]
        assert result.get(timeout=20) == [2, 4, 5.0]


def test_a_chord_whose_part_was_purged_fails_when_its_time_is_over(app: Celeriac) -> None:
    app.conf.result_chord_expires = 1.0
    result = three(app)
    assert app.control.purge() == 3
    with start_worker(app, pool="solo"):
        assert_failed(result, "has not ended within the time for which its counts are kept")
    assert app.ran == []  # type: ignore[attr-defined]


def test_a_step_before_a_part_that_can_not_be_read_ends_the_chord(app: Celeriac) -> None:
    """The part itself, which comes later in that chain, never gets a message."""
    add, echo = app.tasks["add"], app.tasks["echo"]
    bad = chain(add.s(1, 1).set(serializer="pickle"), add.s(1), add.s(1))
    result = chord([add.s(1, 1), bad], echo.s()).apply_async()
    with start_worker(app, pool="solo"):
        assert_failed(result, "ended as FAILURE")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_part_that_can_not_be_read_ends_the_chord_at_once(app: Celeriac, number: int) -> None:
    app.conf.result_chord_sweep_interval = 0  # not even by a sweep
    add = app.tasks["add"]
    parts = [add.s(1, 1).set(serializer="pickle" if index == number else "json") for index in range(3)]
    result = chord(parts, app.tasks["echo"].s()).apply_async()
    outer = chord([chord(parts, app.tasks["echo"].s()), add.s(1, 1)], app.tasks["echo"].s()).apply_async()
    with start_worker(app, pool="solo"):
        assert_failed(result, "ContentDisallowed")
        assert_failed(outer, "ContentDisallowed")
    assert app.ran == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [0, 2])
def test_a_malformed_part_ends_the_chord(app: Celeriac, number: int) -> None:
    result = three(app)
    deliveries = take(app)
    messages = [each.message for each in deliveries]
    wrong = {**messages[number].headers, "expires": "tomorrow"}
    messages[number] = msgspec.structs.replace(messages[number], headers=wrong)
    lose(app, deliveries)
    app.publish(messages)
    with start_worker(app, pool="solo"):
        assert_failed(result, "malformed message")
    part = next(each for each in result.parent.results if each.id == messages[number].id)
    assert part.state == "FAILURE"
    assert app.transport.dead_letters()[0].message.id == part.id


def test_the_notes_of_chords_go_with_them(app: Celeriac) -> None:
    result = three(app)
    group_id = result.parent.id
    (note,) = app.backend.get([note_id(group_id)])  # type: ignore[union-attr]
    assert note.state == "CHORD"
    assert json.loads(note.result)[2]["chord"]["task"] == "echo"
    assert app.backend.quiet_chords(-60, 10_000) == [group_id]  # type: ignore[union-attr]
    with start_worker(app, pool="solo"):
        assert result.get(timeout=20) == [2, 4, 6]
        eventually(lambda: app.backend.quiet_chords(-60, 10_000) == [], 20)  # type: ignore[union-attr]
    (note,) = app.backend.get([note_id(group_id)])  # type: ignore[union-attr]
    assert (note.state, note.result) == ("SUCCESS", b"null")
    assert note.expires_at > time.time()
