"""Examines an installation: does the broker answer, does a message come back, is anything set dangerously, what may be lost.

`celeriac doctor` prints what `examine` finds. Everything is tried for real: a message goes through a queue of its own and a
result through the store; both are removed again. Whatever a driver may tell about itself it tells by optional methods:
`durability_report()`, lines for people; `server_time()`, seconds since 1970 by the server's clock; and `path`, where it
keeps files. Invariants: no message or result of the user's is touched, and no failure of one check stops the next.
"""

from __future__ import annotations

import contextlib
import functools
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from celeriac.config_mask import mask_url
from celeriac.doctor_files import examine_files
from celeriac.doctor_finding import Finding, Level
from celeriac.doctor_settings import examine_settings
from celeriac.errors import CeleriacError, near_match
from celeriac.message import Message, Settlement
from celeriac.results.base import Record, ResultStore
from celeriac.routing import Queue
from celeriac.transport.base import Transport
from celeriac.transport.open import open_transport

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["Finding", "Level", "examine"]

#: Seconds that a message on its round trip may take.
PATIENCE = 5.0
#: Seconds of a round trip that are worth a warning.
SLOW = 1.0
#: Seconds that clocks may differ.
SKEW = 5.0
#: Seconds after which a queue that nobody works on is looked at again.
SECOND_LOOK = 1.0
#: Dead letters that are counted.
COUNTED = 1000


def examine(app: Celeriac) -> Iterator[Finding]:
    """All findings about an app, one after the other, as they are made."""
    yield from examine_settings(app)
    yield from _examine_broker(app)
    yield from _examine_store(app)


def _guarded(topic: str, advice: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a check finds; an error of ours becomes a finding."""
    try:
        yield from check()
    except CeleriacError as exc:
        yield Finding(Level.FAIL, topic, str(exc), advice)
    except Exception as exc:  # a driver's bug, or a third party's: said, so that the other checks still run
        yield Finding(
            Level.FAIL, topic, f"unexpected {type(exc).__name__}: {exc}", "This is a bug in the driver: report it."
        )


def _files_advice(driver: Any) -> str:
    """What to look at where a driver keeps files; "" for servers."""
    path = getattr(driver, "path", "")
    return f"Does the folder of {path} exist, and may this user write to it?" if path else ""


# --- the broker


def _examine_broker(app: Celeriac) -> Iterator[Finding]:
    try:
        writer = app.transport
        reader = _reader(app, writer)
    except CeleriacError as exc:
        yield Finding(Level.FAIL, "broker", str(exc), "Correct broker_url or broker_transport_options.")
        return
    works = False
    try:
        for each in getattr(writer, "brokers", [writer]):  # where there are several, each has to work
            answers = yield from _round_trip(each, each if reader is writer else reader)
            yield from examine_files("broker", each)
            if answers:
                works = True
                yield from _guarded("broker", "", functools.partial(_durability, "broker", each))
                yield from _guarded("clock", "", functools.partial(_clock, "broker", each))
        if works:
            yield from _guarded("queues", "", lambda: _queues(app, reader))
            yield from _guarded("dead letters", "", lambda: _dead_letters(reader))
    finally:
        if reader is not writer:
            reader.close()


def _reader(app: Celeriac, writer: Transport) -> Transport:
    """The transport that workers read from: another one only where the settings say so."""
    conf = app.conf
    if conf.broker_read_url == conf.broker_write_url:
        return writer
    return open_transport(conf.broker_read_url, conf.broker_transport_options, conf)


def _round_trip(writer: Transport, reader: Transport) -> Generator[Finding, None, bool]:
    """Send a message through a queue of its own. Its value tells whether that worked."""
    queue = Queue(f"celeriac.doctor.{uuid.uuid4().hex}", expires=300.0)  # a broker that can removes it if we die
    url = mask_url(writer.url)
    try:
        reader.declare([queue])
        began = time.monotonic()
        _publish(writer, queue.name)
        deliveries = reader.fetch([queue.name], 1, PATIENCE, 60.0)
        reader.settle([Settlement(delivery) for delivery in deliveries])
        took = time.monotonic() - began
    except CeleriacError as exc:
        advice = f"Is the broker running, and is {url} where it is? Is a firewall between?"
        yield Finding(Level.FAIL, "broker", str(exc), _files_advice(writer) or advice)
        return False
    except Exception as exc:  # a driver's bug, or a third party's
        yield Finding(
            Level.FAIL, "broker", f"unexpected {type(exc).__name__}: {exc}", "Report it: a bug in the driver."
        )
        return False
    finally:
        with contextlib.suppress(Exception):  # it has failed already, and that has been said
            reader.delete(queue.name)
    if not deliveries:
        text = f"{url} took a message and did not give it back within {PATIENCE:g} s"
        yield Finding(Level.FAIL, "broker", text, "Are broker_read_url and broker_write_url the same broker?")
        return False
    level = Level.WARN if took > SLOW else Level.OK
    advice = "Every task pays for that: is the broker far away or overloaded?" if took > SLOW else ""
    yield Finding(level, "broker", f"{url} took, gave and forgot a message in {took * 1000:.0f} ms", advice)
    if not writer.capabilities.survives_restart:
        text = f"{url} lives in this process: nobody else can read it, and its end loses every message"
        yield Finding(
            Level.WARN, "broker", text, "Use it for tests only; sqlite:///celeriac.db needs no server either."
        )
    return True


def _publish(transport: Transport, queue: str) -> None:
    task_id = str(uuid.uuid4())
    headers = {"lang": "py", "task": "celeriac.doctor", "id": task_id, "retries": 0}
    body = b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
    transport.publish([
        Message(id=task_id, headers=headers, body=body, queue=queue, routing_key=queue, expires_at=time.time() + 300)
    ])  # fmt: skip


def _durability(topic: str, driver: Any) -> Iterator[Finding]:
    report = getattr(driver, "durability_report", None)
    if report is None:
        return
    lines = report()
    for line in lines:
        yield Finding(Level.WARN, topic, f"durability: {line}")
    if not lines:
        yield Finding(Level.OK, topic, "durability: a crash loses nothing that was accepted")


def _clock(topic: str, driver: Any) -> Iterator[Finding]:
    """How far this machine's clock is from the server's: ETAs, expiry and schedules compare moments of several machines."""
    server_time = getattr(driver, "server_time", None)
    if server_time is None:
        return
    before = time.time()
    there = server_time()
    after = time.time()
    skew = max(0.0, there - after, before - there)
    if skew > SKEW:
        side = "ahead of" if there > after else "behind"
        text = f"the {topic}'s clock is {skew:.0f} s {side} this machine's"
        yield Finding(Level.WARN, "clock", text, "ETAs and expiry are off by as much: run NTP on both.")
    else:
        yield Finding(Level.OK, "clock", f"the {topic}'s clock and this machine's agree within {max(skew, 1):.0f} s")


def _queues(app: Celeriac, transport: Transport) -> Iterator[Finding]:
    names = list(app.router.queues)
    sizes = {name: transport.size(name) for name in names}
    idle = [name for name, size in sizes.items() if size.ready and not size.leased]
    if idle:
        time.sleep(SECOND_LOOK)
        again = {name: transport.size(name) for name in idle}
        idle = [name for name, size in again.items() if size.leased == 0 and size.ready >= sizes[name].ready]
        sizes |= again
    for name, size in sizes.items():
        text = f"{name}: {size.ready} ready, {size.delayed} not yet due, {size.leased} with workers"
        if name in idle:
            advice = f"Nobody takes them. Start a worker: celeriac -A {app.main or 'module'} worker -Q {name}"
            yield Finding(Level.WARN, "queues", text, advice)
        else:
            yield Finding(Level.OK, "queues", text)
    default = app.conf.task_default_queue
    if default not in names:
        hint = near_match(default, names)
        yield Finding(
            Level.WARN,
            "queues",
            f"task_default_queue {default!r} is not in task_queues.{hint}",
            "Tasks without a route go there.",
        )


def _dead_letters(transport: Transport) -> Iterator[Finding]:
    if not transport.capabilities.dead_letters:
        yield Finding(Level.OK, "dead letters", "this broker can't list them: look with its own tools")
        return
    letters = transport.dead_letters(COUNTED)
    if not letters:
        yield Finding(Level.OK, "dead letters", "none")
        return
    number = f"{len(letters)} or more" if len(letters) == COUNTED else str(len(letters))
    newest = letters[0]
    text = f"{number}; the newest is {newest.message.task or 'unreadable'} from {newest.queue}: {newest.reason}"
    yield Finding(Level.WARN, "dead letters", text, "See them with: celeriac dead list")


# --- the result store


def _examine_store(app: Celeriac) -> Iterator[Finding]:
    try:
        store = app.backend
    except CeleriacError as exc:
        yield Finding(Level.FAIL, "results", str(exc), "Correct result_backend or result_backend_transport_options.")
        return
    if store is None:
        yield Finding(Level.OK, "results", "disabled: tasks run, but nobody can ask for their results")
        return
    if not store.capabilities.persistent:
        yield Finding(Level.OK, "results", f"{mask_url(store.url)} sends each result to its caller and keeps none")
        return
    works = yield from _store_round_trip(store)
    yield from examine_files("results", store)
    if works:
        yield from _guarded("results", "", lambda: _durability("results", store))
        yield from _guarded("clock", "", lambda: _clock("result store", store))
        yield from _guarded("results", "", lambda: _together(app, store))


def _store_round_trip(store: ResultStore) -> Generator[Finding, None, bool]:
    """Keep a result, get it and forget it. Its value tells whether that worked."""
    url = mask_url(store.url)
    record = Record(id=f"celeriac-doctor-{uuid.uuid4()}", state="SUCCESS", result=b'"ok"', expires_at=time.time() + 300)
    try:
        began = time.monotonic()
        store.store([record])
        [found] = store.get([record.id])
        took = time.monotonic() - began
        store.forget([record.id])
    except CeleriacError as exc:
        advice = f"Is the result store running, and is {url} where it is?"
        yield Finding(Level.FAIL, "results", str(exc), _files_advice(store) or advice)
        return False
    except Exception as exc:  # a driver's bug, or a third party's
        yield Finding(
            Level.FAIL, "results", f"unexpected {type(exc).__name__}: {exc}", "Report it: a bug in the driver."
        )
        return False
    if found is None or found.result != record.result:
        text = f"{url} took a result and did not give it back"
        yield Finding(Level.FAIL, "results", text, "Does the store evict, or do several servers stand behind one name?")
        return False
    level = Level.WARN if took > SLOW else Level.OK
    how = "tells who waits" if store.capabilities.pushes else "is asked again and again by who waits"
    yield Finding(level, "results", f"{url} kept and gave a result in {took * 1000:.0f} ms, and {how}")
    return True


def _together(app: Celeriac, store: ResultStore) -> Iterator[Finding]:
    if app.transport.commits_with(store):
        yield Finding(Level.OK, "results", "stored and acknowledged in one step with the broker")
