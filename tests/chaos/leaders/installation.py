"""What is struck: three services on one PostgreSQL, one Ray and one artifact store.

Each service reaches the database through a cable of its own, which can be cut, and by a name of its
own in each life, which the database writes beside every write.
"""

import contextlib
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from api.client import Client, ClientError
from service.jobstore import JobStore
from tests.chaos.leaders import audit
from tests.chaos.stage import RAY_SETTINGS
from tests.e2e.processes import ServiceProcess, wait_until
from tests.other_ray import OtherRay
from tests.postgres import Postgres
from tests.s3_servers import Relay, free_ports
from workers.artifacts import ArtifactStore, open_store

SERVICES = 3
LEASE_S = 3.0
CORES = 2
ASK_S = 2.0  # a service that is stopped answers nobody
PATIENCE_S = 240.0
STOP_S = 60.0


class Unawaited(ServiceProcess):
    """One that may not come up while the database is away."""

    waits = False


class Replica:
    """One of the services: started again whenever it has ended, with the next life's name."""

    def __init__(self, name: str, folder: Path, relay: Relay, settings: dict[str, str]) -> None:
        self.name = name
        self.relay = relay
        self._folder = folder
        self._settings = settings
        self._lives = itertools.count(1)
        (self.port,) = free_ports(1)
        self.process = self._begin()
        self.url = self.process.url
        self._asked = Client(self.url, timeout_s=ASK_S)

    def _begin(self) -> "Unawaited":
        life = f"{self.name}-{next(self._lives)}"
        address = self.relay.endpoint.removeprefix("http://")
        url = f"{audit.service_url(address)}?application_name={life}"
        settings = {**self._settings, "SPREADTRAIN_DATABASE_URL": url}
        return Unawaited(self._folder / f"data-{self.name}", self.port, **settings)

    def start(self) -> None:
        """Begin the next life; nobody waits until it is ready."""
        self.process.client.close()
        self.process = self._begin()

    def is_running(self) -> bool:
        return self.process.process.poll() is None

    def is_ready(self) -> bool:
        """Whether it answers, and all its parts work."""
        try:
            return self.is_running() and self._asked.ready().ready
        except ClientError:
            return False

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.process.pid, number)

    def close(self) -> None:
        self._asked.close()
        if self.is_running():
            self.process.stop(signal.SIGTERM, STOP_S)
        self.process.end()
        self.relay.close()


class Installation:
    """The services with all that they need. ``engine`` reaches the database past all cables."""

    def __init__(self, folder: Path, parts: contextlib.ExitStack) -> None:
        self.folder = folder
        self.ray = OtherRay(CORES, environment=RAY_SETTINGS)
        parts.callback(self.ray.close)
        self.database = Postgres(is_durable=True)  # what it has acknowledged outlives a kill
        parts.callback(self.database.close)
        self.engine: Engine = create_engine(self.database.url(), poolclass=NullPool)
        JobStore.open(self.database.url()).close()
        audit.install(self.engine)
        self._store = (folder / "artifacts").as_uri()
        settings = {
            **RAY_SETTINGS,
            **self.ray.settings,
            "SPREADTRAIN_ARTIFACTS_URI": self._store,
            "SPREADTRAIN_LEASE_S": str(LEASE_S),
        }
        self.replicas: list[Replica] = []
        for name in ("one", "two", "three")[:SERVICES]:
            relay = Relay(f"http://127.0.0.1:{self.database.port}")
            replica = Replica(name, folder, relay, settings)
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
