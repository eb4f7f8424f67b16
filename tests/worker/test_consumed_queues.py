"""The queues of a running worker: those that commands add, as they describe them, and its own."""

from __future__ import annotations

from typing import Any

from celeriac import Celeriac, Queue
from celeriac.routing import worker_direct
from celeriac.testing.worker import EmbeddedWorker, start_worker
from tests.support.files import eventually


def tell(app: Celeriac, worker: EmbeddedWorker, command: str, **arguments: Any) -> Any:
    eventually(lambda: app.control.ping([worker.node], timeout=0.2), 20)  # it listens from a moment after its start on
    replies = app.control.broadcast(command, arguments, [worker.node], reply=True, timeout=20, limit=1)
    return replies[0][worker.node]


def test_a_queue_is_consumed_as_the_command_describes_it(each_app: Celeriac) -> None:
    each_app.task(lambda word: word, name="say")
    with start_worker(each_app) as worker:
        tell(each_app, worker, "ping")
        each_app.control.add_consumer(
            "feeds", "media", "topic", "feed.#", {"expires": 60, "max_length": 5}, reply=True, timeout=20, limit=1
        )
        (listed,) = [each for each in tell(each_app, worker, "active_queues") if each["name"] == "feeds"]
        assert (listed["exchange"]["name"], listed["exchange"]["type"], listed["routing_key"]) == (
            "media",
            "topic",
            "feed.#",
        )
        assert (listed["expires"], listed["max_length"]) == (60, 5)
        result = each_app.send_task("say", ("cats",), exchange="media", exchange_type="topic", routing_key="feed.cats")
        assert result.get(timeout=20) == "cats"
        assert tell(each_app, worker, "cancel_consumer", queue="feeds") == {"ok": "no longer consuming from feeds"}
        assert [each["name"] for each in tell(each_app, worker, "active_queues")] == ["celery"]


def test_a_queue_that_the_app_describes_is_consumed_by_its_alias(each_app: Celeriac) -> None:
    each_app.conf.task_queues = [Queue("celery"), Queue("a-long-name", alias="short")]
    each_app.task(lambda word: word, name="say")
    with start_worker(each_app, queues=["celery"]) as worker:
        assert tell(each_app, worker, "add_consumer", queue="short") == {"ok": "add consumer short"}
        assert each_app.send_task("say", ("x",), queue="a-long-name").get(timeout=20) == "x"


def test_a_wrong_description_is_an_answer(each_app: Celeriac) -> None:
    with start_worker(each_app) as worker:
        answer = tell(each_app, worker, "add_consumer", queue="q", exchange="x", exchange_type="topik")
        assert "Did you mean 'topic'?" in answer["error"]


def test_a_worker_has_a_queue_of_its_own(each_app: Celeriac) -> None:
    """[B-ROUTE-018]"""
    each_app.conf.worker_direct = True

    @each_app.task(name="where", bind=True)
    def where(self: Any) -> str:
        return str(self.request.hostname)

    with start_worker(each_app, node="one@test", queues=["q"]), start_worker(each_app, node="two@test"):
        for node in ("one@test", "two@test", "one@test"):
            assert where.apply_async(queue=worker_direct(node)).get(timeout=20) == node
