"""Attempts on Ray, as the service sees it: through a host process that may fail.

Every question has a time limit. Ray hangs or dies with the host (ray_host.py); the service kills
that host, clears up after it and starts another.
"""

import contextlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from service.cluster.base import (
    ENDED,
    SPOKEN,
    Capacity,
    ClusterDown,
    ClusterUnavailable,
    Heard,
    Node,
    Sighting,
    Unclaimed,
)
from service.cluster.reap import end_holders
from service.log_lines import LogFormat
from workers.run import Run, StopReason
from workers.spec import Resources

log = logging.getLogger(__name__)

START_TIMEOUT_S = 90.0
JOIN_TIMEOUT_S = 60.0  # a node of its own may have to start first
ANSWER_TIMEOUT_S = 15.0
LEAVE_TIMEOUT_S = 10.0
GUARD_TIMEOUT_S = 10.0
TURN_TIMEOUT_S = 5.0  # for a thread's turn to ask, while Ray is started anew: that takes long
CAPACITY_LASTS_S = 2.0


def _ignored() -> None:
    """Nobody listens yet."""


class RayCluster:
    """See :class:`service.cluster.base.Cluster` and :class:`service.cluster.base.Drivers`."""

    def __init__(
        self,
        address: str,
        data_dir: Path,
        cpus: int | None,
        namespace: str,
        log_format: LogFormat = "human",
    ) -> None:
        self.own = not address
        self._configuration = {
            "address": address,
            "data_dir": str(data_dir.resolve()),
            "cpus": cpus,
            "namespace": namespace,
            "log_format": log_format,
        }
        self._turn = threading.Lock()
        self._is_starting = False
        self._host: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lines: TextIO | None = None
        self._folder: Path | None = None
        self._session = ""
        self._spoken = self._ended = _ignored
        self._capacity: tuple[float, Capacity] | None = None

    @property
    def session(self) -> str:
        """See :attr:`service.cluster.base.Cluster.session`."""
        return self._session

    def start(self) -> None:
        """Start or join Ray. Raises ClusterUnavailable."""
        with self._turn, self._starting():
            self._start()

    def capacity(self) -> Capacity:
        """See :meth:`service.cluster.base.Cluster.capacity`; at most two seconds old."""
        if (known := self._known_capacity()) is not None:
            return known
        self._take_turn()
        try:
            if (known := self._known_capacity()) is not None:  # another thread has asked meanwhile
                return known
            nodes = self._answer("capacity")["nodes"]
            capacity = Capacity(tuple(Node(**node) for node in nodes))
            self._capacity = (time.monotonic(), capacity)
            return capacity
        finally:
            self._turn.release()

    def _known_capacity(self) -> Capacity | None:
        known = self._capacity  # which another thread may forget
        if known is None:
            return None
        asked_at, capacity = known
        return capacity if time.monotonic() - asked_at < CAPACITY_LASTS_S else None

    def unclaimed(self) -> Unclaimed | None:
        """See :meth:`service.cluster.base.Cluster.unclaimed`."""
        return None if self.own else Unclaimed(**self._ask("unclaimed"))

    def reserve(self, resources: Resources) -> str:
        """See :meth:`service.cluster.base.Cluster.reserve`."""
        executor_id: str = self._ask("reserve", resources=resources.model_dump())
        return executor_id

    def launch(self, executor_id: str, run: Run) -> None:
        """See :meth:`service.cluster.base.Cluster.launch`."""
        self._ask(
            "launch",
            executor_id=executor_id,
            run=run.model_dump_json(),
            resources=run.spec.resources.model_dump(),
        )

    def look(self, executor_id: str) -> Sighting:
        """See :meth:`service.cluster.base.Cluster.look`."""
        return Sighting(**self._ask("look", executor_id=executor_id))

    def request_stop(self, executor_id: str, reason: StopReason) -> None:
        """See :meth:`service.cluster.base.Cluster.request_stop`."""
        self._ask("request_stop", executor_id=executor_id, reason=reason)

    def kill(self, executor_id: str) -> None:
        """See :meth:`service.cluster.base.Cluster.kill`."""
        self._ask("kill", executor_id=executor_id)

    def release(self, executor_id: str, *, reusable: bool) -> None:
        """See :meth:`service.cluster.base.Cluster.release`."""
        self._ask("release", executor_id=executor_id, reusable=reusable)

    def tend(self, known: frozenset[str], spares: int = 1) -> None:
        """See :meth:`service.cluster.base.Cluster.tend`."""
        self._ask("tend", known=sorted(known), spares=spares)

    def start_driver(self, name: str, setup: str) -> None:
        """See :meth:`service.cluster.base.Drivers.start_driver`."""
        self._ask("start_driver", name=name, setup=setup)

    def exchange(self, name: str, lines: Sequence[str]) -> Heard:
        """See :meth:`service.cluster.base.Drivers.exchange`."""
        heard = self._ask("exchange", name=name, lines=list(lines))
        return Heard(tuple(heard["lines"]), heard["is_gone"], heard["detail"])

    def end_driver(self, name: str) -> None:
        """See :meth:`service.cluster.base.Drivers.end_driver`."""
        self._ask("end_driver", name=name)

    def listen(self, *, spoken: Callable[[], None], ended: Callable[[], None]) -> None:
        """See :meth:`service.cluster.base.Cluster.listen`."""
        self._spoken, self._ended = spoken, ended

    def _pass_on(self, news: socket.socket) -> None:
        """Wake whoever listens, until the host has ended."""
        with news:
            while kinds := news.recv(4096):
                if ENDED in kinds:
                    self._ended()
                if SPOKEN in kinds:
                    self._spoken()

    def rejoin(self) -> None:
        """See :meth:`service.cluster.base.Cluster.rejoin`."""
        with self._turn, self._starting():
            self._drop()
            self._start()

    def close(self) -> None:
        """See :meth:`service.cluster.base.Cluster.close`."""
        with self._turn:
            if self._host is not None and self._socket is not None:
                # The end of its questions lets the host leave in order.
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    self._socket.shutdown(socket.SHUT_WR)
                    self._host.wait(LEAVE_TIMEOUT_S)
            try:
                self._drop()
            except ClusterUnavailable as error:
                log.warning("%s", error)

    def _start(self) -> None:
        try:
            ours, news = self._begin_host()
        except OSError as error:  # no process, memory or descriptor is to be had
            raise ClusterUnavailable(
                f"Ray's host process cannot be started: {error.strerror or error}"
            ) from error
        threading.Thread(target=self._pass_on, args=(news,), name="news", daemon=True).start()
        self._socket = ours
        self._lines = ours.makefile("rw", encoding="utf-8", newline="\n")
        timeout_s = START_TIMEOUT_S if self.own else JOIN_TIMEOUT_S
        try:
            hello = self._exchange(self._configuration, timeout_s)
        except ClusterDown as error:
            self._drop()
            where = "the local Ray" if self.own else f"Ray at {self._configuration['address']}"
            raise ClusterUnavailable(
                f"{where} did not answer within {timeout_s:.0f} s"
                + ("" if self.own else "; check RAY_ADDRESS and RAY_AUTH_TOKEN")
            ) from error
        if "unavailable" in hello:
            self._drop()
            raise ClusterUnavailable(hello["unavailable"])
        self._session = hello["session"]
        self._folder = None if hello["folder"] is None else Path(hello["folder"])

    def _begin_host(self) -> tuple[socket.socket, socket.socket]:
        """Start the host; our ends of its two connections, for questions and for news."""
        with contextlib.ExitStack() as until_it_runs, contextlib.ExitStack() as its_own:
            pairs = []
            for _ in range(2):
                ours, theirs = socket.socketpair()
                until_it_runs.enter_context(ours)
                its_own.enter_context(theirs)
                pairs.append((ours, theirs.fileno()))
            (questions, its_questions), (news, its_news) = pairs
            ends = (its_questions, its_news)
            self._host = subprocess.Popen(
                [
                    *(sys.executable, "-m", "service.cluster.ray_host"),
                    *(str(number) for number in (*ends, os.getpid())),
                ],
                pass_fds=ends,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # Ray's chatter; its warnings go to stderr
                cwd=Path(__file__).parents[2],
                start_new_session=True,  # Ctrl-C at the terminal is for the service
            )
            until_it_runs.pop_all()
        return questions, news

    def _ask(self, call: str, **parameters: Any) -> Any:
        self._take_turn()
        try:
            return self._answer(call, **parameters)
        finally:
            self._turn.release()

    def _answer(self, call: str, **parameters: Any) -> Any:
        answer = self._exchange({"call": call, **parameters}, ANSWER_TIMEOUT_S)
        if "down" in answer:
            raise ClusterDown(answer["down"])
        return answer["result"]

    def _take_turn(self) -> None:
        """Wait until the questions of other threads are answered.

        Each of them has its time limit, and one that a busy machine answers late is no sign that
        Ray is down; only its start is not waited for. Raises ClusterDown.
        """
        while not self._turn.acquire(timeout=TURN_TIMEOUT_S):
            if self._is_starting:
                raise ClusterDown("Ray is being started again")

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        self._is_starting = True
        try:
            yield
        finally:
            self._is_starting = False

    def _exchange(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """One line there and one line back; an answer that comes too late is never read, as the
        connection cannot be used any more."""
        if self._lines is None or self._socket is None:
            raise ClusterDown("Ray is not running")
        try:
            self._socket.settimeout(timeout_s)
            self._lines.write(json.dumps(question) + "\n")
            self._lines.flush()
            line = self._lines.readline()
        except OSError as error:
            raise ClusterDown("Ray's host process does not answer") from error
        if not line:
            raise ClusterDown("Ray's host process has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _drop(self) -> None:
        """End the host if it is still there, and everything of an own Ray.

        Raises ClusterUnavailable while something of that cannot be ended.
        """
        self._capacity = None
        if self._lines is not None:
            with contextlib.suppress(OSError):
                self._lines.close()
            self._lines = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._host is not None:
            self._host.kill()
            self._host.wait()
            self._host = None
        if self._folder is not None:
            self._clear(self._folder)
            self._folder = None

    def _clear(self, folder: Path) -> None:
        """Wait for the guard, which acts on the end of the host; do its work if it is dead too."""
        give_up_at = time.monotonic() + GUARD_TIMEOUT_S
        while folder.exists() and time.monotonic() < give_up_at:
            time.sleep(0.05)
        if folder.exists():
            try:
                end_holders(folder)
            except TimeoutError as error:
                raise ClusterUnavailable(f"the last Ray cannot be cleared away: {error}") from error
            shutil.rmtree(folder, ignore_errors=True)
