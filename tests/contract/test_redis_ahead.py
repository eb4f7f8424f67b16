"""`publish_many` on a real Redis: one piece is made while the one before it is on its way, whatever becomes of the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from celeriac import Celeriac, Signature
from celeriac.errors import OperationalError
from celeriac.transport.redis import BATCH
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.server("redis")

#: Two whole pieces and a half.
COUNT = 2 * BATCH + BATCH // 2


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def app(server: RedisServer) -> Iterator[Celeriac]:
    app = Celeriac("ahead", broker=server.url(), backend="disabled://")
    yield app
    app.close()


def _calls(app: Celeriac, events: dict[int, Callable[[], object]], asked: list[int]) -> Iterator[Signature]:
    """Signatures of a task whose argument is their number; before some of them something happens."""

    @app.task(name="number")
    def number(n: int) -> int:
        return n

    for index in range(COUNT):
        asked.append(index)
        events.get(index, bool)()
        yield number.s(index)


def _arrived(server: RedisServer) -> list[str]:
    """Ids of what stands in the queue, first sent first."""
    return [json.loads(element)["headers"]["id"] for element in reversed(server.call("LRANGE", "celery", 0, -1))]


def test_the_next_piece_is_made_while_the_server_has_not_taken_the_one_before_it(
    app: Celeriac, server: RedisServer
) -> None:
    app.conf.publish_timeout = 2.0
    asked: list[int] = []
    app.publish_many([app.signature("first")])  # it is connected
    events = {10: server.freeze, BATCH + BATCH // 2: server.thaw}
    results = app.publish_many(_calls(app, events, asked))
    assert asked == list(range(COUNT))
    assert _arrived(server)[1:] == [result.id for result in results]


def test_what_was_under_way_to_a_server_that_died_is_sent_again(app: Celeriac, server: RedisServer) -> None:
    def die_and_come_back() -> None:
        server.kill()
        server.start()

    app.publish_many([app.signature("first")])
    events = {10: server.freeze, BATCH + BATCH // 2: die_and_come_back}
    results = app.publish_many(_calls(app, events, []))
    assert _arrived(server)[1:] == [result.id for result in results]


def test_a_silent_server_ends_it_and_gets_nothing_of_later_pieces(app: Celeriac, server: RedisServer) -> None:
    app.conf.publish_timeout = 0.5
    asked: list[int] = []
    app.publish_many([app.signature("first")])
    with pytest.raises(OperationalError, match=r"redis://127\.0\.0\.1"):
        app.publish_many(_calls(app, {10: server.freeze}, asked))
    assert asked == list(range(2 * BATCH))
    server.thaw()
    first = [json.loads(element)["headers"]["argsrepr"] for element in server.call("LRANGE", "celery", 0, -1)]
    assert set(first) <= {"()", *(f"({index},)" for index in range(BATCH))}


def test_what_was_sent_before_the_callers_own_error_is_there(app: Celeriac, server: RedisServer) -> None:
    def fail() -> None:
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        app.publish_many(_calls(app, {BATCH + 3: fail}, []))
    assert len(_arrived(server)) == BATCH


def test_an_argument_that_can_not_be_sent_keeps_back_its_own_piece_only(app: Celeriac, server: RedisServer) -> None:
    def calls() -> Iterator[Signature]:
        for index in range(COUNT):
            yield app.signature("number", args=(index if index != BATCH + 3 else object(),))

    with pytest.raises(TypeError, match="object"):
        app.publish_many(calls())
    assert len(_arrived(server)) == BATCH
