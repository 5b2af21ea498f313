"""An installation to be hit: a service, its Ray, its store, and who of them is which process."""

import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import assert_never

import psutil

from api.client import JobHandle
from service.cluster.processes import is_running
from tests import ray_census
from tests.chaos.cells import Setting, Victim
from tests.e2e.processes import ForkedService, ServiceProcess
from tests.other_ray import OtherRay, oldest
from tests.s3_servers import BUCKET, CREDENTIALS, Relay, Seaweed
from workers.artifacts import ArtifactStore, open_store

CORES: dict[Setting, int] = {"own": 1, "gang": 2, "s3": 1, "s3 gang": 2, "joined": 2}
WORKERS: dict[Setting, int] = {"own": 1, "gang": 2, "s3": 1, "s3 gang": 2, "joined": 1}
# Executors that may be there when nothing runs: one of the default shape for each core, two at most
# (the one that is released, the spare); a gang's own end with it.
SPARES: dict[Setting, int] = {"own": 1, "gang": 1, "s3": 1, "s3 gang": 1, "joined": 2}
STOP_S = 60.0
# Ray gives up a raylet that does not answer after 10 s here; by its defaults after a minute or so.
RAY_SETTINGS = {
    "RAY_worker_niceness": "0",  # or a busy machine never lets them come to their phase
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}


class Stage:
    """A service with everything around it, in one of the settings."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting = setting
        self.folder = folder
        self.seaweed: Seaweed | None = None
        self.relay: Relay | None = None
        self.ray: OtherRay | None = None
        with contextlib.ExitStack() as parts:
            self._surround(parts)
            self.service = self._serve()
            parts.callback(lambda: self.service.end())
            self._parts = parts.pop_all()

    def _surround(self, parts: contextlib.ExitStack) -> None:
        """Start what the service needs, and put together its settings."""
        self.environment = {
            "SPREADTRAIN_CANCEL_GRACE_S": "4",
            "SPREADTRAIN_STOP_GRACE_S": "4",
            "SPREADTRAIN_SWEEP_GRACE_S": "1",
            **RAY_SETTINGS,
        }
        if self.setting == "joined":
            self.ray = OtherRay(CORES[self.setting], environment=RAY_SETTINGS)
            parts.callback(self.ray.close)
            self.environment |= self.ray.settings
        else:
            self.environment["SPREADTRAIN_CPUS"] = str(CORES[self.setting])
        if self.setting in ("s3", "s3 gang"):
            self.seaweed = Seaweed(self.folder / "seaweed")
            parts.callback(self.seaweed.close)
            self.relay = Relay(self.seaweed.endpoint)
            parts.callback(self.relay.close)
            self.environment |= CREDENTIALS | {
                "SPREADTRAIN_ARTIFACTS_URI": f"s3://{BUCKET}/chaos",
                "SPREADTRAIN_S3_ENDPOINT": self.relay.endpoint,
            }

    def _serve(self) -> ServiceProcess:
        return ForkedService(self.folder / "data", None, **self.environment)

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
        return found | (self._executors_elsewhere() if self.ray is not None else frozenset())

    def executors(self) -> frozenset[int]:
        """Processes of executors, idle or at work."""
        return frozenset(pid for pid in self.census() if _is_executor(pid))

    def groups(self) -> list[str]:
        """Names of placement groups that Ray holds, asked by a driver of its own."""
        if self.ray is not None:
            return ray_census.take(self.ray.settings["RAY_ADDRESS"], self.ray.settings).groups
        (raylet,), (host,) = self._daemon("raylet"), self._helper("ray_host")
        words = psutil.Process(raylet).cmdline()
        address = next(word.partition("=")[2] for word in words if word.startswith("--gcs-address"))
        variables = psutil.Process(host).environ()
        token = {name: variables[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
        return ray_census.take(address, token).groups

    def pids(self, victim: Victim, job: JobHandle) -> tuple[int, ...]:
        """The victim's processes; empty where it has none just now."""
        match victim:
            case "service":
                return (self.service.process.pid,)
            case "s3":
                assert self.seaweed is not None
                return (self.seaweed.pid,)
            case "attempt":
                return self._ranks(job)[:1]
            case "rank 1":
                return self._ranks(job)[1:2]
            case "host":
                return self._helper("ray_host")
            case "raylet":
                return self._daemon("raylet")
            case "gcs":
                return self._daemon("gcs_server")
            case "ray":
                if self.ray is not None:
                    return tuple(self.ray.pids())
                ours = {*self._helper("ray_host"), *self._helper("reap")}
                return tuple(self.service.census() - {self.service.process.pid, *ours})
        assert_never(victim)

    def _executors_elsewhere(self) -> frozenset[int]:
        """Processes of executors on the other Ray."""
        assert self.ray is not None
        return frozenset(pid for pid in self.ray.pids() if _is_executor(pid))

    def _helper(self, name: str) -> tuple[int, ...]:
        """The service's own helper, which is not Ray's."""
        everything = sorted(self.service.census())
        return tuple(pid for pid in everything if f"service.cluster.{name} " in title_of(pid))[:1]

    def _daemon(self, name: str) -> tuple[int, ...]:
        """Ray's daemon."""
        pid = oldest(name, self.ray.pids() if self.ray is not None else self.service.census())
        return () if pid is None else (pid,)

    def _ranks(self, job: JobHandle) -> tuple[int, ...]:
        """Processes of the attempt that runs, rank 0 first; the others of a gang in any order.

        While an attempt starts, its process is not known yet, and is one of the executors.
        """
        attempts = job.refresh().body.attempts
        if not attempts or attempts[-1].ended_at is not None:
            return ()
        executors = sorted(self.executors())
        first = attempts[-1].pid
        if first is not None:
            executors = [first, *(pid for pid in executors if pid != first)]
        return tuple(executors[: WORKERS[self.setting]])

    def repair(self) -> None:
        """What an operator or an init system does: start again what is gone."""
        if self.seaweed is not None and not self.seaweed.is_running():
            self.seaweed.restart()
        if self.ray is not None and not (
            self.ray.daemon("gcs_server") and self.ray.daemon("raylet")
        ):
            self.ray.bury()
            self.ray.start()
        if self.service.process.poll() is not None:
            self.service.client.close()
            self.service = self._serve()

    def close(self) -> frozenset[int]:
        """Stop the service in order and end the rest, whatever the service does; returns processes
        that outlived it."""
        with self._parts:
            pids = self.census()
            if self.service.process.poll() is None:
                self.service.stop(signal.SIGTERM, STOP_S)
            self.service.end()
            time.sleep(1)
            return frozenset(pid for pid in pids if is_running(pid))


@contextlib.contextmanager
def stage_of(setting: Setting) -> Iterator[Stage]:
    """A stage in a temporary folder; whatever happens on it, nothing stays."""
    folder = Path(tempfile.mkdtemp(prefix="st-chaos-"))
    left: frozenset[int] = frozenset()
    try:
        stage = Stage(setting, folder)
        try:
            yield stage
        finally:
            left = stage.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert not left, f"{setting}: processes outlived the service: {sorted(left)}"


def title_of(pid: int) -> str:
    """A process's command line, which Ray changes to what it does; empty when it has ended."""
    try:
        return " ".join(psutil.Process(pid).cmdline()) + " "
    except psutil.Error:
        return ""


def _is_executor(pid: int) -> bool:
    """Ray calls it ray::Executor at rest, and ray::NAME:Executor.METHOD at work."""
    title = title_of(pid)
    return title.startswith("ray::") and "Executor" in title and is_running(pid)
