"""Conformance of transports, third part: outcomes that are committed in one step with a result store.

`testing.transports.TransportSuite` is made of it. Left out where the driver commits with no store. A driver whose capabilities
tell `fetches_on_commit` adds `FetchingCommitTests` to its suite.
"""

# ruff: noqa: D102 -- the names of the tests say what is promised

from __future__ import annotations

import select
from collections.abc import Callable
from typing import cast

import pytest

from celeriac.errors import EncodeError
from celeriac.message import Delivery, Settlement
from celeriac.results.base import Record, ResultStore
from celeriac.testing.transport_case import LONG, PATIENCE, SHORT, TransportCase, make_message, names, needs
from celeriac.transport.base import (
    Claim,
    Commit,
    CommitUnderWay,
    FetchingTransport,
    QueueSize,
    RecordingTransport,
    Transport,
)

__all__ = ["CommitTests", "FetchingCommitTests"]


class CommitTests(TransportCase):
    """Store, publish and settle as one step, or not at all."""

    # --- committing outcomes

    @needs("commit")
    def test_commit_stores_publishes_and_settles(
        self, transport: Transport, other: Transport, queue: str, store: ResultStore | None
    ) -> None:
        assert store is not None and transport.commits_with(store)
        delivery = self.leased(transport, queue, "m")
        record = Record(id=f"{queue}-m", state="SUCCESS", result=b"1", fence=(0, 1))
        assert transport.commit([Commit(Settlement(delivery), record, [make_message("next", queue)])]) == []
        assert self.stored_state(store, record.id) == "SUCCESS"
        assert names(other.fetch([queue], 10, PATIENCE, LONG)) == ["next"]
        assert other.size(queue).leased == 1

    @needs("commit", "message leases")
    def test_commit_of_a_lost_lease_does_nothing(
        self, transport: Transport, other: Transport, queue: str, store: ResultStore | None
    ) -> None:
        assert store is not None and transport.commits_with(store)
        transport.publish([make_message("lost", queue), make_message("held", queue)])
        [lost] = transport.fetch([queue], 1, PATIENCE, SHORT)
        [held] = transport.fetch([queue], 1, PATIENCE, LONG)
        assert names(other.fetch([queue], 1, PATIENCE, LONG)) == ["lost"]
        commits = [
            Commit(
                Settlement(delivery),
                Record(id=f"{queue}-{delivery.message.id}", state="SUCCESS", result=b"1"),
                [make_message(f"after-{delivery.message.id}", queue)],
            )
            for delivery in (lost, held)
        ]
        assert transport.commit(commits) == [lost]
        assert self.stored_state(store, f"{queue}-lost") is None
        assert self.stored_state(store, f"{queue}-held") == "SUCCESS"
        assert names(other.fetch([queue], 10, PATIENCE, LONG)) == ["after-held"]

    @needs("commit")
    def test_commit_of_a_refused_record_settles_but_publishes_nothing(
        self, transport: Transport, other: Transport, queue: str, store: ResultStore | None
    ) -> None:
        assert store is not None and transport.commits_with(store)
        delivery = self.leased(transport, queue, "m")
        newer = Record(id=f"{queue}-m", state="FAILURE", result=b"newer", fence=(1, 1))
        store.store([newer])
        older = Record(id=f"{queue}-m", state="SUCCESS", result=b"older", fence=(0, 1))
        assert transport.commit([Commit(Settlement(delivery), older, [make_message("next", queue)])]) == []
        assert self.stored_state(store, newer.id) == "FAILURE"
        assert other.fetch([queue], 10, 0.05, LONG) == []
        assert other.size(queue) == QueueSize(0, 0, 0)

    @needs("commit")
    def test_commit_without_a_record(
        self, transport: Transport, other: Transport, queue: str, store: ResultStore | None
    ) -> None:
        delivery = self.leased(transport, queue, "m")
        assert transport.commit([Commit(Settlement(delivery), None, [make_message("next", queue)])]) == []
        assert names(other.fetch([queue], 10, PATIENCE, LONG)) == ["next"]

    @needs("commit")
    def test_a_task_is_recorded_and_published_in_one_step(
        self, transport: Transport, other: Transport, queue: str, store: ResultStore | None
    ) -> None:
        assert store is not None and transport.commits_with(store)
        recording = cast(RecordingTransport, transport)
        done = Record(id=f"{queue}-done", state="SUCCESS", result=b"1", fence=(0, 1))
        store.store([done])
        records = [Record(id=f"{queue}-{name}", state="PENDING", result=b"null") for name in ("new", "done")]
        recording.publish_recorded([make_message("new", queue), make_message("done", queue)], records)
        assert self.stored_state(store, f"{queue}-new") == "PENDING"
        assert self.stored_state(store, f"{queue}-done") == "SUCCESS"
        assert sorted(names(other.fetch([queue], 10, PATIENCE, LONG))) == ["done", "new"]
        bad = make_message("bad", queue, headers={"task": "t", "bad": object()})
        with pytest.raises(EncodeError):
            recording.publish_recorded([bad], [Record(id=f"{queue}-bad", state="PENDING", result=b"null")])
        assert self.stored_state(store, f"{queue}-bad") is None

    @needs("commit")
    def test_commit_that_cannot_publish_does_nothing(
        self, transport: Transport, queue: str, store: ResultStore | None
    ) -> None:
        assert store is not None and transport.commits_with(store)
        delivery = self.leased(transport, queue, "m")
        record = Record(id=f"{queue}-m", state="SUCCESS", result=b"1")
        bad = make_message("bad", queue, headers={"task": "t", "bad": object()})
        with pytest.raises(EncodeError):
            transport.commit([Commit(Settlement(delivery), record, [bad])])
        assert self.stored_state(store, record.id) is None
        assert transport.extend([delivery], LONG) == []


class FetchingCommitTests(TransportCase):
    """A commit that also fetches."""

    def test_it_can(self, transport: Transport) -> None:
        assert transport.capabilities.fetches_on_commit

    def test_what_is_published_and_what_was_ready_is_leased_here(
        self, transport: FetchingTransport, other: Transport, queue: str
    ) -> None:
        delivery = self.leased(transport, queue, "m")
        other.publish([make_message(name, queue) for name in ("ready 1", "ready 2")])
        commit = Commit(Settlement(delivery), None, [make_message("next", queue)])
        lost, came = transport.commit_and_fetch([commit], Claim([queue], 10, 10, LONG))
        came += transport.fetch([queue], 10, 0, LONG)
        assert (lost, names(came)) == ([], ["ready 1", "ready 2", "next"])
        assert [(each.queue, each.deliveries, each.redelivered) for each in came] == [(queue, 1, False)] * 3
        assert other.fetch([queue], 10, 0, LONG) == []
        assert transport.settle([Settlement(each) for each in came]) == []
        assert other.size(queue) == QueueSize(0, 0, 0)

    @pytest.mark.parametrize(("limit", "ready"), [(2, 2), (3, 0), (1, 0), (1, 1)])
    def test_it_brings_no_more_than_it_may(
        self, transport: FetchingTransport, other: Transport, queue: str, limit: int, ready: int
    ) -> None:
        delivery = self.leased(transport, queue, "m")
        sent = ["next 1", "next 2"]
        if ready:
            other.publish([make_message(f"ready {number}", queue) for number in range(ready + 1)])
            sent = [*(f"ready {number}" for number in range(ready + 1)), *sent]
        commit = Commit(Settlement(delivery), None, [make_message(name, queue) for name in ("next 1", "next 2")])
        lost, came = transport.commit_and_fetch([commit], Claim([queue], limit, ready, LONG))
        assert lost == []
        assert len(came) <= limit
        assert names(came) + names(other.fetch([queue], 10, 0, LONG)) == sent

    def test_other_queues_are_left_alone(
        self, transport: FetchingTransport, other: Transport, make_queue: Callable[[], str]
    ) -> None:
        mine, foreign = make_queue(), make_queue()
        delivery = self.leased(transport, mine, "m")
        commit = Commit(Settlement(delivery), None, [make_message("here", mine), make_message("there", foreign)])
        _, came = transport.commit_and_fetch([commit], Claim([mine], 10, 10, LONG))
        assert names(came + transport.fetch([mine], 10, 0, LONG)) == ["here"]
        assert names(other.fetch([foreign], 10, PATIENCE, LONG)) == ["there"]

    @needs("priorities")
    def test_the_urgent_first(self, transport: FetchingTransport, other: Transport, queue: str) -> None:
        delivery = self.leased(transport, queue, "m")
        urgent, calm = (9, 0) if transport.capabilities.urgent == "high" else (0, 9)
        other.publish([make_message("urgent", queue, priority=urgent)])
        commit = Commit(Settlement(delivery), None, [make_message("calm", queue, priority=calm)])
        _, came = transport.commit_and_fetch([commit], Claim([queue], 1, 1, LONG))
        assert names(came + transport.fetch([queue], 10, 0, LONG)) == ["urgent", "calm"]

    @needs("message leases")
    def test_a_lost_lease_publishes_nothing_and_others_are_fetched(
        self, transport: FetchingTransport, other: Transport, queue: str
    ) -> None:
        transport.publish([make_message("lost", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, SHORT)
        assert names(other.fetch([queue], 1, PATIENCE, LONG)) == ["lost"]
        other.publish([make_message("ready", queue)])
        commit = Commit(Settlement(delivery), None, [make_message("next", queue)])
        lost, came = transport.commit_and_fetch([commit], Claim([queue], 10, 10, LONG))
        assert lost == [delivery]
        assert names(came + transport.fetch([queue], 10, 0, LONG)) == ["ready"]

    @needs("message leases")
    def test_its_leases_run_out(self, transport: FetchingTransport, other: Transport, queue: str) -> None:
        delivery = self.leased(transport, queue, "m")
        commit = Commit(Settlement(delivery), None, [make_message("next", queue)])
        _, came = transport.commit_and_fetch([commit], Claim([queue], 10, 10, SHORT))
        came += transport.fetch([queue], 10, 0, SHORT)
        [taken] = other.fetch([queue], 10, PATIENCE, LONG)
        assert (taken.message.id, taken.deliveries) == ("next", 2)
        assert transport.settle([Settlement(each) for each in came]) == came

    # --- without waiting

    def begun(self, transport: FetchingTransport, commit: Commit, claim: Claim | None) -> CommitUnderWay:
        """A commit that is under way, on a broker that has just been talked to."""
        under_way = transport.begin_commit([commit], claim)
        assert under_way is not None
        return under_way

    def answer(self, under_way: CommitUnderWay) -> tuple[list[Delivery], list[Delivery]]:
        assert select.select([under_way], [], [], PATIENCE)[0], "no answer has come"
        return under_way.end()

    def test_one_that_is_begun_ends_as_any_other(
        self, transport: FetchingTransport, other: Transport, queue: str
    ) -> None:
        delivery = self.leased(transport, queue, "m")
        other.publish([make_message("ready", queue)])
        commit = Commit(Settlement(delivery), None, [make_message("next", queue)])
        lost, came = self.answer(self.begun(transport, commit, Claim([queue], 10, 10, LONG)))
        came += transport.fetch([queue], 10, 0, LONG)
        assert (lost, names(came)) == ([], ["ready", "next"])
        assert transport.settle([Settlement(each) for each in came]) == []
        assert other.size(queue) == QueueSize(0, 0, 0)

    def test_without_a_claim_it_fetches_nothing(
        self, transport: FetchingTransport, other: Transport, queue: str
    ) -> None:
        delivery = self.leased(transport, queue, "m")
        commit = Commit(Settlement(delivery), None, [make_message("next", queue)])
        assert self.answer(self.begun(transport, commit, None)) == ([], [])
        assert names(other.fetch([queue], 10, PATIENCE, LONG)) == ["next"]

    @needs("message leases")
    def test_one_that_is_begun_after_its_lease_is_lost_does_nothing(
        self, transport: FetchingTransport, other: Transport, queue: str
    ) -> None:
        transport.publish([make_message("lost", queue)])
        [delivery] = transport.fetch([queue], 1, PATIENCE, SHORT)
        assert names(other.fetch([queue], 1, PATIENCE, LONG)) == ["lost"]
        commit = Commit(Settlement(delivery), None, [make_message("next", queue)])
        assert self.answer(self.begun(transport, commit, None)) == ([delivery], [])
        assert other.fetch([queue], 10, 0, LONG) == []

    def test_one_that_was_abandoned_can_be_tried_again_and_publishes_once(
        self, transport: FetchingTransport, other: Transport, queue: str
    ) -> None:
        delivery = self.leased(transport, queue, "m")
        commit = Commit(Settlement(delivery), None, [make_message("next", queue)])
        self.begun(transport, commit, None).abandon()
        transport.commit_and_fetch([commit], Claim([queue], 0, 0, LONG))
        came = other.fetch([queue], 10, PATIENCE, LONG)
        assert names(came + other.fetch([queue], 10, SHORT, LONG)) == ["next"]
        assert other.settle([Settlement(each) for each in came]) == []
        assert other.size(queue) == QueueSize(0, 0, 0)

    def test_what_can_not_be_sent_is_refused_before_anything_is(
        self, transport: FetchingTransport, other: Transport, queue: str
    ) -> None:
        delivery = self.leased(transport, queue, "m")
        bad = make_message("bad", queue, headers={"task": "t", "bad": object()})
        with pytest.raises(EncodeError):
            transport.begin_commit([Commit(Settlement(delivery), None, [make_message("next", queue), bad])], None)
        assert transport.extend([delivery], LONG) == []
        assert other.fetch([queue], 10, 0, LONG) == []
