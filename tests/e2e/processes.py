"""A real service in a real process, and a census of everything that it starts."""

import atexit
import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from api.client import Client, ClientError, JobHandle
from service.cluster.processes import is_running
from service.cluster.reap import holders
from tests.looking import looks
from tests.nursery import Forked, Nursery
from tests.s3_servers import free_ports

ROOT = Path(__file__).parents[2]
READY_S = 240.0  # as all waits of tests: what is there is seen at once, and a neighbour may be busy
RAY_FOLDERS = f"{tempfile.gettempdir()}/spreadtrain-"
Answer = TypeVar("Answer")


def wait_until(look: Callable[[], Answer], timeout_s: float, what: str) -> Answer:
    """The first answer that is true; fails with what was waited for."""
    for _ in looks(timeout_s):
        if answer := look():
            return answer
    raise AssertionError(f"waited {timeout_s:.0f} s in vain: {what}")


def wait_until_gone(pids: frozenset[int], timeout_s: float = 240) -> None:
    """Every process has ended; zombies of this test's own have."""
    alive: Iterable[int] = pids
    for _ in looks(timeout_s):
        if not (alive := [pid for pid in pids if is_running(pid)]):
            return
    raise AssertionError(f"live on after {timeout_s:.0f} s: {_described(alive)}")


def _described(pids: Iterable[int]) -> list[str]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):  # ended just now
            found.append(str(psutil.Process(pid)))
    return found


def process_named(name: str, below: int) -> int:
    """Process id of the child of that name, however deep; what it has just forked has its command
    line too, so the oldest of them."""
    found = []
    for child in psutil.Process(below).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # zombies included
            words = child.cmdline()
            if any(Path(word).name == name or word.endswith(f".{name}") for word in words):
                found.append((child.create_time(), child.pid))
    return min(found)[1]


class ServiceProcess:
    """``spreadtrain serve`` on a data folder."""

    def __init__(self, data_dir: Path, port: int | None = None, **environment: str) -> None:
        self.data_dir = data_dir
        self.port = port or free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data_dir.parent / f"service-{self.port}.log"
        variables = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SPREADTRAIN_", "RAY_"))
        }
        self.process = self.begin(
            ["serve", "--port", str(self.port)],
            {**variables, "SPREADTRAIN_DATA_DIR": str(data_dir), **environment},
        )
        self.client = Client(self.url)
        try:
            wait_until(self.is_ready, READY_S, "the service to be ready")
        except AssertionError:
            self.end()
            raise AssertionError(self.log.read_text()[-3000:]) from None

    def begin(
        self, words: Sequence[str], variables: Mapping[str, str]
    ) -> subprocess.Popen[bytes] | Forked:
        """The process, as users start it: a new interpreter."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "api.cli", *words],
                cwd=ROOT,
                env=variables,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the service ended: {self.log.read_text()[-3000:]}")
        try:
            return self.client.ready().ready
        except ClientError:
            return False

    def census(self) -> frozenset[int]:
        """Every process that the service has started, the service itself included."""
        found = {self.process.pid}
        found |= {child.pid for child in psutil.Process(self.process.pid).children(recursive=True)}
        for folder in self.ray_folders():
            found |= {holder.pid for holder in holders(folder)}
        return frozenset(found)

    def ray_folders(self) -> list[Path]:
        """Temporary folders of Rays that this service started."""
        mine = set()
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # zombies included
                mine |= {Path(word) for word in child.cmdline() if word.startswith(RAY_FOLDERS)}
        return sorted(mine)

    def child(self, name: str) -> int:
        """Process id of the service's child of that name, however deep."""
        return process_named(name, self.process.pid)

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 240) -> int:
        """Signal the service and wait for its end; returns its exit status.

        It may take 2 s for its streams, 10 s for its attempts and 10 s for its host.
        """
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        self.client.close()
        if self.process.poll() is None:
            pids = self.census()
            self.process.kill()
            self.process.wait()
            wait_until_gone(pids)


class ForkedService(ServiceProcess):
    """The same, three seconds sooner: forked from a process that has imported it all."""

    def begin(self, words: Sequence[str], variables: Mapping[str, str]) -> Forked:
        return forked_command(words, variables, self.log)


def forked_command(words: Sequence[str], variables: Mapping[str, str], log: Path) -> Forked:
    """``spreadtrain`` with these words and environment variables; what it says is in the log."""
    return _nursery().bear(log, variables, {"words": [*words]})


@functools.cache
def _nursery() -> Nursery:
    """The one of this test process; it ends with it."""
    nursery = Nursery("tests.e2e.forked")
    atexit.register(nursery.close)
    return nursery


def pid_of_attempt(job: JobHandle) -> int:
    """Process id of the job's running attempt."""
    return (
        wait_until(
            lambda: job.refresh().body.attempts[-1].pid if job.body.attempts else None,
            240,
            "the attempt's process id",
        )
        or 0
    )


def wait_for(job: JobHandle, is_there: Callable[[JobHandle], bool], what: str) -> JobHandle:
    return wait_until(lambda: (is_there(job.refresh()) and job) or None, 240, what) or job


def spec(epochs: int, **fields: object) -> Mapping[str, object]:
    """Real digits on a small network: about 0.1 s an epoch, a checkpoint at each."""
    return {
        "dataset": {"name": "mnist-10k"},
        "trainer": {
            "kind": "delta_vae",
            "network": {"kind": "mlp", "hidden": [32], "latent_dim": 8},
            "epochs": epochs,
            "evaluate_every_epochs": 100_000,
            "grid_every_epochs": 100_000,
        },
        "checkpoint_every_epochs": 1,
        **fields,
    }
