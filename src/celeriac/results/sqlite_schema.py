"""The tables of a celeriac SQLite file, and their creation and upgrade.

`sqlite_database` calls `ensure_schema` on every new connection. Broker and result store share one schema, so that one
file can be both and an outcome is committed in one transaction. The result tables are those of Celery's SQLAlchemy
backend, which can read and write the same file; our further columns are nullable and at the end.

`PRAGMA user_version` is the version of the schema. Several processes may create it at once: everything happens under
the write lock, and whoever comes second finds it done.
"""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from celeriac.errors import OperationalError

__all__ = ["DELAYED", "LEASED", "READY", "VERSION", "boot_id", "ensure_schema"]

VERSION = 1

#: States of a stored message. They stand as literals in the partial indexes and in the statements that use these.
READY, LEASED, DELAYED = 0, 1, 2

# The three partial indexes keep apart what a claim wants from what it must not see: a claim reads as many entries of
# messages_ready as it takes, whatever number of messages is delayed or on lease.
# New messages without priority and delay only go to the end of celeriac_incoming, which has no index: a commit then
# writes one page instead of two or three. Claims sort them in, many at once.
_MESSAGES = """
CREATE TABLE celeriac_messages (
    id INTEGER PRIMARY KEY,
    state INTEGER NOT NULL,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    due_at REAL,
    lease_until REAL,
    token INTEGER NOT NULL DEFAULT 0,
    deliveries INTEGER NOT NULL DEFAULT 0,
    starts INTEGER NOT NULL DEFAULT 0,
    head BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX celeriac_messages_ready ON celeriac_messages (queue, priority DESC, id) WHERE state = 0;
CREATE INDEX celeriac_messages_leased ON celeriac_messages (lease_until, queue) WHERE state = 1;
CREATE INDEX celeriac_messages_delayed ON celeriac_messages (due_at, queue) WHERE state = 2;
CREATE TABLE celeriac_incoming (
    id INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    head BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE celeriac_dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    task_id TEXT NOT NULL,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    reason TEXT NOT NULL,
    died_at REAL NOT NULL,
    deliveries INTEGER NOT NULL,
    starts INTEGER NOT NULL,
    head BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX celeriac_dead_letters_task_id ON celeriac_dead_letters (task_id);
CREATE TABLE celeriac_exchanges (name TEXT PRIMARY KEY, type TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE celeriac_bindings (
    exchange TEXT NOT NULL,
    queue TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    arguments BLOB NOT NULL,
    PRIMARY KEY (exchange, queue, routing_key, arguments)
) WITHOUT ROWID;
"""

# Who sleeps and wants to be told of what, and what was left for them to read (broadcasts, ids of ready results).
_WAKEUP = """
CREATE TABLE celeriac_waiters (
    wants TEXT NOT NULL,
    address TEXT NOT NULL,
    until REAL,
    PRIMARY KEY (wants, address)
) WITHOUT ROWID;
CREATE INDEX celeriac_waiters_address ON celeriac_waiters (address);
CREATE TABLE celeriac_inbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    address TEXT NOT NULL,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX celeriac_inbox_address ON celeriac_inbox (address);
CREATE TABLE celeriac_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

_RESULTS = """
CREATE TABLE IF NOT EXISTS celery_taskmeta (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    task_id VARCHAR(155),
    status VARCHAR(50),
    result BLOB,
    date_done DATETIME,
    traceback TEXT,
    UNIQUE (task_id)
);
CREATE TABLE IF NOT EXISTS celery_tasksetmeta (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    taskset_id VARCHAR(155),
    result BLOB,
    date_done DATETIME,
    UNIQUE (taskset_id)
);
CREATE INDEX IF NOT EXISTS ix_celery_taskmeta_date_done ON celery_taskmeta (date_done);
CREATE INDEX IF NOT EXISTS ix_celery_tasksetmeta_date_done ON celery_tasksetmeta (date_done);
CREATE TABLE celeriac_chords (
    group_id TEXT PRIMARY KEY,
    ended INTEGER NOT NULL,
    touched_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE celeriac_chord_parts (
    group_id TEXT NOT NULL,
    part INTEGER NOT NULL,
    PRIMARY KEY (group_id, part)
) WITHOUT ROWID;
"""

#: Columns that a table made by stock Celery, or by an old release of it, may lack.
_ADDED_COLUMNS = {
    "celery_taskmeta": {
        "children": "BLOB",
        "name": "VARCHAR(155)",
        "args": "BLOB",
        "kwargs": "BLOB",
        "worker": "VARCHAR(155)",
        "retries": "INTEGER",
        "queue": "VARCHAR(155)",
        "stamps": "BLOB",
        "content_type": "TEXT",
        "content_encoding": "TEXT",
        "fence": "INTEGER",
        "group_id": "TEXT",
        "parent_id": "TEXT",
        "expires_at": "REAL",
    },
    "celery_tasksetmeta": {"expires_at": "REAL"},
}


@cache
def boot_id() -> str:
    """What tells this run of the machine from earlier ones."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    # The hour in which the machine came up. If the clock is set meanwhile, leases may end too early: no message is
    # lost by that, while a wrong "still the same boot" could hold messages for as long as the machine was up before.
    return str(round((time.time() - time.monotonic()) / 3600))


def ensure_schema(connection: sqlite3.Connection, path: str) -> None:
    """Create what is missing, and end the leases of an earlier run of the machine. Called inside a transaction.

    Raises:
        OperationalError: The file belongs to another program or to a newer release.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        _create(connection)
    elif not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'celeriac_meta'").fetchone():
        raise OperationalError(f"{path} is another program's database. Give celeriac a file of its own.")
    elif version > VERSION:
        raise OperationalError(f"{path} was made by a newer release of celeriac (schema {version}, here {VERSION}).")
    _end_leases_of_earlier_boots(connection)


def _create(connection: sqlite3.Connection) -> None:
    for statement in (_MESSAGES + _WAKEUP + _RESULTS).split(";\n"):
        if statement.strip():  # not executescript(): that would end the transaction
            connection.execute(statement)
    for table, columns in _ADDED_COLUMNS.items():
        present = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        for name, kind in columns.items():
            if name not in present:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _end_leases_of_earlier_boots(connection: sqlite3.Connection) -> None:
    """Monotonic time starts anew with the machine, so `lease_until` means something within one boot only."""
    row = connection.execute("SELECT value FROM celeriac_meta WHERE name = 'boot_id'").fetchone()
    if row is not None and row[0] == boot_id():
        return
    connection.execute("UPDATE celeriac_messages SET state = 0, lease_until = NULL WHERE state = 1")
    connection.execute("DELETE FROM celeriac_waiters")
    connection.execute("DELETE FROM celeriac_inbox")
    connection.execute("INSERT OR REPLACE INTO celeriac_meta (name, value) VALUES ('boot_id', ?)", (boot_id(),))
