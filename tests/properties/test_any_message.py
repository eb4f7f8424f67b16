"""Whatever a message says, admission and execution answer; nothing is raised and every answer can travel."""

from __future__ import annotations

import json
import zlib
from datetime import UTC

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac.environment import Environment
from celeriac.execution import execute
from celeriac.message import Action, Delivery, Message
from celeriac.outcome import RUN, STORED, Execution, Outcome, Verdict
from celeriac.results.base import Record
from celeriac.runner.protocol import FrameReader, Kind, decode_frame, encode_frame
from celeriac.worker.admission import Decision, Rules, admit
from tests.support.apps import memory_app

NOW = 1_900_000_000.0
RULES = Rules(known={"add": None}, max_deliveries=5, unknown_delay=10.0, timezone=UTC)

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_MOMENT = st.sampled_from(
    [
        "2020-01-01T00:00:00",
        "2999-01-01T00:00:00+05:30",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "2020",
        "T",
    ]
)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | _TEXT | _MOMENT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from([
    "task", "id", "eta", "expires", "retries", "timelimit", "group", "group_index", "root_id", "parent_id", "shadow",
    "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps",
    "compression", "lang", "x-other",
])  # fmt: skip
HEADERS = st.builds(
    lambda task, more: {"task": task, "id": "i", **more},
    st.sampled_from(["add", "other", ""]),
    st.dictionaries(_NAMES, _ANY, max_size=6),
)
_SIGNATURE = st.fixed_dictionaries(
    {"task": st.sampled_from(["add", "far"])},
    optional={
        "args": _ANY,
        "kwargs": _ANY,
        "options": _ANY | st.dictionaries(_NAMES, _ANY, max_size=3),
        "immutable": _ANY,
    },
)
_EMBED = st.dictionaries(
    st.sampled_from(["callbacks", "errbacks", "chain", "chord"]), _ANY | _SIGNATURE | st.lists(_SIGNATURE, max_size=2)
)
_BODIES = st.one_of(
    st.binary(max_size=50),
    _ANY.map(lambda value: json.dumps(value).encode()),
    st.tuples(st.lists(_ANY, max_size=2) | _ANY, st.dictionaries(_TEXT, _ANY, max_size=2) | _ANY, _EMBED | _ANY).map(
        lambda body: json.dumps(body).encode()
    ),
    st.dictionaries(_NAMES | st.sampled_from(["args", "kwargs", "utc"]), _ANY).map(
        lambda body: json.dumps(body).encode()
    ),
    st.binary(max_size=50).map(zlib.compress),
)
MESSAGES = st.builds(
    Message,
    id=st.sampled_from(["i", ""]),
    headers=HEADERS,
    body=_BODIES,
    content_type=st.sampled_from(["application/json", "application/x-python-serialize", "application/x-yaml", "", "x"]),
    content_encoding=st.sampled_from(["utf-8", "binary", "no-such-code", ""]),
    queue=st.just("celery"),
    defect=st.sampled_from(["", "", "", "broken"]),
)

APP = memory_app()
APP.task(lambda *args, **kwargs: args, name="add", typing=False)


@given(
    message=MESSAGES,
    deliveries=st.integers(1, 1000),
    starts=st.integers(0, 10),
    state=st.sampled_from(["", "SUCCESS", "RETRY", "PROGRESS"]),
)
@settings(deadline=None, max_examples=300)
def test_admission_answers_whatever_the_headers(message: Message, deliveries: int, starts: int, state: str) -> None:
    delivery = Delivery(message=message, queue="celery", token=1, deliveries=deliveries, starts=starts)
    stored = Record(id="i", state=state, result=b"") if state else None
    admission = admit(delivery, RULES, NOW, stored)
    if admission.decision is Decision.DEFER:
        assert admission.until is not None
        assert admission.until > NOW
    if admission.decision is Decision.DEAD:
        assert admission.reason
    if admission.decision is Decision.RUN and admission.verdict is not RUN:
        assert admission.verdict.state in ("FAILURE", "REVOKED", STORED)
    if starts >= RULES.max_deliveries and message.id and not message.defect:
        assert admission.verdict.action == Action.DEAD_LETTER.value


@given(
    message=MESSAGES,
    verdict=st.sampled_from([
        RUN, RUN, RUN, Verdict("FAILURE", "TimeLimitExceeded", [5]), Verdict("REVOKED", "TaskRevokedError", ["expired"]),
        Verdict(STORED), Verdict("FAILURE", "WorkerLostError", ["x"], "dead-letter", "poison"),
    ]),
)  # fmt: skip
@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_execution_ends_in_an_outcome_that_can_travel(message: Message, verdict: Verdict) -> None:
    execution = Execution(1, 0, message, "celery", 1, verdict)
    ((kind, frame),) = FrameReader().feed(encode_frame(Kind.RUN, execution))
    outcome = execute(Environment(APP, "node"), decode_frame(kind, frame))
    ((kind, frame),) = FrameReader().feed(encode_frame(Kind.OUTCOME, outcome))
    travelled: Outcome = decode_frame(kind, frame)
    assert Action(travelled.action)
    if travelled.action == Action.DEAD_LETTER.value:
        assert travelled.reason
    if travelled.action == Action.DEFER.value:
        assert travelled.until is not None
    assert travelled.state in ("SUCCESS", "FAILURE", "REVOKED", "RETRY", "PENDING", "IGNORED", "REJECTED")
    for follower in travelled.messages:
        msgspec.msgpack.encode(follower)
