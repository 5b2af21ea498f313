"""A cluster that outlives the services: attempts run in a process of their own, which is told what
to do by files: ``python -m tests.chaos.leaders.workshop FOLDER``.

It stands for a joined Ray, without the seconds that Ray takes for each start of a service.
"""

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from service.cluster.base import Capacity, ClusterDown, Heard, Node, Sighting, Unclaimed
from service.cluster.inline import InlineCluster
from workers.run import Run, StopReason
from workers.spec import Resources

LOOK_INTERVAL_S = 0.05


class FileCluster:
    """See :class:`service.cluster.base.Cluster`; an executor is a folder below ``folder``, with
    orders in it, and what is to be seen of it."""

    own = False

    def __init__(self, folder: Path, cores: int) -> None:
        self._folder = folder
        self._cores = cores

    @property
    def session(self) -> str:
        """One, for ever."""
        return "workshop"

    def capacity(self) -> Capacity:
        """As it was made."""
        return Capacity((Node(float(self._cores), 0.0, 1 << 40),))

    def unclaimed(self) -> Unclaimed | None:
        """Nobody else uses it."""
        return Unclaimed(cpus=float(self._cores), gpus=0.0)

    def reserve(self, resources: Resources) -> str:
        """A new name."""
        return f"executor-{secrets.token_hex(8)}"

    def launch(self, executor_id: str, run: Run) -> None:
        """Leave the order; the one that was there first stays."""
        folder = self._folder / executor_id
        folder.mkdir(exist_ok=True)
        _write(folder / "run", run.model_dump_json())

    def look(self, executor_id: str) -> Sighting:
        """What the workshop has written last."""
        folder = self._folder / executor_id
        if not folder.exists() or (folder / "gone").exists():
            return Sighting("gone")
        if not (folder / "pid").exists():
            return Sighting("pending")
        pid = int((folder / "pid").read_text())
        return Sighting("idle" if (folder / "idle").exists() else "running", pid, "workshop")

    def request_stop(self, executor_id: str, reason: StopReason) -> None:
        """Leave the wish."""
        with contextlib.suppress(FileNotFoundError):
            _write(self._folder / executor_id / "stop", reason)

    def kill(self, executor_id: str) -> None:
        """Leave the order."""
        with contextlib.suppress(FileNotFoundError):
            _write(self._folder / executor_id / "kill", "")

    def release(self, executor_id: str, *, reusable: bool) -> None:
        """No executor is used again."""
        self.kill(executor_id)

    def tend(self, known: frozenset[str], spares: int = 1) -> None:
        """Whoever is idle ends by itself."""

    def rejoin(self) -> None:
        """It is there always."""

    def close(self) -> None:
        """Attempts run on."""

    def start_driver(self, name: str, setup: str) -> None:
        """No studies."""
        raise ClusterDown("no drivers here")

    def exchange(self, name: str, lines: Sequence[str]) -> Heard:
        """No studies."""
        return Heard(is_gone=True)

    def end_driver(self, name: str) -> None:
        """No studies."""

    def listen(self, *, spoken: Callable[[], None], ended: Callable[[], None]) -> None:
        """No studies."""


def _write(path: Path, content: str) -> None:
    """Write a file whole, unless there is one."""
    part = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    part.write_text(content)
    with contextlib.suppress(FileExistsError):
        os.link(part, path)
    part.unlink()


class Workshop:
    """Carries out the orders, by threads of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cluster = InlineCluster()
        self._open: set[str] = set()
        self._done: set[str] = set()

    def look(self) -> None:
        """Look at every order once."""
        for order in self._folder.glob("executor-*/run"):
            name = order.parent.name
            if name not in self._open | self._done:
                self._open.add(name)
                self._cluster.launch(name, Run.model_validate_json(order.read_text()))
                _write(order.parent / "pid", str(os.getpid()))
        for name in list(self._open):
            self._attend(name, self._folder / name)

    def _attend(self, name: str, folder: Path) -> None:
        if (stop := folder / "stop").exists():
            reason: StopReason = stop.read_text()  # type: ignore[assignment]
            self._cluster.request_stop(name, reason)
        is_killed = (folder / "kill").exists()
        if is_killed:
            self._cluster.kill(name)
        state = self._cluster.look(name).state
        if state != "running":
            _write(folder / "idle", "")
        if is_killed and state in ("idle", "gone"):
            _write(folder / "gone", "")
            self._open.discard(name)
            self._done.add(name)


def main() -> None:
    """Work until killed."""
    workshop = Workshop(Path(sys.argv[1]))
    while True:
        workshop.look()
        time.sleep(LOOK_INTERVAL_S)


if __name__ == "__main__":
    main()
