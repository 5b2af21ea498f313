"""The connection to the database: transactions, and the vendor's errors as ours."""

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Engine, select
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
from sqlalchemy.pool import StaticPool

from service.errors import ConfigurationError, NotReady, ServiceError
from service.jobstore import postgres, sqlite
from service.jobstore.migrations import migrate

# Told of each transaction: "read" or "write", its seconds, and what the database failed with.
Observer = Callable[[str, float, str | None], None]


def _unobserved(kind: str, seconds: float, error: str | None) -> None:
    """Nobody counts."""


class Database:
    """Transactions on one database, for many threads at once.

    SQLite has one writer at a time: writers queue at a lock here, where they are woken in turn,
    rather than at SQLite's own, which they would have to poll. A database in memory has a single
    connection, so there readers queue as well. On PostgreSQL writers wait for the rows that they
    both want. Who changes what belongs to a job, a study or a data set, locks that row first, and
    of these three it locks a data set's or a study's before a job's: no two wait for each other.
    """

    def __init__(self, engine: Engine, observe: Observer = _unobserved) -> None:
        self._engine = engine
        self._observe = observe
        self.is_shared = engine.dialect.name == "postgresql"
        self._reading = postgres.reading(engine) if self.is_shared else engine
        self._writing = engine.execution_options(writes=True)
        self._guard: Callable[[Connection], None] | None = None
        self._outside = engine.execution_options(isolation_level="AUTOCOMMIT")
        free: AbstractContextManager[Any] = nullcontext()
        self._write_lock = free if self.is_shared else threading.Lock()
        self._read_lock = self._write_lock if isinstance(engine.pool, StaticPool) else free

    @classmethod
    def open(cls, url: str, observe: Observer = _unobserved) -> "Database":
        """The database at the URL, migrated; raises ConfigurationError.

        ``observe`` is told of each transaction, in the thread that made it.
        """
        try:
            parsed = make_url(url)
            database = cls(_engine(parsed), observe)
        except (ArgumentError, ImportError) as error:
            raise ConfigurationError(
                "the database URL cannot be used; give one like sqlite:////folder/file.db or "
                f"{postgres.DRIVER}://user:password@host:5432/database"
            ) from error
        try:
            with database._begin(database._writing, database._write_lock) as connection:
                if database.is_shared:
                    postgres.begin_migration(connection)
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
        with (
            self._observed("read"),
            self._begin(self._reading, self._read_lock) as connection,
        ):
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, whole or not at all; raises NotReady.

        On PostgreSQL each of its statements sees what others have committed by then.
        """
        with (
            self._observed("write"),
            self._begin(self._writing, self._write_lock) as connection,
        ):
            if self._guard is not None:
                self._guard(connection)
            yield connection

    def guarded(self, guard: Callable[[Connection], None]) -> "Database":
        """The same database, of which each write begins with the guard, in its transaction."""
        guarded = copy.copy(self)
        guarded._guard = guard
        return guarded

    @contextmanager
    def _observed(self, kind: str) -> Iterator[None]:
        began = time.perf_counter()
        error: str | None = None
        try:
            with _translated():
                yield
        except SQLAlchemyError:
            error = "defect"
            raise
        except NotReady as refusal:
            # Others, such as a lease that is over, are no failures of the database.
            if isinstance(refusal.__cause__, SQLAlchemyError):
                error = "disk_full" if _is_disk_full(refusal.__cause__) else "unavailable"
            raise
        finally:
            self._observe(kind, time.perf_counter() - began, error)

    @contextmanager
    def _begin(self, engine: Engine, lock: AbstractContextManager[Any]) -> Iterator[Connection]:
        with lock, engine.begin() as connection:
            yield connection

    @contextmanager
    def alone(self, name: str, busy: str) -> Iterator[None]:
        """Hold the lock of that name among all processes on this database; raises NotReady, which
        says ``busy`` where another one has held it for too long.

        It is no transaction: it may be held for long. A SQLite file has one process, whose own
        locks will do.
        """
        if not self.is_shared:
            yield
            return
        with contextlib.ExitStack() as stack:
            with _translated():
                connection = stack.enter_context(self._outside.connect())
                try:
                    postgres.lock(connection, name)
                except DBAPIError as error:
                    if postgres.is_locked(error.orig):
                        raise NotReady(busy) from error
                    raise
            stack.callback(postgres.unlock, connection, name)
            yield

    def ping(self) -> None:
        """Raises NotReady unless the database answers."""
        with self.read() as connection:
            connection.execute(select(1))


def _engine(url: URL) -> Engine:
    if postgres.is_postgres(url):
        return postgres.postgres_engine(url)
    if url.get_backend_name() == "sqlite":
        return sqlite.sqlite_engine(url)
    raise ArgumentError(f"{url.get_backend_name()} is neither SQLite nor PostgreSQL")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (DataError, IntegrityError, NotSupportedError, ProgrammingError):
        raise  # defects of ours, which must not look like a database that is down
    except (DBAPIError, TimeoutError) as error:
        if _is_disk_full(error):
            raise NotReady("the disk of the database is full; make room on it") from error
        raise NotReady("the database does not answer; repeat the request in a moment") from error


def _is_disk_full(error: SQLAlchemyError) -> bool:
    cause = (error.orig if isinstance(error, DBAPIError) else None) or error
    return sqlite.is_disk_full(cause) or postgres.is_disk_full(cause)


def _refusal(url: URL, error: SQLAlchemyError) -> str:
    # Without its query, where a password can stand, too.
    where = url.set(query={}).render_as_string(hide_password=True)
    cause = error.orig if isinstance(error, DBAPIError) else error
    if "not a database" in str(cause):
        return f"{where} is no database but some other file; give another path, or move it away"
    return f"the database {where} cannot be opened: {str(cause).strip()}"
