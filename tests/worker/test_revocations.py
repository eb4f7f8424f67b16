"""What a worker remembers as revoked, which messages have to be looked up, and what is written down."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from celeriac import states
from celeriac.message import Message
from celeriac.results.base import Record
from celeriac.results.memory import MemoryStore
from celeriac.revoking import created_at, last_revoke, store_revoked
from celeriac.timing import LamportClock
from celeriac.worker import revocations
from celeriac.worker.revocations import SKEW, Revocations
from celeriac.worker.state_file import StateFile
from celeriac.worker.termination import signal_number


def message(task_id: str = "a", **headers: Any) -> Message:
    return Message(id=task_id, headers={"id": task_id, "task": "t", **headers}, body=b"")


def id_made_at(moment: float) -> str:
    """An id of ours."""
    digits = f"{int(moment * 1000):012x}7abc8{uuid.uuid4().hex[17:]}"
    return str(uuid.UUID(digits))


@pytest.fixture
def known() -> Revocations:
    known = Revocations()
    known.unheard_until = 0.0
    return known


def test_ids_are_limited_in_number_and_age(known: Revocations, monkeypatch: pytest.MonkeyPatch) -> None:
    """[B-REVOKE-012]"""
    assert (revocations.MAX_IDS, revocations.KEPT) == (50_000, 10_800)
    monkeypatch.setattr(revocations, "MAX_IDS", 3)
    now = time.time()
    known.add(["a", "b", "c", "d"], now)
    assert known.ids() == ["b", "c", "d"]
    known.add(["e"], now + 10_801)
    assert known.ids() == ["e"]
    assert not known.is_revoked(message("b"))


def test_what_is_forgotten_here_is_looked_up(known: Revocations) -> None:
    now = time.time()
    early, late = id_made_at(now - 5), id_made_at(now + 3 * SKEW)
    assert not known.is_doubtful(early)
    known.add([early], now)
    known.add(["another"], now + 20_000)
    assert not known.is_revoked(message(early))
    assert known.is_doubtful(early)
    assert not known.is_doubtful(late)


def test_only_messages_older_than_the_last_unheard_revoke_are_looked_up(known: Revocations) -> None:
    known.unheard_until = time.time()
    assert known.is_doubtful(id_made_at(time.time() - 3600))
    assert known.is_doubtful(id_made_at(time.time() + SKEW / 2))  # clocks differ
    assert not known.is_doubtful(id_made_at(time.time() + 2 * SKEW))
    assert known.is_doubtful(str(uuid.uuid4()))  # nobody knows when it was made
    assert known.is_doubtful("my-own-id")
    known.unheard_until = float("inf")
    assert known.is_doubtful(id_made_at(time.time() + 3600))


def test_ids_say_when_they_were_made() -> None:
    now = time.time()
    made = created_at(id_made_at(now))
    assert made is not None and abs(made - now) < 0.01
    for other in ("", "x" * 36, str(uuid.uuid4()), "zzzzzzzz-zzzz-7zzz-8zzz-zzzzzzzzzzzz"):
        assert created_at(other) is None


@pytest.mark.parametrize(
    ("revoked", "stamps", "expected"),
    [
        ({"mid": "x"}, {"mid": "x"}, True),
        ({"mid": ["x", "y"]}, {"mid": "y"}, True),
        ({"mid": "y"}, {"mid": ["x", "y"]}, True),
        ({"mid": ["x"], "other": "z"}, {"other": "z"}, True),
        ({"mid": "x"}, {"mid": "z"}, False),
        ({"mid": "x"}, {}, False),
        ({"mid": "x"}, None, False),
        ({"mid": "x"}, "x", False),
    ],
)
def test_a_stamp_matches_by_any_of_its_values(known: Revocations, revoked: Any, stamps: Any, expected: bool) -> None:
    """[B-REVOKE-014]"""
    known.add_stamps(revoked)
    assert known.is_revoked(message(stamps=stamps)) is expected


# written down


def test_only_what_waits_is_marked_as_revoked() -> None:
    """[B-REVOKE-002] [B-REVOKE-003]"""
    store = MemoryStore(f"memory://{uuid.uuid4().hex}")
    assert last_revoke(store) is None
    store.store(
        [Record(id=state, state=state, result=b"1", fence=(0, 1)) for state in ("SUCCESS", "FAILURE", "STARTED")]
    )
    store.store([Record(id="RETRY", state="RETRY", result=b"1", fence=(2, 1))])
    before = time.time()
    store_revoked(store, ["new", "SUCCESS", "FAILURE", "STARTED", "RETRY", "new"], 3600)
    found = {record.id: record for record in store.get(["new", "SUCCESS", "FAILURE", "STARTED", "RETRY"]) if record}
    assert {task_id: record.state for task_id, record in found.items()} == {
        "new": states.REVOKED, "SUCCESS": "SUCCESS", "FAILURE": "FAILURE", "STARTED": "STARTED", "RETRY": states.REVOKED,
    }  # fmt: skip
    assert b"TaskRevokedError" in found["new"].result and found["new"].expires_at > before + 3599  # type: ignore[operator]
    last = last_revoke(store)
    assert last is not None and before <= last <= time.time()
    # What an execution says that began all the same is newer.
    assert store.store([Record(id="new", state="SUCCESS", result=b"1", fence=(0, 1))]) == []


def test_the_state_file_keeps_ids_and_clock(tmp_path: Path, known: Revocations) -> None:
    """[B-REVOKE-011] [B-WORKER-023]"""
    path = tmp_path / "state.db"
    known.add(["one", "two"])
    StateFile(str(path), known, LamportClock(41)).save()
    again, clock = Revocations(), LamportClock(3)
    StateFile(str(path), again, clock).load()
    assert again.items() == known.items()
    assert clock.value == 42
    assert [each.name for each in tmp_path.iterdir()] == ["state.db"]


def test_an_unreadable_state_file_is_put_aside(tmp_path: Path, known: Revocations) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"\x00not ours")
    file = StateFile(str(path), known, LamportClock())
    file.load()
    assert (tmp_path / "state.db.unreadable").read_bytes() == b"\x00not ours"
    file.save()
    assert path.exists()


def test_signals_have_names_and_numbers() -> None:
    assert [signal_number(each) for each in (None, "SIGKILL", "kill", "15", 9, "usr1")] == [15, 9, 9, 15, 9, 10]
    with pytest.raises(ValueError, match="SIGTREM.*SIGTERM"):
        signal_number("TREM")
    with pytest.raises(ValueError, match="999"):
        signal_number(999)
