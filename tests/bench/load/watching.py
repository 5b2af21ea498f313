"""The service under load as a process: started, asked, and looked at from outside."""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from api.bodies import EventPage
from api.client import Client, ClientError
from tests.e2e.processes import ROOT, wait_until
from tests.s3_servers import free_ports

START_S = 300.0
LOOK_INTERVAL_S = 0.2


class Memory:
    """The most resident memory of a process, from ``start`` to ``stop``, in bytes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.first_bytes = self.most_bytes = self.last_bytes = self._look()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _look(self) -> int:
        return int(self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_INTERVAL_S):
            self.last_bytes = self._look()
            self.most_bytes = max(self.most_bytes, self.last_bytes)

    def stop(self) -> str:
        """What it was at first, at most, and at the end."""
        self._stopping.set()
        self._thread.join()
        parts = (self.first_bytes, self.most_bytes, self.last_bytes)
        return " / ".join(f"{size / 2**20:.0f}" for size in parts) + " MiB"


class Server:
    """A service over a played cluster in a process of its own, with its writer."""

    def __init__(self, folder: Path, database_url: str, cores: int) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        arguments = [str(folder), database_url, str(self.port), str(cores)]
        self._writer: subprocess.Popen[bytes] | None = None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.load.server", *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.client = Client(self.url)
        wait_until(self._answers, START_S, "the service to be ready")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        with contextlib.suppress(ClientError):
            return self.client.ready().ready
        return False

    def play(self, events: int, values: int) -> None:
        """Let the attempts speak: so many events a second each, of so many values."""
        arguments = [str(self.folder / "played"), str(events), str(values)]
        self._writer = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.load.played", *arguments], cwd=ROOT
        )

    def cpu_s(self) -> float:
        """Seconds of a core that the service has used."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        """End it, and its writer."""
        self.client.close()
        for process in (self._writer, self.process):
            if process is not None:
                process.kill()
                process.wait()


@contextlib.contextmanager
def serving(database_url: str | None = None, cores: int = 10) -> Iterator[Server]:
    """A server on a new folder, and on a SQLite file there if no other database is given."""
    with tempfile.TemporaryDirectory(prefix="st-load-") as name:
        folder = Path(name)
        server = Server(folder, database_url or f"sqlite:///{folder / 'spreadtrain.db'}", cores)
        try:
            yield server
        finally:
            server.close()


def last_event(server: Server, job_id: str) -> int:
    """The number of a job's last event."""
    after = 0
    while True:
        query: dict[str, str | int] = {"after": after, "limit": 1000}
        answer = server.client.connection.request("GET", f"/v1/jobs/{job_id}/events", params=query)
        page = EventPage.model_validate_json(answer.content)
        if not page.events:
            return after
        after = page.next_after


class Crowd:
    """Followers of jobs, from what they have told by now, in processes of their own."""

    def __init__(self, server: Server, jobs: Sequence[str], count: int, processes: int = 2) -> None:
        named = [f"{job}={last_event(server, job)}" for job in jobs]
        self._processes = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.bench.load.followers"),
                    *(f"127.0.0.1:{server.port}", str(count // processes), *named),
                ],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(processes)
        ]
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        self._began = time.monotonic()

    def leave(self) -> dict[str, Any]:
        """End them; what they have seen together."""
        lasted_s = time.monotonic() - self._began
        told = [json.loads(process.communicate("")[0]) for process in self._processes]
        return {
            "events_per_s": sum(each["events"] for each in told) / lasted_s,
            "gaps": sum(each["gaps"] for each in told),
            "ended": sum(each["ended"] for each in told),
            "delay_p50_s": max(each["delay_p50_s"] for each in told),
            "delay_p99_s": max(each["delay_p99_s"] for each in told),
        }
