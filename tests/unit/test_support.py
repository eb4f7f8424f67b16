"""The test enablers do what they say, so that a test that relies on them can fail for its own reason only."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from celeriac.errors import OperationalError, near_match
from celeriac.message import Message
from celeriac.results.base import Record
from celeriac.routing import Queue
from celeriac.transport.open import open_transport
from tests.support.calls import count_calls
from tests.support.clock import ManualClock
from tests.support.files import Ledger, eventually
from tests.support.flaky import Faults, FlakyStore, FlakyTransport
from tests.support.flaky_control import CONTROL_VARIABLE, FlakyControl, open_flaky_store
from tests.support.proxy import FaultProxy, Side
from tests.support.worker import WorkerProcess

# ManualClock


def test_clock_stands_still_until_advanced() -> None:
    clock = ManualClock(now=100.0, monotonic=5.0)
    assert (clock.now(), clock.monotonic()) == (100.0, 5.0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (102.5, 7.5)


def test_clock_jump_leaves_monotonic_time_alone() -> None:
    clock = ManualClock(now=100.0, monotonic=5.0).jump_wall_time(-60)
    assert (clock.now(), clock.monotonic()) == (40.0, 5.0)


def test_clock_refuses_to_run_backwards() -> None:
    with pytest.raises(ValueError, match="forwards only"):
        ManualClock().advance(-1)


def test_clock_wakes_sleepers_when_their_time_has_come() -> None:
    clock = ManualClock()
    woken: list[float] = []

    def sleeper(seconds: float) -> None:
        clock.sleep(seconds)
        woken.append(seconds)

    threads = [threading.Thread(target=sleeper, args=(seconds,)) for seconds in (1.0, 10.0)]
    for thread in threads:
        thread.start()
    clock.wait_for_sleepers(2)
    clock.advance(1.0)
    threads[0].join(10)
    assert woken == [1.0]
    assert clock.sleepers == 1
    clock.advance(9.0)
    threads[1].join(10)
    assert woken == [1.0, 10.0]


def test_clock_sleep_gives_up_when_nobody_advances_it() -> None:
    with pytest.raises(AssertionError, match=r"not advanced by 5"):
        ManualClock().sleep(5, timeout=0.01)


async def _sleep_and_advance(clock: ManualClock) -> float:
    task = asyncio.create_task(clock.asleep(3.0))
    await asyncio.to_thread(clock.wait_for_sleepers)
    clock.advance(3.0)
    await task
    return clock.monotonic()


def test_clock_wakes_coroutines() -> None:
    assert asyncio.run(_sleep_and_advance(ManualClock(monotonic=0.0))) == 3.0


# FaultProxy


@contextmanager
def echo_server() -> Iterator[int]:
    """Sends back what it is sent, until the end of the stream; then says "bye" and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
                connection.sendall(b"bye")
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with echo_server() as port, FaultProxy(port) as proxy:
        yield proxy


def connect(proxy: FaultProxy) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port), timeout=20)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def receive(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def echo(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return receive(client, len(data))


def test_proxy_passes_everything(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        assert echo(client, b"hello") == b"hello"
        assert echo(client, b"x" * 300_000) == b"x" * 300_000
        client.shutdown(socket.SHUT_WR)
        assert receive(client, 10) == b"bye"
    assert proxy.accepted == 1
    assert proxy.forwarded(Side.SERVER) == 300_005
    assert proxy.forwarded(Side.CLIENT) == 300_008


def test_proxy_cut_resets_connections_and_takes_new_ones(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        echo(client, b"hello")
        proxy.cut()
        assert proxy.connections == 0
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    with connect(proxy) as client:
        assert echo(client, b"again") == b"again"


def test_proxy_deaf_accepts_and_forwards_nothing_until_healed(proxy: FaultProxy) -> None:
    with connect(proxy) as old:
        echo(old, b"hello")
        proxy.deaf()
        with connect(proxy) as new:
            for client in (old, new):
                client.sendall(b"anybody?")
                client.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    client.recv(1)
            proxy.heal()
            for client in (old, new):
                client.settimeout(20)
                assert receive(client, 8) == b"anybody?"


def test_proxy_refuses_and_keeps_its_port(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        echo(client, b"hello")
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
    proxy.heal()
    with connect(proxy) as client:
        assert echo(client, b"again") == b"again"


def test_proxy_slices_into_small_pieces(proxy: FaultProxy) -> None:
    proxy.slice(3)
    with connect(proxy) as client:
        client.sendall(b"0123456789" * 20)
        pieces = []
        while sum(map(len, pieces)) < 200:
            pieces.append(client.recv(200))
    assert b"".join(pieces) == b"0123456789" * 20
    assert len(pieces) > 1


def test_proxy_slow_still_delivers_in_order(proxy: FaultProxy) -> None:
    proxy.slow(latency=0.01, bandwidth=1_000_000)
    with connect(proxy) as client:
        assert echo(client, b"abc" * 1000) == b"abc" * 1000


def test_proxy_half_close_ends_one_direction_only(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        echo(client, b"hello")
        before = proxy.forwarded(Side.SERVER)
        proxy.half_close(Side.CLIENT)
        assert client.recv(1) == b""
        client.sendall(b"still heard")
        eventually(lambda: proxy.forwarded(Side.SERVER) == before + 11)


def test_proxy_half_close_of_the_server_side_ends_its_input(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        echo(client, b"hello")
        proxy.half_close(Side.SERVER)
        assert receive(client, 3) == b"bye"


def test_proxy_drops_after_so_many_bytes(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        echo(client, b"hello")
        proxy.drop_after(10 + 4)
        client.sendall(b"0123456789")
        received = b""
        with pytest.raises(ConnectionResetError):
            while True:
                received += client.recv(10)
    assert b"0123".startswith(received)
    with connect(proxy) as client:
        assert echo(client, b"again") == b"again"


def test_proxy_resets_the_client_when_there_is_no_server() -> None:
    with echo_server() as port:
        pass
    # The reset may come so soon that it meets the client still connecting.
    with FaultProxy(port) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1)


# Flaky drivers


class ListStore:
    """The few verbs that these tests call, on a list."""

    def __init__(self) -> None:
        self.stored: list[Record] = []
        self.closed = False

    def store(self, records: Any) -> list[str]:
        self.stored += records
        return []

    def get(self, ids: Any) -> list[Record | None]:
        return [next((record for record in self.stored if record.id == id_), None) for id_ in ids]

    def close(self) -> None:
        self.closed = True


RECORD = Record(id="1", state="SUCCESS", result=b"5")


def flaky_store() -> tuple[FlakyStore, ListStore]:
    inner: Any = ListStore()
    return FlakyStore(inner), inner


def test_flaky_store_fails_so_many_times_before_anything_is_done() -> None:
    store, inner = flaky_store()
    store.faults.fail("store", times=2)
    for _ in range(2):
        with pytest.raises(OperationalError, match="^store: the test lets this call fail$"):
            store.store([RECORD])
    assert inner.stored == []
    assert store.store([RECORD]) == []
    assert inner.stored == [RECORD]
    assert store.faults.calls == ["store", "store", "store"]


def test_flaky_store_fails_chosen_verbs_until_healed() -> None:
    store, _ = flaky_store()
    store.faults.fail("store", error="disk on fire")
    assert store.get(["1"]) == [None]
    for _ in range(3):
        with pytest.raises(OperationalError, match="disk on fire"):
            store.store([RECORD])
    store.faults.heal()
    store.store([RECORD])
    assert store.get(["1"]) == [RECORD]


def test_flaky_store_without_verbs_fails_all_but_close() -> None:
    store, inner = flaky_store()
    store.faults.fail()
    with pytest.raises(OperationalError):
        store.get(["1"])
    store.close()
    assert inner.closed


def test_flaky_store_does_the_work_and_loses_the_reply() -> None:
    store, inner = flaky_store()
    store.faults.lose_replies("store", times=1)
    with pytest.raises(OperationalError, match="loses this reply"):
        store.store([RECORD])
    assert inner.stored == [RECORD]


@pytest.mark.parametrize("verbs", [("store",), ()])
def test_flaky_store_blocks_until_released(verbs: tuple[str, ...]) -> None:
    store, inner = flaky_store()
    store.faults.block(*verbs)
    thread = threading.Thread(target=store.store, args=([RECORD],))
    thread.start()
    store.faults.wait_until_blocked("store")
    assert inner.stored == []
    store.faults.release()
    thread.join(10)
    assert inner.stored == [RECORD]


def test_faults_wait_for_calls() -> None:
    faults = Faults()
    thread = threading.Thread(target=lambda: [faults.enter("fetch") for _ in range(3)])
    thread.start()
    faults.wait_for_call("fetch", 3)
    thread.join(10)
    assert faults.count("fetch") == 3
    with pytest.raises(AssertionError, match="publish was called 0 of 1 times"):
        faults.wait_for_call("publish", timeout=0.01)


def test_flaky_transport_around_a_real_one() -> None:
    transport = FlakyTransport(open_transport("memory://test-support-flaky", {}))
    transport.declare([Queue("q")])
    message = Message(id="1", headers={"task": "t"}, body=b"[]", queue="q")
    transport.faults.fail("publish", times=1)
    transport.faults.lose_replies("settle", times=1)
    with pytest.raises(OperationalError):
        transport.publish([message])
    transport.publish([message])
    assert transport.capabilities == transport.inner.capabilities
    assert [delivery.message.id for delivery in transport.fetch(["q"], 10, 0.0, 30.0)] == ["1"]
    assert transport.size("q").leased == 1
    assert transport.faults.calls == ["declare", "publish", "publish", "fetch", "size"]
    transport.close()


def test_flaky_drivers_are_switched_by_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = FlakyControl(tmp_path)
    monkeypatch.setenv(CONTROL_VARIABLE, control.env[CONTROL_VARIABLE])
    store = open_flaky_store("flaky://memory://test-support-control", {})
    store.store([RECORD])
    control.fail("store", error="no space")
    with pytest.raises(OperationalError, match="^store: no space$"):
        store.store([RECORD])
    control.lose_replies("forget")
    with pytest.raises(OperationalError, match="loses this reply"):
        store.forget(["1"])
    control.heal()
    assert store.get(["1"]) == [None]
    assert control.calls() == ["store", "store!", "forget!", "get"]


def test_flaky_drivers_are_found_by_url_in_another_process(
    tmp_path: Path, worker_process: Callable[..., WorkerProcess]
) -> None:
    script = """
from celeriac.errors import OperationalError
from celeriac.results.open import open_store
from celeriac.transport.open import open_transport
store = open_store("flaky://memory://test-support", {})
print(open_transport("flaky://memory://test-support", {}).size("q").ready, "ready")
try:
    store.get(["1"])
except OperationalError as exc:
    print("failed:", exc)
"""
    control = FlakyControl(tmp_path)
    control.fail("get")
    worker = worker_process(command=family(tmp_path, script), env=control.env)
    worker.wait_output("^failed: get: the test lets this call fail$")
    assert "0 ready" in worker.output
    assert control.calls() == ["size", "get!"]


# Ledger and eventually


def test_ledger_of_several_processes(ledger: Ledger) -> None:
    assert ledger.lines() == []
    script = "import sys; from tests.support.files import Ledger\nfor n in range(50): Ledger(sys.argv[1]).append(n)"
    root = Path(__file__).resolve().parents[2]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(ledger.path)], cwd=root, env={"PYTHONPATH": f"{root / 'src'}:{root}"}
        )
        for _ in range(2)
    ]
    assert len(ledger.wait_for(100)) == 100
    assert [writer.wait(30) for writer in writers] == [0, 0]
    assert ledger.counts() == {str(n): 2 for n in range(50)}


def test_ledger_refuses_line_breaks_and_names_what_is_missing(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="line break"):
        ledger.append("a\nb")
    ledger.append("a")
    with pytest.raises(AssertionError, match="1 of 2 lines"):
        ledger.wait_for(2, timeout=0.05)


def test_ledger_leaves_out_a_line_that_is_being_written(ledger: Ledger) -> None:
    ledger.path.write_text("whole\nhal")
    assert ledger.lines() == ["whole"]


def test_eventually_returns_the_first_true_answer() -> None:
    answers = iter([None, 0, "yes"])
    assert eventually(lambda: next(answers)) == "yes"


def test_eventually_names_the_last_answer() -> None:
    with pytest.raises(AssertionError, match="last answer: 0"):
        eventually(lambda: 0, timeout=0.02)

    def not_yet() -> bool:
        raise AssertionError("two are missing")

    with pytest.raises(AssertionError, match="two are missing"):
        eventually(not_yet, timeout=0.02)


# count_calls


def test_calls_are_counted_with_their_files() -> None:
    counted = count_calls(lambda: near_match("PENDNG", ["PENDING"]))
    assert counted.result == " Did you mean 'PENDING'?"
    assert counted.made[0].function == "near_match"
    assert counted.files == ["celeriac/errors.py"]
    assert counted.package_calls == 1
    assert counted.calls > 5  # difflib's
    assert "near_match  (celeriac/errors.py:" in counted.listing.splitlines()[1]
    assert counted.listing.splitlines()[2].startswith("  ")


def test_c_functions_are_not_counted() -> None:
    assert count_calls(lambda: len(str(3))).calls == 0


# WorkerProcess

#: Stands for a worker: says that it is ready, forks a zygote that forks two runners, and ends at TERM.
_FAMILY = """
import os, signal, sys
def child(job):
    pid = os.fork()
    if not pid:
        job()
        os._exit(0)
    return pid
def zygote():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for _ in range(2):
        child(signal.pause)
    signal.pause()
def leave(*_):
    print("leaving")
    sys.exit(3)
signal.signal(signal.SIGTERM, leave)
child(zygote)
print("celery@here ready.")
while True:
    signal.pause()
"""


def family(tmp_path: Path, script: str = _FAMILY) -> list[str]:
    path = tmp_path / "family.py"
    path.write_text(script)
    return [sys.executable, str(path)]


@pytest.mark.linux
def test_worker_process_is_awaited_and_seen(tmp_path: Path, worker_process: Callable[..., WorkerProcess]) -> None:
    worker = worker_process(command=family(tmp_path))
    assert worker.wait_ready() == "celery@here"
    runners = worker.wait_runners(2)
    assert len(worker.tree()) == 4
    assert set(runners) < set(worker.tree())
    assert worker.pid in worker.tree()
    assert worker.pss_bytes() > 1_000_000
    assert worker.returncode is None


@pytest.mark.linux
def test_worker_process_counts_cpu_of_children_too(
    tmp_path: Path, worker_process: Callable[..., WorkerProcess]
) -> None:
    script = """
import os, time, signal
ended = os.fork()
while time.process_time() < 0.1:
    pass
if ended == 0:
    os._exit(0)
os.waitpid(ended, 0)
print("spun")
signal.pause()
"""
    worker = worker_process(command=family(tmp_path, script))
    worker.wait_output("spun")
    assert worker.cpu_seconds() >= 0.15  # 0.1 each, told in steps of 0.01


@pytest.mark.linux
def test_worker_process_stops_and_leaves_orphans_in_view(
    tmp_path: Path, worker_process: Callable[..., WorkerProcess]
) -> None:
    worker = worker_process(command=family(tmp_path))
    worker.wait_runners(2)
    worker.wait_ready()
    assert worker.stop() == 3
    assert "leaving" in worker.output
    assert len(worker.tree()) == 3
    worker.close()
    eventually(lambda: not worker.tree())


@pytest.mark.linux
def test_worker_process_kill_reaches_one_or_all(tmp_path: Path, worker_process: Callable[..., WorkerProcess]) -> None:
    worker = worker_process(command=family(tmp_path))
    runners = worker.wait_runners(2)
    zygote = (set(worker.tree()) - {worker.pid, *runners}).pop()
    os.kill(zygote, signal.SIGKILL)
    eventually(lambda: zygote not in worker.tree())
    assert worker.runner_pids() == runners
    worker.kill(signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    assert worker.tree() == runners
    worker.kill_tree(signal.SIGKILL)
    eventually(lambda: not worker.tree())


def test_worker_process_that_ends_says_so_with_its_output(
    tmp_path: Path, worker_process: Callable[..., WorkerProcess]
) -> None:
    worker = worker_process(command=family(tmp_path, "print('wrong setting'); raise SystemExit(2)"))
    with pytest.raises(AssertionError, match=r"the worker ended with 2\. Output:\nwrong setting"):
        worker.wait_ready()


def test_worker_process_that_ignores_term_is_killed(
    tmp_path: Path, worker_process: Callable[..., WorkerProcess]
) -> None:
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); signal.pause()"
    worker = worker_process(command=family(tmp_path, script))
    worker.wait_output("deaf")
    assert worker.stop(timeout=0.2) == -signal.SIGKILL


def test_worker_process_gets_the_environment_and_the_folder(
    tmp_path: Path, worker_process: Callable[..., WorkerProcess]
) -> None:
    script = "import os, celeriac, tests.support; print(os.environ['COLOUR'], os.getcwd())"
    worker = worker_process(command=family(tmp_path, script), env={"COLOUR": "green"})
    assert worker.wait_output(r"^green (.*)$")[1] == str(tmp_path)
