"""celeriac: a distributed task queue with Celery's documented interface.

The public names. Everything else is found in the module that is named after it.
"""

from celeriac import current
from celeriac.app import Celeriac
from celeriac.batch_call import Call
from celeriac.canvas import chain, chord, chunks, group, xmap, xstarmap
from celeriac.context import Context
from celeriac.errors import Ignore, Reject, Retry, SoftTimeLimitExceeded
from celeriac.loading import import_object
from celeriac.middleware import Middleware
from celeriac.result import AsyncResult, EagerResult, GroupResult, ResultSet, allow_join_result, result_from_tuple
from celeriac.routing import Broadcast, Exchange, Queue, binding
from celeriac.safe_repr import Secret
from celeriac.sending import new_id as uuid
from celeriac.shared import shared_task
from celeriac.signature import Signature, maybe_signature, signature
from celeriac.task import Task

__all__ = [
    "AsyncResult", "Broadcast", "Call", "Celeriac", "Context", "EagerResult", "Exchange", "GroupResult", "Ignore",
    "Middleware", "Queue", "Reject", "ResultSet", "Retry", "Secret", "Signature", "SoftTimeLimitExceeded", "Task",
    "__version__", "allow_join_result", "binding", "bugreport", "chain", "chord", "chunks", "current_app", "group",
    "maybe_signature", "result_from_tuple", "shared_task", "signature", "uuid", "xmap", "xstarmap",
]  # fmt: skip

__version__ = "0.1.0"

#: The current app of this thread: call it.
current_app = current.get_current_app
current.on_app_finalize.append(lambda app: import_object("celeriac.canvas.builtins:add_builtins", "tasks")(app))
current.set_app_class(Celeriac)


def bugreport(app: Celeriac | None = None) -> str:
    """Versions, platform and changed settings, for a bug report; secrets are masked."""
    return (app or current_app()).bugreport()
