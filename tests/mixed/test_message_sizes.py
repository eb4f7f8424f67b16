"""Messages of workflows are never larger than those of a stock client."""

from __future__ import annotations

from tests.mixed.conftest import Fleet
from tests.support.redis_server import RedisServer

#: A part of a header that has chords in it, `{depth}` deep.
NESTED = "(lambda make: make(make, {depth}))(lambda make, d: chord([make(make, d - 1)] * 2, total.s()) if d else add.s(1, 1))"
WORKFLOWS = {
    "group": "group(add.s(n, n) for n in range(1000)).apply_async()",
    "chain": "chain(add.s(n) for n in range(100)).apply_async((0,))",
    "chord": "chord(add.s(n, n) for n in range(100))(total.s())",
    "chord with a chain as body": "chord([add.s(1, 1), add.s(2, 2)])(chain(total.s(), add.s(1), add.s(2)))",
    "chain of 10 chords": "chain(*(chord([add.s(n) for n in range(10)], total.s()) for _ in range(10))).apply_async((0,))",
    "chain with a group": "(add.s(1, 1) | group(add.s(2), add.s(3)) | total.s() | add.s(1)).apply_async()",
    "chains in a chord": "chord([chain(add.s(1, 1), add.s(2)), add.s(5, 5)], total.s()).apply_async()",
    **{f"chords nested {depth} deep": NESTED.format(depth=depth) + ".apply_async()" for depth in (2, 3, 5)},
}


def test_messages_are_no_larger_than_stock_ones(fleet: Fleet, redis_server: RedisServer) -> None:
    found: dict[str, dict[str, list[int]]] = {"celery": {}, "celeriac": {}}
    for side, sizes in found.items():
        client = fleet.client(side)
        for name, workflow in WORKFLOWS.items():
            redis_server.call("FLUSHALL")
            client(f"len(str({workflow}))")
            sizes[name] = [len(element) for element in redis_server.call("LRANGE", "celery", 0, -1)]
    for name, theirs in found["celery"].items():
        ours = found["celeriac"][name]
        assert len(ours) == len(theirs) > 0, name
        # The process id in the name of the sender may be longer.
        assert max(ours) <= max(theirs) + 3, name
        assert sum(ours) <= sum(theirs) + 3 * len(ours), name
