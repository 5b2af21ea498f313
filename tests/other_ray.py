"""A Ray cluster that somebody else started, as far as the service knows: a head, another node."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

from service.cluster.reap import end_holders, holders
from tests.e2e.processes import ROOT, wait_until, wait_until_gone
from tests.own_mounts import need_own_mounts
from tests.s3_servers import free_ports


class OtherRay:
    """It can be killed and started again on its address; ``settings`` join it.

    ``token`` is for a process that has joined another Ray with it already, ``environment`` for
    what its daemons read beside it.
    """

    def __init__(
        self,
        cpus: int = 2,
        token: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._environment = environment or {}
        self.folder = Path(tempfile.mkdtemp(prefix="st-ray-"))
        (self.port,) = free_ports(1)
        self._cpus = cpus
        self._token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token or secrets.token_hex(32)}
        self.settings = {"RAY_ADDRESS": f"127.0.0.1:{self.port}", **self._token}
        self.start()

    def start(self) -> None:
        """Start it, on the same address as before."""
        temporary = self.folder / secrets.token_hex(2)
        self._head = subprocess.Popen(
            [
                *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"),
                *(f"--port={self.port}", f"--num-cpus={self._cpus}"),
                *("--include-dashboard=false", f"--temp-dir={temporary}"),
                *("--object-store-memory=83886080", "--disable-usage-stats"),
            ],
            env={**os.environ, **self._environment, **self._token, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        sockets = temporary / "session_latest" / "sockets" / "raylet"
        wait_until(lambda: sockets.exists() or self._head.poll() is not None, 240, "Ray to start")
        assert self._head.poll() is None

    def pids(self) -> frozenset[int]:
        """Its processes, the executors' included."""
        found = {self._head.pid}
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self._head.pid).children(recursive=True)
            found |= {child.pid for child in children}
        return frozenset(found | {holder.pid for holder in holders(self.folder)})

    def daemon(self, name: str) -> int | None:
        """Process id of its raylet or gcs_server."""
        return oldest(name, self.pids())

    def bury(self) -> None:
        """End it by its process ids, or what is left of it."""
        pids = self.pids()
        self._head.kill()
        for pid in pids - {self._head.pid}:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        self._head.wait()
        end_holders(self.folder)

    def close(self) -> None:
        """End it and remove its folder."""
        self.bury()
        shutil.rmtree(self.folder, ignore_errors=True)


def oldest(name: str, pids: Iterable[int]) -> int | None:
    """The living one of these processes that has this name; what a raylet has just forked has its
    name too, and is younger."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.name() == name and process.status() != psutil.STATUS_ZOMBIE:
                found.append((process.create_time(), pid))
    return min(found)[1] if found else None


class SecondNode:
    """Another node of that cluster, on this machine but with its own mounts: where the given
    folders are, it has empty disks. Ray's own folder is among them.

    ``environment`` is what its workers find, such as credentials.
    """

    def __init__(
        self, head: OtherRay, cpus: int, hidden: Sequence[Path], environment: Mapping[str, str]
    ) -> None:
        need_own_mounts()
        for folder in hidden:
            folder.mkdir(parents=True, exist_ok=True)
        script = 'for folder in "$@"; do mount -t tmpfs tmpfs "$folder" || exit 1; done; exec $RAY'
        start = [
            *(str(Path(sys.executable).parent / "ray"), "start", "--block"),
            *(f"--address={head.settings['RAY_ADDRESS']}", f"--num-cpus={cpus}"),
            *("--object-store-memory=83886080", "--disable-usage-stats"),
        ]
        self._first = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, "sh", str(head.folder), *map(str, hidden)],
            env={
                **{name: text for name, text in os.environ.items() if not name.startswith("RAY_")},
                **head.settings,
                **environment,
                "PYTHONPATH": str(ROOT),
                "RAY": " ".join(start),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        sockets = self.seen(head.folder)
        wait_until(
            lambda: any(sockets.glob("*/session_*/sockets/raylet")) or self._has_ended(),
            240,
            "the second node to start",
        )
        assert not self._has_ended()

    def seen(self, path: Path) -> Path:
        """What this node has at a path."""
        return Path(f"/proc/{self._first.pid}/root{path}")

    def pids(self) -> frozenset[int]:
        """Its processes: all that see its mounts."""
        mounts = _mounts(self._first.pid)
        assert mounts not in (None, _mounts(os.getpid()))
        return frozenset(pid for pid in psutil.pids() if _mounts(pid) == mounts)

    def close(self) -> None:
        """End it by its process ids; its disks end with it."""
        if not self._has_ended():
            pids = self.pids()
            for pid in pids:
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()
            self._first.wait()
            wait_until_gone(pids)

    def _has_ended(self) -> bool:
        return self._first.poll() is not None


def _mounts(pid: int) -> str | None:
    """The identity of a process's mounts; None where it has just ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return None
