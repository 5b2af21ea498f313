"""The Ray actor that runs attempts: one process, one worker of one attempt at a time.

Ray reports a dead node's actors late (16 s after a raylet is killed) and their processes may go
on for longer, so the process ties its own life to its raylet. An executor that nobody has asked
after for a while has lost its service and ends itself once its attempt is done.

Ray's host process imports this module for the name of the class alone; what needs torch is
imported where the actor is made.
"""

import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Literal, TypedDict

import ray
from ray.util.placement_group import get_current_placement_group, remove_placement_group

from service.cluster.base import LossCause, loss_by_store
from service.cluster.processes import FORSAKEN_S, WATCH_INTERVAL_S, tie_to_parent
from workers.errors import StoreError
from workers.memory import forget_peak, give_back, lasting

if TYPE_CHECKING:
    from workers.parallel import Meeting, Seat
    from workers.run import Run, StopFlag, StopReason

THREAD_END_S = 10.0


class ExecutorReport(TypedDict):
    """What an executor says of itself."""

    state: Literal["running", "idle"]
    pid: int
    host: str
    detail: str | None
    cause: LossCause


class Executor:
    """The actor's class; its methods run in threads of their own and return at once,
    but ``end``."""

    def __init__(self) -> None:
        self._parent = tie_to_parent()
        with lasting():
            from workers import parallel, run
            from workers.warm_up import warm_up

            warm_up()
        self._runs = run
        self._parallel = parallel
        self._meeting: Meeting | None = None
        self._group = get_current_placement_group()
        self._is_helper = False
        self._attempt: threading.Thread | None = None
        self._stop = run.StopFlag()
        self._is_over = threading.Event()
        self._detail: str | None = None
        self._cause: LossCause = "worker_lost"
        self._asked_at = time.monotonic()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def meet(self) -> str:
        """Open a place where the workers of an attempt find each other; returns its address."""
        self._meeting = self._parallel.Meeting(ray.util.get_node_ip_address())
        return self._meeting.address

    def begin(self, run: str, rank: int = 0, place: str = "", *arrived: ExecutorReport) -> None:
        """Start an attempt, given as JSON, as one of its workers; an error while another one runs.

        ``arrived`` makes Ray hold the call back until the other workers have reported. An
        attempt's outcome is known a moment before its thread is done: that is waited for.
        """
        self._asked_at = time.monotonic()
        if self._attempt is not None:
            self._attempt.join(THREAD_END_S)
            if self._attempt.is_alive():
                raise RuntimeError("this executor is at work on another attempt")
        self._stop, self._is_over = self._runs.StopFlag(), threading.Event()
        self._detail, self._cause = None, "worker_lost"
        self._is_helper = rank > 0  # and done before worker 0, which publishes
        parsed = self._runs.Run.model_validate_json(run)
        # A meeting at a file is that of an own Ray, where nothing may listen beyond this machine.
        is_near = not place.startswith("tcp:")
        host = self._parallel.LOOPBACK if is_near else ray.util.get_node_ip_address()
        seat = self._parallel.Seat.of(parsed.spec.resources, rank, place, host)
        forget_peak()  # of earlier attempts
        self._attempt = threading.Thread(
            target=self._execute, args=(parsed, self._stop, self._is_over, seat), name="attempt"
        )
        self._attempt.start()

    def end(self, begun: None) -> ExecutorReport:
        """Wait for the end of the attempt that has ``begun``, before which Ray holds the call back;
        then as ``report``."""
        self._is_over.wait()
        return self.report()

    def report(self) -> ExecutorReport:
        """What this executor does."""
        self._asked_at = time.monotonic()
        return {
            "state": "idle" if self._attempt is None or self._is_over.is_set() else "running",
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "detail": self._detail,
            "cause": self._cause,
        }

    def stop(self, reason: "StopReason") -> None:
        """Ask the attempt to publish a checkpoint and end."""
        self._stop.request(reason)

    def _execute(
        self, run: "Run", stop: "StopFlag", is_over: threading.Event, seat: "Seat"
    ) -> None:
        try:
            if seat.rank == 0:
                self._runs.execute(run, stop, seat, whole_process=True)
            else:
                self._runs.follow(run, stop, seat, whole_process=True)
        except StoreError as error:
            self._detail, self._cause = loss_by_store(error)
            raise
        finally:
            is_over.set()
            give_back()  # for as long as this process is a spare

    def _watch(self) -> None:
        while True:
            time.sleep(WATCH_INTERVAL_S)
            if os.getppid() != self._parent:
                os._exit(1)
            idle = self._attempt is None or not self._attempt.is_alive()
            if idle and time.monotonic() - self._asked_at > FORSAKEN_S * (1 + self._is_helper):
                if self._group is not None:
                    remove_placement_group(self._group)  # or what it holds is held for ever
                os._exit(0)
