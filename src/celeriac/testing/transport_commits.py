"""Conformance of transports, third part: outcomes that are committed in one step with a result store.

`testing.transports.TransportSuite` is made of it. Left out where the driver commits with no store.
"""

# ruff: noqa: D102 -- the names of the tests say what is promised

from __future__ import annotations

from typing import cast

import pytest

from celeriac.errors import EncodeError
from celeriac.message import Settlement
from celeriac.results.base import Record, ResultStore
from celeriac.testing.transport_case import LONG, PATIENCE, SHORT, TransportCase, make_message, names, needs
from celeriac.transport.base import Commit, QueueSize, RecordingTransport, Transport

__all__ = ["CommitTests"]


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
