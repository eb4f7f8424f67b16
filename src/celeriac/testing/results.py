"""The conformance suite of result stores: every promise of `celeriac.results.base.ResultStore` as a test.

A driver's test module subclasses `ResultStoreSuite` and gives it two connections to one store:

    class TestMine(ResultStoreSuite):
        @pytest.fixture
        def store(self):
            store = MyStore("mine://localhost", {})
            yield store
            store.close()

        @pytest.fixture
        def other(self):
            ...  # a second one, to the same store

Ids are random, so a store may be shared.
"""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import msgspec
import pytest

from celeriac.progress import changes
from celeriac.results.base import Record, ResultStore

__all__ = ["PATIENCE", "ResultStoreSuite", "make_record"]

#: Longest wait for what must come, in seconds. Reached only by a failing test.
PATIENCE = 20.0


def make_record(task_id: str, state: str = "SUCCESS", **fields: Any) -> Record:
    """A record as a worker would store it."""
    fields.setdefault("result", b'"done"')
    return Record(id=task_id, state=state, **fields)


class ResultStoreSuite:
    """Subclass it with fixtures `store` and `other`."""

    @pytest.fixture
    def store(self) -> ResultStore:
        """The store under test: to be overridden."""
        pytest.fail("override the fixture 'store'")

    @pytest.fixture
    def other(self) -> ResultStore:
        """A second connection to the same store: to be overridden."""
        pytest.fail("override the fixture 'other'")

    @pytest.fixture
    def task_id(self) -> str:
        """An id that nothing is stored for."""
        return str(uuid.uuid4())

    # --- store and get

    def test_a_record_comes_back_as_it_was_stored(self, store: ResultStore, other: ResultStore, task_id: str) -> None:
        record = make_record(
            task_id,
            "FAILURE",
            result='{"exc_type": "ValueError", "exc_message": ["bööm"], "exc_module": "builtins"}'.encode(),
            traceback="Traceback …\nValueError: bööm",
            children=[[["c1", None], None], [["c2", None], [[["c3", None], None]]]],
            date_done="2026-11-20T22:44:12.747806+00:00",
            group_id="g1",
            parent_id="p1",
            fence=(3, 2),
            expires_at=float(int(time.time()) + 3600),
        )
        assert store.store([record]) == []
        assert other.get([task_id]) == [record]

    def test_extended_fields(self, store: ResultStore, other: ResultStore, task_id: str) -> None:
        record = make_record(
            task_id,
            name="suite.task",
            args=b"[1, 2]",
            kwargs=b"{}",
            worker="w1@host",
            retries=2,
            queue="celery",
            stamps={"stamped_headers": ["sh"], "stamps": {"sh": "v"}},
            date_done="2026-11-20T22:44:12.000001+00:00",
        )
        store.store([record])
        assert other.get([task_id]) == [record]

    @pytest.mark.parametrize("result", [b"", b"\x80\x04\x00binary\xff", b"x" * 1_000_000], ids=["empty", "bin", "1MB"])
    def test_results_are_bytes(self, store: ResultStore, other: ResultStore, task_id: str, result: bytes) -> None:
        kind = "application/x-python-serialize"
        store.store([make_record(task_id, result=result, content_type=kind, content_encoding="binary")])
        [record] = other.get([task_id])
        assert record is not None
        assert (record.result, record.content_type, record.content_encoding) == (result, kind, "binary")

    def test_get_keeps_the_order(self, store: ResultStore) -> None:
        ids = [str(uuid.uuid4()) for _ in range(5)]
        store.store([make_record(task_id, result=task_id.encode()) for task_id in reversed(ids)])
        asked = [ids[3], "unknown-" + ids[0], ids[0], ids[3]]
        found = [record.result.decode() if record else None for record in store.get(asked)]
        assert found == [ids[3], None, ids[0], ids[3]]
        assert store.get([]) == []

    def test_any_text_is_an_id(self, store: ResultStore, task_id: str) -> None:
        strange = f"ä \"quoted\" 'id' %_\\{task_id}"
        store.store([make_record(strange)])
        [record] = store.get([strange])
        assert record is not None
        assert record.id == strange

    def test_states_follow_each_other(self, store: ResultStore, task_id: str) -> None:
        for state in ("STARTED", "PROGRESS", "PROGRESS", "SUCCESS"):
            assert store.store([make_record(task_id, state, result=state.encode())]) == []
            [record] = store.get([task_id])
            assert record is not None
            assert (record.state, record.result) == (state, state.encode())

    # --- which record replaces which

    @pytest.mark.parametrize(
        ("stored", "stored_fence", "state", "fence", "is_refused"),
        [
            ("SUCCESS", (0, 1), "FAILURE", (0, 1), True),
            ("SUCCESS", (0, 1), "FAILURE", (5, 5), True),
            ("SUCCESS", (0, 1), "SUCCESS", (0, 2), True),
            ("FAILURE", (0, 1), "SUCCESS", (0, 1), True),
            ("REVOKED", (0, 1), "STARTED", (0, 1), True),
            ("FAILURE", (0, 1), "SUCCESS", (0, 2), False),
            ("FAILURE", (0, 9), "SUCCESS", (1, 1), False),
            ("REVOKED", (0, 1), "STARTED", (0, 2), False),
            ("STARTED", (0, 2), "SUCCESS", (0, 1), True),
            ("RETRY", (1, 1), "FAILURE", (0, 9), True),
            ("RETRY", (0, 1), "STARTED", (1, 1), False),
            ("STARTED", (0, 1), "SUCCESS", (0, 1), False),
            ("PROGRESS", (2, 1), "PROGRESS", (2, 1), False),
            ("STARTED", (2**32 - 1, 2**31 - 1), "SUCCESS", (2**32 - 1, 2**31 - 2), True),  # the largest that there are
            ("STARTED", (2**32 - 1, 2**31 - 2), "SUCCESS", (2**32 - 1, 2**31 - 1), False),
        ],
    )
    def test_fences(
        self, store: ResultStore, other: ResultStore, task_id: str, stored: str, stored_fence: tuple[int, int],
        state: str, fence: tuple[int, int], is_refused: bool,
    ) -> None:  # fmt: skip
        store.store([make_record(task_id, stored, result=b"1", fence=stored_fence)])
        refused = other.store([make_record(task_id, state, result=b"2", fence=fence)])
        assert refused == ([task_id] if is_refused else [])
        [record] = store.get([task_id])
        assert record is not None
        expected = (stored, b"1", stored_fence) if is_refused else (state, b"2", fence)
        assert (record.state, record.result, record.fence) == expected

    def test_one_batch_of_refused_and_accepted(self, store: ResultStore) -> None:
        ids = [str(uuid.uuid4()) for _ in range(4)]
        store.store([make_record(ids[1]), make_record(ids[3])])
        assert store.store([make_record(task_id, "FAILURE") for task_id in ids]) == [ids[1], ids[3]]

    def test_the_newest_execution_wins_whatever_the_order(
        self, store: ResultStore, other: ResultStore, task_id: str
    ) -> None:
        def write(number: int) -> None:
            connection = store if number % 2 else other
            connection.store([make_record(task_id, "FAILURE", result=str(number).encode(), fence=(0, number))])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, [7, 3, 19, 11, 2, 20, 5, 17, 13, 1]))
        [record] = store.get([task_id])
        assert record is not None
        assert (record.result, record.fence) == (b"20", (0, 20))

    # --- expiry

    def test_an_expired_record_is_gone(self, store: ResultStore, other: ResultStore, task_id: str) -> None:
        store.store([make_record(task_id, expires_at=time.time() - 1)])
        assert other.get([task_id]) == [None]
        assert other.wait([task_id], 0.05) == []
        assert other.store([make_record(task_id, "FAILURE", expires_at=time.time() + 60)]) == []
        [record] = store.get([task_id])
        assert record is not None
        assert record.state == "FAILURE"

    def test_cleanup(self, store: ResultStore, other: ResultStore) -> None:
        now = time.time()
        ids = [str(uuid.uuid4()) for _ in range(4)]
        expiries = [now + 10, now + 20, now + 1000, None]
        store.store([make_record(task_id, expires_at=at) for task_id, at in zip(ids, expiries, strict=True)])
        other.cleanup(now + 30)
        assert [record is not None for record in store.get(ids)] == [False, False, True, True]

    # --- wait

    def test_wait_returns_what_is_ready(self, store: ResultStore, other: ResultStore) -> None:
        ids = [str(uuid.uuid4()) for _ in range(4)]
        states = ["SUCCESS", "STARTED", "FAILURE", "REVOKED"]
        store.store([make_record(task_id, state) for task_id, state in zip(ids, states, strict=True)])
        found = other.wait([*ids, str(uuid.uuid4()), ids[0]], PATIENCE)
        assert sorted(record.id for record in found) == sorted([ids[0], ids[2], ids[3]])

    def test_wait_gives_up(self, store: ResultStore, task_id: str) -> None:
        assert store.wait([], None) == []
        assert store.wait([task_id], 0) == []
        assert store.wait([task_id], 0.05) == []
        store.store([make_record(task_id, "STARTED")])
        assert store.wait([task_id], 0.05) == []

    @pytest.mark.parametrize("timeout", [PATIENCE, None])
    def test_wait_is_woken(self, store: ResultStore, other: ResultStore, task_id: str, timeout: float | None) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(other.wait, [str(uuid.uuid4()), task_id], timeout)
            store.store([make_record(task_id, "STARTED")])
            store.store([make_record(task_id)])
            [record] = waiting.result(PATIENCE)
            assert (record.id, record.state) == (task_id, "SUCCESS")

    def test_a_change_is_told(self, store: ResultStore, other: ResultStore, task_id: str) -> None:
        wait_change = getattr(other, "wait_change", None)
        if wait_change is None:  # then it is looked for
            assert next(changes(other, task_id, 0.05), None) is None
            return
        assert wait_change(task_id, None, 0.05) is None
        first = make_record(task_id, "STARTED")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait_change, task_id, None, PATIENCE)
            store.store([first])
            known = waiting.result(PATIENCE)
            assert known.state == "STARTED"
            assert wait_change(task_id, known, 0.05) is None
            waiting = pool.submit(wait_change, task_id, known, PATIENCE)
            store.store([make_record(task_id)])
            assert waiting.result(PATIENCE).state == "SUCCESS"
            assert pool.submit(other.wait, [task_id], PATIENCE).result(PATIENCE)[0].state == "SUCCESS"

    def test_many_wait_at_once(self, store: ResultStore, other: ResultStore) -> None:
        ids = [str(uuid.uuid4()) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            waiting = [pool.submit(other.wait, [task_id], PATIENCE) for task_id in ids]
            for task_id in ids:
                store.store([make_record(task_id)])
            assert [[record.id for record in each.result(PATIENCE)] for each in waiting] == [[each] for each in ids]

    def test_wait_for_thousands(self, store: ResultStore, other: ResultStore) -> None:
        count, step = 10_000, 500
        ids = [str(uuid.uuid4()) for _ in range(count)]
        seen = threading.Semaphore(4)  # the writer is never far ahead, so that most waits really wait

        def write() -> None:
            for start in range(0, count, step):
                assert seen.acquire(timeout=PATIENCE)
                store.store([make_record(task_id) for task_id in ids[start : start + step]])

        pending = set(ids)
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while pending:
                found = {record.id for record in other.wait(list(pending), PATIENCE)}
                assert found, f"{len(pending)} never came"
                assert found <= pending
                for _ in range(0, len(found), step):
                    seen.release()
                pending -= found
            writing.result(PATIENCE)

    # --- forget, chords, groups

    def test_forget(self, store: ResultStore, other: ResultStore) -> None:
        ids = [str(uuid.uuid4()) for _ in range(3)]
        store.store([make_record(task_id) for task_id in ids])
        other.forget([*ids[:2], "unknown"])
        assert [record is not None for record in store.get(ids)] == [False, False, True]
        assert store.store([make_record(ids[0], "FAILURE")]) == []

    def test_parts_are_counted_once(self, store: ResultStore, other: ResultStore, task_id: str) -> None:
        records = [
            make_record(f"{task_id}-{index}", state) for index, state in enumerate(["SUCCESS", "FAILURE", "REVOKED"])
        ]
        assert not store.join_part(task_id, 0, 3, records[0])
        assert not other.join_part(task_id, 0, 3, records[0])
        assert not other.join_part(task_id, 2, 3, records[2])
        assert not store.join_part(task_id, 2, 3, records[2])
        assert store.join_part(task_id, 1, 3, records[1])
        assert not store.join_part(f"{task_id}-another", 1, 3, records[1])
        assert other.join_part(task_id, 1, 3, records[1]), "the last one is told again"

    def test_exactly_one_sees_the_last_part(self, store: ResultStore, other: ResultStore, task_id: str) -> None:
        size = 40
        store.start_chord(task_id, size, b"[1]", time.time() + 60)
        assert other.get_group(task_id) == b"[1]"

        def join(index: int) -> bool:
            record = make_record(f"{task_id}-{index}")
            return (store if index % 2 else other).join_part(task_id, index, size, record)

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(join, range(size))) == 1

    def test_a_chord_that_runs_gets_further_parts_each_once(
        self, store: ResultStore, other: ResultStore, task_id: str
    ) -> None:
        grow, grow_again = getattr(store, "grow_group", None), getattr(other, "grow_group", None)
        if grow is None or grow_again is None:
            return  # it needn't be able to
        header = msgspec.json.encode([[task_id, None], [[["a", None], None], [["b", None], None]]])
        store.start_chord(task_id, 2, header, time.time() + 60)
        assert not other.join_part(task_id, 0, 2, make_record(f"{task_id}-a"))
        places = [
            grow(task_id, "c", None, True),
            grow_again(task_id, "d", None, True),
            grow_again(task_id, "c", None, True),
        ]
        assert places[0] == places[2] != places[1]
        assert not store.join_part(task_id, 1, 2, make_record(f"{task_id}-b"))
        assert not store.join_part(task_id, places[0], 2, make_record("c"))
        assert _members(other.get_group(task_id)) == ["a", "b", "c", "d"]
        assert other.join_part(task_id, places[1], 2, make_record("d"))
        store.forget_group(task_id)
        assert other.get_group(task_id) is None

    def test_members_are_added_to_a_group_whoever_adds_them(
        self, store: ResultStore, other: ResultStore, task_id: str
    ) -> None:
        if not hasattr(store, "grow_group"):
            return
        names = [f"{task_id}-{number}" for number in range(20)]

        def add(number: int) -> int:
            place: int = getattr(store if number % 2 else other, "grow_group")(  # noqa: B009 -- no verb of every store
                task_id, names[number % 20], time.time() + 60, False
            )
            return place

        with ThreadPoolExecutor(4) as pool:
            places = list(pool.map(add, range(40)))
        assert places[:20] == places[20:]
        assert len(set(places)) == 20
        in_order = [name for _, name in sorted(zip(places[:20], names, strict=True))]
        assert _members(store.get_group(task_id)) == in_order

    def test_a_chord_of_unknown_size_is_never_over(self, store: ResultStore, task_id: str) -> None:
        assert not store.join_part(task_id, 0, 0, make_record(task_id))

    def test_a_chord_that_is_quiet_is_told_to_one_who_asks(
        self, store: ResultStore, other: ResultStore, task_id: str
    ) -> None:
        """Optional: of stores that can list the chords which were begun in them."""
        ours, theirs, foreign = cast("Any", store), cast("Any", other), f"{task_id}-of-another"
        if not hasattr(store, "quiet_chords"):
            return
        store.start_chord(task_id, 3, b"[1]", time.time() + 60)
        store.start_chord(task_id, 3, b"[1]", time.time() + 60)
        store.join_part(foreign, 0, 3, make_record(task_id))
        assert task_id not in ours.quiet_chords(60, 100_000)
        quiet = ours.quiet_chords(-60, 100_000)
        assert task_id in quiet
        assert foreign not in quiet, "nobody began it here"
        assert task_id not in theirs.quiet_chords(60, 100_000), "being told of is something that happens"
        assert len(ours.quiet_chords(-60, 1)) == 1
        assert ours.ended_parts(task_id) == set()
        for index in (2, 0):
            assert not other.join_part(task_id, index, 3, make_record(f"{task_id}-{index}"))
        assert ours.ended_parts(task_id) == {0, 2}
        assert other.join_part(task_id, 1, 3, make_record(f"{task_id}-1"))
        other.forget_group(task_id)
        assert task_id not in ours.quiet_chords(-60, 100_000)

    def test_groups(self, store: ResultStore, other: ResultStore, task_id: str) -> None:
        assert store.get_group(task_id) is None
        store.save_group(task_id, b"[1]", None)
        store.save_group(task_id, b"[1, 2]", time.time() + 60)
        assert other.get_group(task_id) == b"[1, 2]"
        other.join_part(task_id, 0, 2, make_record(task_id))
        other.forget_group(task_id)
        assert store.get_group(task_id) is None
        assert not store.join_part(task_id, 1, 2, make_record(task_id))

    def test_groups_expire(self, store: ResultStore, other: ResultStore, task_id: str) -> None:
        store.save_group(task_id, b"[1]", time.time() - 1)
        assert other.get_group(task_id) is None

    def test_close_and_use_again(self, store: ResultStore, task_id: str) -> None:
        store.store([make_record(task_id)])
        store.close()
        [record] = store.get([task_id])
        assert record is not None
        store.close()
        store.close()


def _members(value: bytes | None) -> list[str]:
    return [] if value is None else [member[0][0] for member in msgspec.json.decode(value)[1]]
