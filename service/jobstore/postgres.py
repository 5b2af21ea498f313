"""PostgreSQL: its engine, what a connection may wait for, and locks by name."""

import hashlib
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg.abc import Params
from psycopg.types.string import StrDumper
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from service.errors import ConfigurationError

DRIVER = "postgresql+psycopg"
# Several services share a server, which takes 100 connections unless it is told otherwise.
POOL_SIZE, POOL_OVERFLOW = 5, 15
POOL_TIMEOUT_S = 10  # for a connection that others of this process have
STATEMENT_TIMEOUT_S = 30
LOCK_TIMEOUT_S = 10  # for a row that another transaction holds
# A process that was stopped in a transaction, or cut off, holds its locks for no longer.
IDLE_TIMEOUT_S = 5
_CONNECTING = {
    "connect_timeout": 5,
    "application_name": "spreadtrain",
    # A server that is gone without a word is noticed, also while an answer is waited for.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_LIMITS_MS = {
    "statement_timeout": STATEMENT_TIMEOUT_S * 1000,
    "lock_timeout": LOCK_TIMEOUT_S * 1000,
    "idle_in_transaction_session_timeout": IDLE_TIMEOUT_S * 1000,
}
_DISK_FULL = "53100"
_LOCKED = "55P03"


def is_postgres(url: URL) -> bool:
    """Whether the URL names a PostgreSQL."""
    return url.get_backend_name() == "postgresql"


def postgres_engine(url: URL) -> Engine:
    """The engine; what its URL says of the connection counts before what is said here."""
    if url.drivername == "postgresql":
        url = url.set(drivername=DRIVER)
    own = {name: value for name, value in _CONNECTING.items() if name not in url.query}
    limits = " ".join(f"-c {name}={ms}" for name, ms in _LIMITS_MS.items())
    given = url.query.get("options", "")
    engine = create_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_size=POOL_SIZE,
        max_overflow=POOL_OVERFLOW,
        pool_timeout=POOL_TIMEOUT_S,
        pool_pre_ping=True,  # what a restart of the server has cut is replaced unseen
        connect_args={**own, "options": f"{limits} {given}".strip()},
    )
    event.listen(engine, "connect", _prepare, insert=True)  # before anybody reads a text
    # Rows of one INSERT in one message, as far as SQLAlchemy can; the rest see _OneByOne.
    engine.dialect.use_insertmanyvalues_wo_returning = True
    return engine


def reading(engine: Engine) -> Engine:
    """The same engine for transactions that see one state of the database, and change nothing."""
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def begin_migration(connection: Connection) -> None:
    """One process migrates at a time, until its transaction ends, and takes the time it needs."""
    connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock_key("migration")})


def end_sleepers(connection: Connection, table: str, idle_s: float) -> None:
    """End the sessions of ours that hold a lock on the table and have said nothing for so long in
    their transaction.

    The server's own limit does the same later, and not where it has a part of a message, or waits
    for the end of a series of messages.
    """
    connection.execute(
        text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity AS session "
            "WHERE datname = current_database() AND usename = current_user "
            "AND pid <> pg_backend_pid() AND wait_event = 'ClientRead' AND xact_start IS NOT NULL "
            "AND state_change < clock_timestamp() - make_interval(secs => :idle_s) "
            "AND EXISTS (SELECT FROM pg_locks WHERE pg_locks.pid = session.pid "
            "AND relation = to_regclass(:table))"
        ),
        {"idle_s": idle_s, "table": table},
    )


def wait_at_most(connection: Connection, seconds: float) -> None:
    """Let no statement of this transaction wait for a row for longer."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = {int(seconds * 1000)}")


def lock(connection: Connection, name: str) -> None:
    """Take the lock of that name for this connection, which is in no transaction."""
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": lock_key(name)})


def unlock(connection: Connection, name: str) -> None:
    """Give the lock back; one that has ended with its connection is free already."""
    try:
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": lock_key(name)})
    except DBAPIError:
        connection.invalidate()


def lock_key(name: str) -> int:
    """The number of a lock of ours, which is no other program's in the same database."""
    digest = hashlib.sha256(f"spreadtrain {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def is_locked(error: BaseException | None) -> bool:
    """Whether the server says that what was waited for is still another one's."""
    return getattr(error, "sqlstate", None) == _LOCKED


def is_disk_full(error: BaseException) -> bool:
    """Whether the server says that there is no room for the database."""
    return getattr(error, "sqlstate", None) == _DISK_FULL


class _OneByOne(psycopg.Cursor[Any]):
    """The driver sends many rows as a series of messages with one end. While the server waits for
    the next of them, it ends no sleeping transaction: a process that is stopped there would keep
    its locks for ever."""

    def executemany(
        self, query: Any, params_seq: Iterable[Params], *, returning: bool = False
    ) -> None:
        for params in params_seq:
            self.execute(query, params)


class _WithoutNul(StrDumper):
    """PostgreSQL's text has no NUL. In what people and libraries say it becomes U+FFFD, and a name
    with one is that of nothing."""

    def dump(self, obj: str) -> bytes | bytearray | memoryview | None:
        return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))


def _prepare(connection: psycopg.Connection, _: ConnectionPoolEntry) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database has the encoding {encoding}, which cannot store every text; make one "
            "with ENCODING 'UTF8' TEMPLATE template0"
        )
    connection.adapters.register_dumper(str, _WithoutNul)
    connection.cursor_factory = _OneByOne
