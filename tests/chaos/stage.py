"""An installation to be hit: a service, its Ray, its store, and who of them is which process."""

import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from api.client import JobHandle
from service.cluster.processes import is_running
from tests.chaos.cells import Setting, Victim
from tests.e2e.processes import ServiceProcess
from tests.other_ray import OtherRay
from tests.s3_servers import BUCKET, CREDENTIALS, Relay, Seaweed
from workers.artifacts import ArtifactStore, open_store

CORES: dict[Setting, int] = {"own": 1, "gang": 2, "s3": 1, "joined": 2}
WORKERS: dict[Setting, int] = {"own": 1, "gang": 2, "s3": 1, "joined": 1}


class Stage:
    """A service with everything around it, in one of the settings."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting = setting
        self.folder = folder
        self.seaweed = Seaweed(folder / "seaweed") if setting == "s3" else None
        self.relay = Relay(self.seaweed.endpoint) if self.seaweed is not None else None
        self.ray = OtherRay(CORES["joined"]) if setting == "joined" else None
        self.environment = {"SPREADTRAIN_CANCEL_GRACE_S": "4", "SPREADTRAIN_STOP_GRACE_S": "4"}
        if self.ray is None:
            self.environment["SPREADTRAIN_CPUS"] = str(CORES[setting])
        else:
            self.environment |= self.ray.settings
        if self.relay is not None:
            self.environment |= CREDENTIALS | {
                "SPREADTRAIN_ARTIFACTS_URI": f"s3://{BUCKET}/chaos",
                "SPREADTRAIN_S3_ENDPOINT": self.relay.endpoint,
            }
        self.service = self._serve()

    def _serve(self) -> ServiceProcess:
        return ServiceProcess(self.folder / "data", None, **self.environment)

    def store(self) -> ArtifactStore:
        """The artifact store, opened beside the service and not through what is hit."""
        if self.seaweed is None:
            return open_store((self.folder / "data" / "artifacts").as_uri())
        return open_store(f"s3://{BUCKET}/chaos?endpoint={self.seaweed.endpoint}")

    def job(self, job_id: str) -> JobHandle:
        """The job, asked of the service as it is now."""
        return self.service.client.job(job_id)

    def census(self) -> frozenset[int]:
        """Every process that may run because of the service."""
        found = self.service.census() if self.service.process.poll() is None else frozenset()
        return found | (self._executors() if self.ray is not None else frozenset())

    def pids(self, victim: Victim, job: JobHandle) -> tuple[int, ...]:
        """The victim's processes; empty where it has none just now."""
        match victim:
            case "service":
                return (self.service.process.pid,)
            case "s3":
                assert self.seaweed is not None
                return (self.seaweed.pid,)
            case "attempt" | "rank 1":
                return self._ranks(job)[: 1 if victim == "attempt" else None][-1:]
            case "host":
                return self._named("service.cluster.ray_host")
            case "raylet":
                return self._named("/raylet ")
            case "gcs":
                return self._named("gcs_server")
            case "ray":
                if self.ray is not None:
                    return tuple(self.ray.pids())
                return tuple(self.service.census() - {self.service.process.pid, *self._ours()})

    def _ours(self) -> tuple[int, ...]:
        """The service's own helpers, which are not Ray's."""
        return self._named("service.cluster.r")

    def _executors(self) -> frozenset[int]:
        """Processes of executors on the other Ray, idle or at work."""
        assert self.ray is not None
        return frozenset(pid for pid in self.ray.pids() if "Executor" in _title(pid))

    def _named(self, words: str) -> tuple[int, ...]:
        everything = self.service.census() | (self.ray.pids() if self.ray else frozenset())
        return tuple(pid for pid in sorted(everything) if words in _title(pid))[:1]

    def _ranks(self, job: JobHandle) -> tuple[int, ...]:
        """Processes of the attempt that runs, rank 0 first; the others of a gang in any order.

        While an attempt starts, its process is not known yet, and is one of the executors.
        """
        attempts = job.refresh().body.attempts
        if not attempts or attempts[-1].ended_at is not None:
            return ()
        executors = [pid for pid in sorted(self.census()) if "Executor" in _title(pid)]
        first = attempts[-1].pid
        if first is not None:
            executors = [first, *(pid for pid in executors if pid != first)]
        return tuple(executors[: WORKERS[self.setting]])

    def repair(self) -> None:
        """What an operator or an init system does: start again what is gone."""
        if self.seaweed is not None and not self.seaweed.is_running():
            self.seaweed.restart()
        if self.ray is not None and not all(
            any(word in _title(pid) for pid in self.ray.pids())
            for word in ("gcs_server", "/raylet ")
        ):
            self.ray.bury()
            self.ray.start()
        if self.service.process.poll() is not None:
            self.service.client.close()
            self.service = self._serve()

    def close(self) -> frozenset[int]:
        """Stop the service in order and end the rest; returns executors that outlived it."""
        pids = self.census()
        if self.service.process.poll() is None:
            self.service.stop(signal.SIGTERM, 60)
        self.service.end()
        time.sleep(1)
        left = frozenset(pid for pid in pids if is_running(pid))
        if self.ray is not None:
            self.ray.close()
        if self.relay is not None:
            self.relay.close()
        if self.seaweed is not None:
            self.seaweed.close()
        return left


@contextlib.contextmanager
def stage_of(setting: Setting) -> Iterator[Stage]:
    """A stage in a temporary folder; whatever happens on it, nothing stays."""
    folder = Path(tempfile.mkdtemp(prefix="st-chaos-"))
    stage = Stage(setting, folder)
    try:
        yield stage
    finally:
        left = stage.close()
        shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"{setting}: processes outlived the service: {sorted(left)}"


def _title(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline()) + " "
    except psutil.Error:
        return ""
