"""What is struck: services on one PostgreSQL, one workshop and one artifact store.

Each service reaches the database through a cable of its own, which can be cut, and by a name of its
own in each life, which the database writes beside every write.
"""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from api.client import Client, ClientError
from service.jobstore import JobStore
from tests.chaos.leaders import audit
from tests.e2e.processes import ROOT, wait_until
from tests.nursery import Forked, Nursery
from tests.postgres import Postgres
from tests.s3_servers import Relay, free_ports
from workers.artifacts import ArtifactStore, open_store

SERVICES = 3
LEASE_S = 2.0
CORES = 3
ASK_S = 2.0  # a service that is stopped answers nobody
PATIENCE_S = 240.0


class Replica:
    """One of the services: started again whenever it has ended, with the next life's name."""

    def __init__(
        self, name: str, folder: Path, relay: Relay, nursery: Nursery, settings: Mapping[str, Any]
    ) -> None:
        self.name = name
        self.relay = relay
        self.log = folder / f"service-{name}.log"
        self._nursery = nursery
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = {
            **settings,
            "data_dir": str(folder / name),
            "port": self.port,
        }
        self._lives = itertools.count(1)
        self._processes: list[Forked] = []
        self._asked = Client(self.url, timeout_s=ASK_S)
        self.start()

    def start(self) -> None:
        """Begin the next life; nobody waits until it is ready."""
        address = self.relay.endpoint.removeprefix("http://")
        life = f"{self.name}-{next(self._lives)}"
        url = f"{audit.service_url(address)}?application_name={life}"
        how = {**self._settings, "database_url": url}
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._processes.append(self._nursery.bear(self.log, variables, how))

    def is_running(self) -> bool:
        return self._processes[-1].poll() is None

    def is_ready(self) -> bool:
        """Whether it answers, and all its parts work."""
        try:
            return self.is_running() and self._asked.ready().ready
        except ClientError:
            return False

    def signal(self, number: int) -> None:
        self._processes[-1].send_signal(number)

    def close(self) -> None:
        self._asked.close()
        self.relay.mend()
        self._processes[-1].kill()
        self._processes[-1].wait()
        self.relay.close()


class Installation:
    """The services with all that they need. ``engine`` reaches the database past all cables."""

    def __init__(self, folder: Path, parts: contextlib.ExitStack) -> None:
        self.folder = folder
        nursery = Nursery("tests.chaos.leaders.replica")
        parts.callback(nursery.close)
        (folder / "workshop").mkdir()
        workshop = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.leaders.workshop", str(folder / "workshop")],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        parts.callback(workshop.wait)
        parts.callback(workshop.kill)
        self.database = Postgres(is_durable=True)  # what it has acknowledged outlives a kill
        parts.callback(self.database.close)
        self.engine: Engine = create_engine(self.database.url(), poolclass=NullPool)
        JobStore.open(self.database.url()).close()
        audit.install(self.engine)
        self._store = (folder / "artifacts").as_uri()
        settings = {
            "workshop": str(folder / "workshop"),
            "artifacts_uri": self._store,
            "lease_s": LEASE_S,
            "cores": CORES,
        }
        self.replicas: list[Replica] = []
        for name in ("one", "two", "three")[:SERVICES]:
            relay = Relay(f"http://127.0.0.1:{self.database.port}")
            replica = Replica(name, folder, relay, nursery, settings)
            parts.callback(replica.close)
            self.replicas.append(replica)
        wait_until(lambda: all(each.is_ready() for each in self.replicas), PATIENCE_S, "services")

    def store(self) -> ArtifactStore:
        return open_store(self._store)

    def leader(self) -> Replica:
        """Who has the lease now; waits for one."""
        found: list[Replica] = []

        def look() -> bool:
            lease = audit.lease(self.engine)
            found[:] = [each for each in self.replicas if lease.service.endswith(f":{each.port}")]
            return lease.left_s > 0 and bool(found)

        wait_until(look, PATIENCE_S, "a leader")
        return found[0]

    def cut_all(self) -> None:
        """Let no service reach the database."""
        for replica in self.replicas:
            replica.relay.cut()

    def mend_all(self) -> None:
        """Let all reach it again."""
        for replica in self.replicas:
            replica.relay.mend()

    def repair(self) -> None:
        """What an init system does: start again what has ended."""
        for replica in self.replicas:
            if not replica.is_running():
                replica.start()

    def wait_for_another(self, than: Replica) -> None:
        """Until some other service is ready to take over."""

        def look() -> bool:
            self.repair()
            return any(each.is_ready() for each in self.replicas if each is not than)

        wait_until(look, PATIENCE_S, "another service to be ready")

    def wait_for_all(self) -> None:
        """Until every service is ready."""

        def look() -> bool:
            self.repair()
            return all(each.is_ready() for each in self.replicas)

        wait_until(look, PATIENCE_S, "all services to be ready")

    def wait_for_database(self) -> None:
        """Until it answers, past all cables."""
        give_up_at = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_at:
            with contextlib.suppress(OperationalError), self.engine.connect():
                return
            time.sleep(0.02)
        raise AssertionError("the database did not come back")


@contextlib.contextmanager
def installed() -> Iterator[Installation]:
    """An installation in a temporary folder, of which nothing stays."""
    folder = Path(tempfile.mkdtemp(prefix="st-chaos-"))
    try:
        with contextlib.ExitStack() as parts:
            yield Installation(folder, parts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
