"""Where tasks go: call options, attributes, routes, queues; whatever form they are given in."""

from __future__ import annotations

import re
import sys
import types
from typing import Any

import pytest

from celeriac import Celeriac, Exchange, Queue
from celeriac.errors import ImproperlyConfigured, QueueNotFound
from celeriac.queue_forms import as_exchange, as_queue
from celeriac.router import Route
from tests.support.apps import memory_app, sent


def _route(app: Celeriac, name: str = "shop.add", task: Any = None, **options: Any) -> Route:
    return app.router.route(name, (1,), {"k": 2}, options, task)


def _queue(settings: dict[str, Any], name: str = "shop.add", **options: Any) -> str:
    return _route(memory_app(**settings), name, **options).queue


# the default


def test_without_routes_everything_goes_to_celery() -> None:
    """[B-ROUTE-001]"""
    assert _route(memory_app()) == Route("celery", "", "celery")


def test_the_default_queue_can_be_another() -> None:
    """[B-ROUTE-022, B-CONF-015]"""
    app = memory_app(task_default_queue="shop")
    assert _queue({"task_default_queue": "shop"}) == "shop"
    assert (app.router.default.exchange.name, app.router.default.routing_key) == ("shop", "shop")


def test_a_queue_that_is_named_is_made() -> None:
    """[B-ROUTE-002]"""
    app = memory_app()
    assert _route(app, queue="video") == Route("video", "", "video")
    assert (app.router.queues["video"].exchange.name, app.router.queues["video"].routing_key) == ("video", "video")


def test_a_queue_may_be_an_object() -> None:
    assert _queue({}, queue=Queue("video")) == "video"


def test_missing_queues_are_made_as_settings_say() -> None:
    """[B-ROUTE-019, B-ROUTE-023]"""
    app = memory_app(
        task_create_missing_queue_type="quorum",
        task_create_missing_queue_exchange_type="topic",
        task_queue_max_priority=10,
    )
    assert _route(app, queue="video") == Route("", "video", "video")
    video = app.router.queues["video"]
    assert (video.exchange, video.routing_key) == (Exchange("video", "topic"), "video")
    assert video.queue_arguments == {"x-queue-type": "quorum", "x-max-priority": 10}
    assert app.undeclared == [video]


def test_the_highest_priority_is_that_of_queues_that_say_none() -> None:
    """[B-ROUTE-019]"""
    app = memory_app(task_queue_max_priority=10, task_queues=[Queue("plain"), Queue("own", max_priority=5)])
    found = {name: (queue.max_priority, queue.queue_arguments) for name, queue in app.router.queues.items()}
    assert found == {"plain": (None, {"x-max-priority": 10}), "own": (5, {})}
    assert app.router.default.queue_arguments == {"x-max-priority": 10}


def test_unknown_queues_can_be_refused() -> None:
    """[B-ROUTE-003]"""
    app = memory_app(task_create_missing_queues=False)
    assert _route(app).queue == "celery"
    with pytest.raises(QueueNotFound, match="Queue 'video' is not in task_queues"):
        _route(app, queue="video")


# routes


@pytest.mark.parametrize(
    "routes",
    [
        {"shop.add": {"queue": "q"}},
        {"shop.add": "q"},
        {"shop.*": "q"},
        [("shop.*", {"queue": "q"})],
        ([(re.compile(r"shop\.(add|sub)"), "q")],),
        [{"other": "no"}, {"shop.add": "q"}],
        lambda name, args, kwargs, options, task=None, **_: {"queue": "q"} if name == "shop.add" else None,
        [lambda name, *_, **__: None, lambda name, *_, **__: "q"],
    ],
)
def test_the_forms_of_routes(routes: Any) -> None:
    """[B-ROUTE-006, B-ROUTE-007]"""
    assert _queue({"task_routes": routes}) == "q"


def test_an_exact_name_beats_patterns_and_patterns_go_in_order() -> None:
    """[B-ROUTE-004, B-ROUTE-005]"""
    routes = [("shop.*", "any"), ("shop.a*", "a"), ("shop.add", "exact")]
    assert _queue({"task_routes": routes}) == "exact"
    assert _queue({"task_routes": routes}, "shop.all") == "any"
    assert _queue({"task_routes": routes[1:]}, "shop.all") == "a"
    assert _queue({"task_routes": routes}, "bank.add") == "celery"


def test_a_router_is_told_everything() -> None:
    """[B-ROUTE-011]"""
    seen: list[Any] = []

    def router(*given: Any, **named: Any) -> None:
        seen.append((given, named))

    app = memory_app(task_routes=router)
    task = app.task(lambda x: None, name="t")
    task.apply_async((1,), priority=3)
    assert seen == [(("t", (1,), None, {"priority": 3}), {"task": task})]


def test_a_router_is_asked_each_time() -> None:
    answers = iter(["one", "two"])
    app = memory_app(task_routes=lambda *_, **__: next(answers))
    assert [_route(app).queue, _route(app).queue] == ["one", "two"]


def test_a_router_by_its_path_is_imported_when_first_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """[B-ROUTE-012]"""
    app = memory_app(task_routes=("router_of_a_test.Router",))
    module = types.ModuleType("router_of_a_test")

    class Router:
        def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> str:
            return f"queue of {task}"

    module.Router = Router  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert _route(app).queue == "queue of shop.add"


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        (5, "task_routes: 5 is neither a mapping"),
        ("no.such.thing", "task_routes: can't import 'no.such.thing'"),
        ("nothing", "task_routes: can't import 'nothing'"),
        ({"shop.add": 5}, "task_routes: the route of 'shop.add' is 5"),
        (lambda *_, **__: 5, "task_routes: the route of 'shop.add' is 5"),
    ],
)
def test_a_wrong_route_is_named(routes: Any, words: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=words):
        _queue({"task_routes": routes})


# ranks


def test_call_beats_task_beats_route() -> None:
    """[B-ROUTE-008]"""
    app = memory_app(task_routes={"t": "of route", "u": "of route"})
    own = app.task(lambda: None, name="t", queue="of task")
    plain = app.task(lambda: None, name="u")
    own.delay()
    own.apply_async(queue="of call")
    plain.delay()
    assert [len(sent(app, queue)) for queue in ("of task", "of call", "of route")] == [1, 1, 1]


def test_other_keys_of_a_route_hold_whoever_names_the_queue() -> None:
    """[B-ROUTE-008, B-ROUTE-010]"""
    app = memory_app(task_routes={"t": {"queue": "of route", "priority": 5, "serializer": "yaml"}})
    app.task(lambda: None, name="t").apply_async(queue="of call")
    (message,) = sent(app, "of call")
    assert (message.priority, message.content_type) == (5, "application/x-yaml")


# exchanges

QUEUES = [
    Queue("news", Exchange("media", "topic"), "news.#"),
    Queue("all", Exchange("media", "topic"), "#"),
    Queue("default", Exchange("tasks", "direct"), "task.default"),
    Queue("video", Exchange("tasks", "direct"), "task.video"),
]
MANY = {
    "task_queues": QUEUES,
    "task_default_queue": "default",
    "task_default_exchange": "tasks",
    "task_default_routing_key": "task.default",
}


def test_a_queue_of_a_topic_exchange_is_reached_through_it() -> None:
    """[B-ROUTE-009, B-ROUTE-015]"""
    app = memory_app(**MANY, task_routes={"a": {"queue": "news", "routing_key": "news.world"}, "b": {"queue": "news"}})
    assert _route(app, "a") == Route("", "media", "news.world")
    assert _route(app, "b") == Route("", "media", "news.#")
    app.send_task("a")
    app.send_task("x", exchange="media", routing_key="sport")
    assert [message.task for message in sent(app, "news")] == ["a"]
    assert sorted(message.task for message in sent(app, "all")) == ["a", "x"]


def test_a_direct_exchange_is_as_good_as_its_queue() -> None:
    assert _queue(MANY) == "default"
    assert _queue(MANY, exchange="tasks", routing_key="task.video") == "video"
    assert _queue(MANY, routing_key="task.video") == "video"
    assert _queue(MANY, exchange="celery", routing_key="celery") == "celery"
    assert _queue({}, exchange="celery", routing_key="celery") == "celery"
    assert _queue({}, routing_key="celery") == "celery"


def test_a_routing_key_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(
        QueueNotFound, match=r"No queue .* exchange 'tasks' with routing key 'task.vidoe'.* 'task.video'\?"
    ):
        _queue(MANY, routing_key="task.vidoe")


def test_a_higher_ranks_queue_ends_a_lower_ranks_exchange() -> None:
    routes = {"t": {"exchange": "media", "routing_key": "news.world"}}
    assert _queue({**MANY, "task_routes": routes}, "t", queue="video") == "video"
    assert _route(memory_app(**MANY, task_routes=routes), "t", routing_key="sport") == Route("", "media", "sport")


def test_an_exchange_that_only_the_broker_knows_is_left_to_it() -> None:
    assert _route(memory_app(), exchange="foreign", routing_key="k") == Route("", "foreign", "k")
    assert _route(memory_app(), exchange=Exchange("foreign", "fanout")) == Route("", "foreign", "")


# forms of queues


def test_queues_of_the_setting_may_have_any_form() -> None:
    """[B-ROUTE-013]"""

    class Foreign:  # as kombu's
        name, routing_key, queue_arguments, max_priority = "foreign", "fkey", {"x-max-length": 5}, 7
        exchange = types.SimpleNamespace(name="fx", type="fanout", durable=False)

    app = memory_app(
        task_default_exchange="base",
        task_queues=[Queue("ours", Exchange("x", "topic"), "k"), "named", Foreign()],
    )
    ours, named, foreign = (app.router.queues[name] for name in ("ours", "named", "foreign"))
    assert (ours.exchange.name, ours.exchange.type, ours.routing_key) == ("x", "topic", "k")
    assert (named.exchange.name, named.exchange.type, named.routing_key) == ("base", "direct", "named")
    assert (foreign.exchange, foreign.routing_key) == (Exchange("fx", "fanout", durable=False), "fkey")
    assert (foreign.queue_arguments, foreign.max_priority) == ({"x-max-length": 5}, 7)


def test_queues_of_the_setting_may_be_a_mapping() -> None:
    app = memory_app(task_queues={"video": {"exchange": "media", "exchange_type": "topic", "binding_key": "video.#"}})
    video = app.router.queues["video"]
    assert (video.exchange, video.routing_key) == (Exchange("media", "topic"), "video.#")


def test_an_unknown_type_of_exchange_is_named() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"'topik' is unknown; allowed are .*Did you mean 'topic'\?"):
        as_exchange(types.SimpleNamespace(name="x", type="topik"))
    assert as_exchange(None) == Exchange("")
    assert as_queue("q") == Queue("q", Exchange(), "q")
