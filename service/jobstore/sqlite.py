"""SQLite: its engine, and the transactions that its driver would begin too late."""

import sqlite3
import time

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

BUSY_TIMEOUT_S = 10  # a writer in another process is waited for so long
# At most 40 handlers run in threads of the web framework, and 8 in those for drawing; the watcher,
# the sweeper and the probes come on top.
POOL_SIZE, POOL_OVERFLOW = 8, 56


def sqlite_engine(url: URL) -> Engine:
    """The engine of a file, or of a database in memory, which has a single connection."""
    if url.database in (None, "", ":memory:"):
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = create_engine(
            url,
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            connect_args={"timeout": BUSY_TIMEOUT_S},
        )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def is_disk_full(error: BaseException) -> bool:
    """Whether the driver says that there is no room for the database."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _prepare(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    # The driver's own transactions begin too late (not before a SELECT): we begin them.
    connection.isolation_level = None
    _write_ahead(connection)
    # In WAL mode NORMAL may lose the last commits when the power fails.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _write_ahead(connection: sqlite3.Connection) -> None:
    # Unlike all else, this change does not wait for another connection that makes it as well.
    give_up_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if (
                error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY
                or time.monotonic() > give_up_at
            ):
                raise
            time.sleep(0.01)
        else:
            return


def _begin(connection: Connection) -> None:
    # A writer takes the lock before it reads: no read of its transaction is ever outdated.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
