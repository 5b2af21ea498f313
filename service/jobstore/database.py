"""The connection to the database: transactions, and the vendor's errors as ours."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
    TimeoutError,
)
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from service.errors import ConfigurationError, NotReady, ServiceError
from service.jobstore.migrations import migrate

BUSY_TIMEOUT_S = 10  # a writer in another process is waited for so long
# The web framework runs at most 40 handlers in threads; the watcher and the probes come on top.
POOL_SIZE, POOL_OVERFLOW = 8, 48


class Database:
    """Transactions on one database, for many threads at once.

    SQLite has one writer at a time: writers queue at a lock here, where they are woken in turn,
    rather than at SQLite's own, which they would have to poll. A database in memory has a single
    connection, so there readers queue as well.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writing = engine.execution_options(writes=True)
        is_sqlite = engine.dialect.name == "sqlite"
        free: AbstractContextManager[Any] = nullcontext()
        self._write_lock = threading.Lock() if is_sqlite else free
        self._read_lock = self._write_lock if isinstance(engine.pool, StaticPool) else free

    @classmethod
    def open(cls, url: str) -> "Database":
        """The database at the URL, migrated; raises ConfigurationError."""
        try:
            parsed = make_url(url)
            database = cls(_engine(parsed))
        except (ArgumentError, ImportError) as error:
            raise ConfigurationError(
                "the database URL cannot be used; give one like sqlite:////folder/file.db"
            ) from error
        try:
            with database._begin(database._writing, database._write_lock) as connection:
                migrate(connection)
        except SQLAlchemyError as error:
            database.close()
            raise ConfigurationError(_refusal(parsed, error)) from error
        except ServiceError:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database; raises NotReady."""
        with _translated(), self._begin(self._engine, self._read_lock) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, whole or not at all; raises NotReady."""
        with _translated(), self._begin(self._writing, self._write_lock) as connection:
            yield connection

    @contextmanager
    def _begin(self, engine: Engine, lock: AbstractContextManager[Any]) -> Iterator[Connection]:
        with lock, engine.begin() as connection:
            yield connection

    def ping(self) -> None:
        """Raises NotReady unless the database answers."""
        with self.read() as connection:
            connection.execute(select(1))


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_size=POOL_SIZE, max_overflow=POOL_OVERFLOW)
    if url.database in (None, "", ":memory:"):
        engine = create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = create_engine(
            url,
            pool_size=POOL_SIZE,
            max_overflow=POOL_OVERFLOW,
            connect_args={"timeout": BUSY_TIMEOUT_S},
        )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
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


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock before it reads: no read of its transaction is ever outdated.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (DataError, IntegrityError, NotSupportedError, ProgrammingError):
        raise  # defects of ours, which must not look like a database that is down
    except (DBAPIError, TimeoutError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise NotReady("the disk of the database is full; make room on it") from error
        raise NotReady("the database does not answer; repeat the request in a moment") from error


def _refusal(url: URL, error: SQLAlchemyError) -> str:
    where = url.render_as_string(hide_password=True)
    cause = error.orig if isinstance(error, DBAPIError) else error
    if "not a database" in str(cause):
        return f"{where} is no database but some other file; give another path, or move it away"
    return f"the database {where} cannot be opened: {cause}"
