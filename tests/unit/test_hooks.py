"""Signals: who is told, with what, and for how long a receiver is held."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from celeriac.hooks import Signal
from tests.support.apps import memory_app, run_all


@pytest.mark.behaviour("B-SIGNAL-001")
def test_a_receiver_hears_of_the_senders_it_asked_for() -> None:
    signal, heard = Signal(name="moment"), []
    signal.connect(lambda sender, **_: heard.append(("one", sender)), sender="one", weak=False)
    signal.connect(lambda sender, **_: heard.append(("any", sender)), weak=False)
    signal.send(sender="one")
    signal.send(sender="two")
    assert heard == [("one", "one"), ("any", "one"), ("any", "two")]


@pytest.mark.behaviour("B-SIGNAL-001")
def test_receivers_are_held_weakly_unless_told_otherwise() -> None:
    signal, heard = Signal(name="moment"), []
    signal.connect(lambda **_: heard.append("weak"))
    signal.connect(lambda **_: heard.append("kept"), weak=False)

    class Listener:
        def hear(self, **_: Any) -> None:
            heard.append("method")

    listener = Listener()
    signal.connect(listener.hear)
    gc.collect()
    signal.send()
    assert heard == ["kept", "method"], "a method lives as long as its object"
    del listener
    gc.collect()
    signal.send()
    assert heard == ["kept", "method", "kept"]


@pytest.mark.behaviour("B-SIGNAL-001")
def test_one_uid_is_connected_once() -> None:
    signal, heard = Signal(name="moment"), []
    for name in ("first", "second"):
        signal.connect(lambda name=name, **_: heard.append(name), dispatch_uid="mine", weak=False)
    signal.send()
    assert heard == ["first"]
    assert signal.disconnect(dispatch_uid="mine")
    assert not signal.disconnect(dispatch_uid="mine")
    signal.send()
    assert heard == ["first"]


def test_a_receiver_that_has_gone_keeps_out_no_other() -> None:
    """Python may put a new function where an old one was: the two have one id."""
    signal, heard = Signal(name="moment"), []
    for number in range(50):

        def receiver(number: int = number, **_: Any) -> None:
            heard.append(number)

        signal.connect(receiver)
        signal.send()
        del receiver
    assert heard == list(range(50))
    assert len(signal.receivers) == 1


@pytest.mark.behaviour("B-SIGNAL-002")
def test_receivers_get_the_signal_and_the_sender_by_name() -> None:
    signal, heard = Signal(name="moment"), []

    @signal.connect
    def receiver(**named: Any) -> str:
        heard.append(named)
        return "answer"

    assert signal.send(sender="me", extra=1) == [(receiver, "answer")]
    assert heard == [{"signal": signal, "sender": "me", "extra": 1}]


@pytest.mark.behaviour("B-SIGNAL-002")
def test_the_signals_of_a_task_name_themselves_and_the_task() -> None:
    from celeriac import signals

    app, heard = memory_app(), []
    task = app.task(lambda: 1, name="one")

    def receiver(signal: Signal, sender: Any, **_: Any) -> None:
        heard.append((signal, sender))

    told = (signals.task_prerun, signals.task_success, signals.task_postrun)
    for each in told:
        each.connect(receiver, sender=task)
    try:
        task.delay()
        run_all(app)
    finally:
        for each in told:
            each.disconnect(receiver, sender=task)
    assert heard == [(each, task) for each in told]


def test_a_receiver_that_raises_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    signal, heard = Signal(name="moment"), []
    error = ValueError("mine")

    def fails(**_: Any) -> None:
        raise error

    def hears(**_: Any) -> None:
        heard.append(1)

    signal.connect(fails)
    signal.connect(hears)
    assert signal.send() == [(fails, error), (hears, None)]
    assert "of signal moment raised" in caplog.text


def test_a_receiver_that_is_to_be_retried_is_called_until_it_works() -> None:
    signal, heard = Signal(name="moment"), []

    def receiver(**_: Any) -> int:
        heard.append(1)
        if len(heard) < 3:
            raise ConnectionError
        return len(heard)

    signal.connect(receiver, retry=True)
    assert [answer for _, answer in signal.send()] == [3]


def test_whether_anybody_listens() -> None:
    signal = Signal(name="moment")
    assert not signal.has_listeners()
    signal.connect(lambda **_: None, sender="one", weak=False)
    assert (signal.has_listeners(), signal.has_listeners("one"), signal.has_listeners("two")) == (True, True, False)
    gone = Signal(name="gone")
    gone.connect(lambda **_: None)
    gc.collect()
    assert not gone.has_listeners()
