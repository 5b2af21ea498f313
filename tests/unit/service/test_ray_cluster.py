"""What the service's side of Ray does by itself, over a host that is played."""

import errno
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.cluster import ray_cluster
from service.cluster.base import ClusterDown, ClusterUnavailable
from service.cluster.ray_cluster import RayCluster
from tests.looking import looks

GONE = {"state": "gone", "pid": None, "host": None, "detail": None, "cause": "worker_lost"}


class PlayedHost:
    """Answers as the process would that it stands for; a call in ``held`` waits to be let go."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.held: set[str] = set()
        self.folder: str | None = None
        self.let_go = threading.Event()
        self._thread: threading.Thread | None = None

    def refuse(self, *_: Any, **__: Any) -> "PlayedHost":
        """In the place of Popen on a machine that is full."""
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def begin(self, arguments: list[str], **_: Any) -> "PlayedHost":
        """In the place of Popen."""
        connection = socket.socket(fileno=os.dup(int(arguments[-3])))
        self._thread = threading.Thread(target=self._serve, args=(connection,))
        self._thread.start()
        return self

    def kill(self) -> None:
        self.let_go.set()  # and its questions have ended, as the service has closed its side

    def wait(self, timeout: float | None = None) -> int:
        if self._thread is not None:
            self._thread.join()
        return 0

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                call = json.loads(line).get("call", "start")
                self.heard.append(call)
                if call in self.held:
                    self.let_go.wait()
                hello = {"session": "played", "folder": self.folder}
                answer = hello if call == "start" else {"result": GONE}
                lines.write(json.dumps(answer) + "\n")
                lines.flush()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> PlayedHost:
    played = PlayedHost()
    monkeypatch.setattr("service.cluster.ray_cluster.subprocess.Popen", played.begin)
    monkeypatch.setattr(ray_cluster, "TURN_TIMEOUT_S", 0.01)
    return played


@pytest.fixture
def cluster(host: PlayedHost, tmp_path: Path) -> Iterator[RayCluster]:
    made = RayCluster("", tmp_path, 1, "played")
    yield made
    host.let_go.set()
    made.close()


class CountedLock:
    """A lock that counts how often it was not to be had."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.refused = 0

    def acquire(self, timeout: float = -1) -> bool:
        is_mine = self._lock.acquire(timeout=timeout)
        self.refused += not is_mine
        return is_mine

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def until(condition: Callable[[], bool]) -> None:
    for _ in looks(30):
        if condition():
            return
    raise AssertionError("it never came to that")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_question_that_is_answered_late_makes_others_wait_and_not_fail(
    host: PlayedHost, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = CountedLock()
    monkeypatch.setattr(cluster, "_turn", turn)
    cluster.start()
    host.held = {"kill"}
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(cluster.kill, "one")
        until(lambda: "kill" in host.heard)
        looking = pool.submit(cluster.look, "other")
        until(lambda: turn.refused > 3 or looking.done())
        host.let_go.set()
        assert looking.result().state == "gone"
        slow.result()


def test_who_asks_while_ray_is_started_is_told_so_soon(
    host: PlayedHost, cluster: RayCluster
) -> None:
    host.held = {"start"}
    with ThreadPoolExecutor(1) as pool:
        starting: Future[None] = pool.submit(cluster.start)
        until(lambda: "start" in host.heard)
        with pytest.raises(ClusterDown, match="being started"):
            cluster.look("one")
        host.let_go.set()
        starting.result()
    assert cluster.look("one").state == "gone"


def test_a_host_that_cannot_be_started_is_said_in_a_sentence_and_holds_nothing_open(
    host: PlayedHost, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cluster.ray_cluster.subprocess.Popen", host.refuse)
    before = open_files()
    for _ in range(5):
        with pytest.raises(ClusterUnavailable, match="temporarily unavailable"):
            cluster.rejoin()
    assert open_files() == before
    with pytest.raises(ClusterDown, match="not running"):
        cluster.look("one")
    monkeypatch.setattr("service.cluster.ray_cluster.subprocess.Popen", host.begin)
    cluster.rejoin()
    assert cluster.look("one").state == "gone"


def test_what_cannot_be_ended_of_the_last_ray_is_tried_again(
    host: PlayedHost, cluster: RayCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def survives(folder: Path) -> int:
        raise TimeoutError(f"processes survived being killed: [{os.getpid()}]")

    monkeypatch.setattr(ray_cluster, "GUARD_TIMEOUT_S", 0.0)
    folder = tmp_path / "session"
    folder.mkdir()
    host.folder = str(folder)
    cluster.start()
    with monkeypatch.context() as unkillable:
        unkillable.setattr(ray_cluster, "end_holders", survives)
        for _ in range(2):
            with pytest.raises(ClusterUnavailable, match="survived"):
                cluster.rejoin()
        cluster.close()  # says so, and ends
    host.folder = None
    cluster.rejoin()
    assert not folder.exists()
    assert cluster.look("one").state == "gone"
