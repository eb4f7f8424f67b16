"""One connection to PostgreSQL whose every wait has an end, and how our errors are made of its errors.

`sql_database` and `sql_listener` open connections with `connect`. psycopg's own waits have no end: a frozen server would hold
a thread for ever. Here every wait, that for the connection included, ends at the moment `Connection.deadline`, and the
connection is then closed, since nobody knows what the server still does with it.
"""

from __future__ import annotations

import math
import random
import select
import time
from collections.abc import Generator
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8BinaryDumper

from celeriac.errors import EncodeError, ImproperlyConfigured, OperationalError
from celeriac.results.sql_settings import SqlSettings

__all__ = ["Connection", "TimedOut", "connect", "hosts", "is_transient", "server_identity", "translated"]

#: SQLSTATEs after which the same transaction may be tried again at once: deadlock, serialization failure, and the race of
#: two processes that create the same thing.
_TRANSIENT = frozenset({"40001", "40P01", "42P07", "42710", "23505"})
#: Waits in Python of `psycopg.waiting`: bit 1 to read, bit 2 to write.
_READ, _WRITE = 1, 2


class TimedOut(psycopg.OperationalError):
    """The server did not answer in time (at most {settings.timeout:g} s)."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection in autocommit mode. `deadline` (monotonic) ends whatever is going on."""

    deadline: float = math.inf
    opened_at: float = 0.0

    def wait(self, gen: Generator[Any, Any, Any], *_: Any, **__: Any) -> Any:
        """Drive one of psycopg's generators until it ends or the deadline has come."""
        fileno = self.pgconn.socket
        try:
            wanted = next(gen)
            while True:
                wanted = gen.send(_ready(fileno, wanted, self.deadline))
        except StopIteration as end:
            return end.value


def _ready(fileno: int, wanted: int, deadline: float) -> int:
    """Wait until a socket is as wanted.

    Raises:
        TimedOut: It is not by `deadline`.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimedOut("timed out")
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(fileno, (select.POLLIN if wanted & _READ else 0) | (select.POLLOUT if wanted & _WRITE else 0))
        found = poll.poll(None if left == math.inf else math.ceil(left * 1000))
        if not found:
            raise TimedOut("timed out")
        # An error or a hang-up counts as both: the next read or write says what it is.
        event = found[0][1]
        ready = (_READ if event & ~select.POLLOUT else 0) | (_WRITE if event & ~select.POLLIN else 0)
        return ready & wanted or wanted
    readable, writable, _ = select.select(
        [fileno] if wanted & _READ else [], [fileno] if wanted & _WRITE else [], [], None if left == math.inf else left
    )
    if not readable and not writable:
        raise TimedOut("timed out")
    return (_READ if readable else 0) | (_WRITE if writable else 0)


def hosts(settings: SqlSettings) -> list[dict[str, Any]]:
    """Parameters of libpq, once for each host of the URL.

    Raises:
        ImproperlyConfigured: libpq can't read the URL.
    """
    scheme_free = settings.url.partition("://")[2]
    try:
        parameters = conninfo_to_dict("postgresql://" + scheme_free)
    except psycopg.ProgrammingError as exc:
        raise ImproperlyConfigured(f"{settings.masked!r} is no PostgreSQL URL: {_first_line(exc)}") from None
    parameters.setdefault("application_name", "celeriac")
    names = str(parameters.get("host") or "").split(",")
    ports = str(parameters.get("port") or "").split(",")
    addresses = str(parameters.get("hostaddr") or "").split(",")
    count = max(len(names), len(addresses))
    found = []
    for number in range(count):
        one = dict(parameters)
        for key, values in (("host", names), ("port", ports), ("hostaddr", addresses)):
            value = values[number] if number < len(values) else values[0] if len(values) == 1 else ""
            if value:
                one[key] = value
            else:
                one.pop(key, None)
        found.append(one)
    if parameters.get("load_balance_hosts") == "random":
        random.shuffle(found)
    for one in found:
        one.pop("load_balance_hosts", None)  # done; and an older libpq doesn't know it
    return found


def server_identity(settings: SqlSettings) -> tuple[Any, ...]:
    """What two URLs of one database have in common."""
    found = sorted((one.get("host", ""), one.get("hostaddr", ""), one.get("port", "5432")) for one in hosts(settings))
    one = hosts(settings)[0]
    return tuple(found), one.get("dbname") or one.get("user", "")


def connect(settings: SqlSettings, deadline: float) -> Connection:
    """Connect to the first host that lets us, before `deadline`.

    Raises:
        psycopg.Error: None did; the error is that of the last one.
    """
    attempts = hosts(settings)
    for number, parameters in enumerate(attempts):
        left = deadline - time.monotonic()
        # A black hole may eat its share of the time, not that of the hosts behind it.
        until = min(deadline, time.monotonic() + max(0.0, left) / (len(attempts) - number))
        try:
            pgconn = _open(make_conninfo("", **parameters), until)
        except psycopg.Error:
            if number + 1 == len(attempts):
                raise
            continue
        connection = Connection(pgconn)
        connection._autocommit = True
        connection.prepare_threshold = settings.prepare_threshold
        connection.opened_at = time.monotonic()
        connection.deadline = deadline
        # Lists of numbers are sent as int8[] whatever their size, so that a statement is prepared once, not once per size.
        connection.adapters.register_dumper(int, Int8BinaryDumper)
        return connection
    raise AssertionError("a URL has at least one host")


def _open(conninfo: str, deadline: float) -> pq.abc.PGconn:
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    try:
        while True:
            if pgconn.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError(pgconn.error_message.decode(errors="replace"))
            status = pgconn.connect_poll()
            if status == pq.PollingStatus.OK:
                pgconn.nonblocking = 1
                return pgconn
            if status == pq.PollingStatus.FAILED:
                raise psycopg.OperationalError(pgconn.error_message.decode(errors="replace"))
            _ready(pgconn.socket, _READ if status == pq.PollingStatus.READING else _WRITE, deadline)
    except BaseException:
        pgconn.finish()
        raise


def is_transient(exc: psycopg.Error) -> bool:
    """Whether the same transaction may succeed when it is tried again at once."""
    return exc.sqlstate in _TRANSIENT


def translated(exc: Exception, settings: SqlSettings) -> Exception:
    """Our error for one of psycopg's: it names the URL, and what the server said."""
    where = settings.masked
    if isinstance(exc, (UnicodeEncodeError, psycopg.DataError)):
        return EncodeError(f"{where} can't hold a value: {_first_line(exc)}")
    if isinstance(exc, TimedOut):
        return OperationalError(f"{where} did not answer in time.")
    state = getattr(exc, "sqlstate", None)
    if state == "57014":
        return OperationalError(f"{where} did not finish within {settings.timeout:g} s: {_first_line(exc)}")
    if state == "26000":
        return OperationalError(f"{where} forgets prepared statements: add ?prepare_threshold=none to the URL.")
    return OperationalError(f"{where}: {_first_line(exc)}")


def _first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else type(exc).__name__
