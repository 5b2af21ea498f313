"""The Ray actor of a study's driver: it starts it as a process of its own, and speaks for it.

The driver's Ray job ends with its process, and so everything that it holds: an actor that ran Tune
itself would leave its placement groups behind when it is killed. This actor holds no core.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, TypedDict

import ray

from service.cluster.desk import FAILED, Desk
from service.cluster.processes import FORSAKEN_S, WATCH_INTERVAL_S, tie_to_parent
from service.settings import driver_environment

LAST_WORDS = 4000  # characters of a driver's standard error
LISTEN_S = 10.0  # a question of the host's is answered after this at the latest


class DriverReport(TypedDict):
    """What has been said since the last report, and how the driver stands.

    ``code`` is its exit status, negative for a signal, once it has ended; ``last_words`` are the
    last that it wrote to standard error.
    """

    lines: list[str]
    pid: int
    driver_pid: int
    code: int | None
    last_words: str


class StudyActor:
    """The actor's class; its methods are coroutines of one event loop."""

    def __init__(self, name: str, namespace: str, setup: str, folder: str | None) -> None:
        self._parent = tie_to_parent()
        self._folder = own_folder(name, Path(folder or tempfile.gettempdir()))
        self._asked_at = time.monotonic()
        self._desk = Desk()
        self._early: dict[int, str] = {}
        self._next = 1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last_words = ""
        address = ray.get_runtime_context().gcs_address
        self._log = self._folder / "driver.log"
        with self._log.open("wb") as log:
            self._driver = subprocess.Popen(
                [
                    *(sys.executable, "-m", "service.cluster.tune_driver"),
                    *(address, namespace, name, str(self._folder)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=Path(__file__).parents[2],
                env=driver_environment(),
                text=True,
                encoding="utf-8",
            )
        self._write(setup)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    async def exchange(self, first: int, lines: list[str]) -> DriverReport:
        """Tell, and then what the driver says; waits for it, but not for ever."""
        await self.tell(first, lines)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            threading.Thread(target=self._hear, name="hear", daemon=True).start()
        said, is_over = await self._desk.hear(LISTEN_S)
        return {
            "lines": list(said),
            "pid": os.getpid(),
            "driver_pid": self._driver.pid,
            "code": self._driver.wait() if is_over else None,
            "last_words": self._last_words,
        }

    async def tell(self, first: int, lines: list[str]) -> None:
        """What the service says, numbered from 1: Ray may bring one call before another."""
        self._asked_at = time.monotonic()
        self._early.update(enumerate(lines, first))
        while (line := self._early.pop(self._next, None)) is not None:
            self._next += 1
            self._pass_on(line)

    def _pass_on(self, line: str) -> None:
        """Answers are for the driver, results for the proxies."""
        match json.loads(line):
            case {"kind": "result", "configuration": number, "epoch": epoch, "metrics": found}:
                self._desk.put(number, {"epoch": epoch, **found})
            case {
                "kind": "ended",
                "configuration": number,
                "epoch": epoch,
                "metrics": found,
                "is_failed": is_failed,
            }:
                last = {"epoch": epoch, **found, "done": True, FAILED: is_failed}
                self._desk.put(number, last)
            case _:
                self._write(line)

    async def wait_for(self, configuration: int) -> dict[str, Any]:
        """For a proxy: the next result of its configuration."""
        return dict(await self._desk.take(configuration))

    def _write(self, line: str) -> None:
        assert self._driver.stdin is not None
        try:
            self._driver.stdin.write(line + "\n")
            self._driver.stdin.flush()
        except OSError:
            return  # it has ended, and its last words say more

    def _hear(self) -> None:
        assert self._driver.stdout is not None
        assert self._loop is not None
        for line in self._driver.stdout:
            self._loop.call_soon_threadsafe(self._desk.say, line)
        self._driver.wait()
        self._last_words = self._log.read_text(errors="replace")[-LAST_WORDS:]
        shutil.rmtree(self._folder, ignore_errors=True)
        self._loop.call_soon_threadsafe(self._desk.close)

    def _watch(self) -> None:
        while True:
            time.sleep(WATCH_INTERVAL_S)
            if os.getppid() != self._parent:
                os._exit(1)
            if time.monotonic() - self._asked_at > FORSAKEN_S:
                self._driver.kill()
                self._driver.wait()
                shutil.rmtree(self._folder, ignore_errors=True)
                os._exit(0)


def driver_name(study_id: str, attempt: int) -> str:
    """The name of the actor of a study's driver."""
    return f"driver-{study_id}-{attempt}"


def is_driver(name: str) -> bool:
    """Whether an actor of this name is a driver's."""
    return name.startswith("driver-")


def own_folder(name: str, where: Path) -> Path:
    """A new folder for a driver; those of the study's earlier drivers are removed."""
    for old in where.glob(f"{name.rpartition('-')[0]}-*"):
        shutil.rmtree(old, ignore_errors=True)
    folder = where / name
    folder.mkdir(mode=0o700)
    return folder
