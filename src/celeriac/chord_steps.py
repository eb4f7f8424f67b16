"""The two steps that a runner takes for a chord as a whole: its end, from the last part's message, and a look at its note.

`execution` calls them for the verdicts JOIN and SWEEP; the committer and `worker/chord_sweep.py` decide when.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celeriac.context import Context
from celeriac.continuations import Sequel, after_join
from celeriac.errors import CeleriacError, OperationalError
from celeriac.loading import import_object
from celeriac.log import get_logger
from celeriac.message import Action
from celeriac.outcome import JOIN, SWEEP, Execution, Outcome

if TYPE_CHECKING:
    from celeriac.app import Celeriac

__all__ = ["join", "later", "sweep"]

logger = get_logger("celeriac.task")


def join(app: Celeriac, execution: Execution, context: Context) -> Outcome:
    """This was the last part of a chord: send the body. The delivery ends as the part itself wanted it."""
    verdict = execution.verdict
    group_id = str(verdict.args[0])
    try:
        sequel = after_join(app, context, group_id)
    except OperationalError:
        raise  # another time: see `later`
    except CeleriacError:
        logger.exception("chord %s can't be joined", group_id)
        sequel = Sequel()
    return Outcome(
        execution.serial, execution.slot, context.task or "", JOIN, None, sequel.records, sequel.messages,
        verdict.action, verdict.reason, parts=sequel.parts, chords=sequel.chords, joined=[group_id],
    )  # fmt: skip


def later(execution: Execution, exc: Exception) -> Outcome:
    """The store was away while it was asked what follows: the message is delivered again, later and later."""
    message, pause = execution.message, min(5.0, 0.25 * 2 ** min(execution.deliveries, 7))
    logger.warning("what follows %s[%s] can't be made now: %s", message.task, message.id, exc)
    state, until = execution.verdict.state, time.time() + pause
    return Outcome(execution.serial, execution.slot, message.task, state, action=Action.DEFER.value, until=until)


def sweep(app: Celeriac, execution: Execution, context: Context) -> Outcome:
    """This is the note of a chord that nothing happens to."""
    sequel, is_over = import_object("celeriac.canvas.sweeping:after_sweep", "chord")(app, context)
    return Outcome(
        execution.serial, execution.slot, context.task or "", SWEEP, None, sequel.records, sequel.messages,
        parts=sequel.parts, chords=sequel.chords, joined=[str(context.group)] if is_over else [],
    )  # fmt: skip
