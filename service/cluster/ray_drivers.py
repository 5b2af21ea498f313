"""The drivers of studies on Ray: a detached actor for each, asked by a call that waits at it.

A driver is spoken to, and its last answer looked at: no call here waits for an actor. This runs in
the host process (ray_host.py).
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RaySystemError, RpcError

from service.cluster.base import Heard
from service.cluster.ray_session import ELSEWHERE
from service.cluster.ray_study import DriverReport, StudyActor
from service.cluster.vendor_errors import vendor_errors

log = logging.getLogger(__name__)


class _Driver:
    """The handle of an actor, the question that it holds, and how much it was told."""

    def __init__(self, handle: Any, news: Callable[[], None]) -> None:
        self._handle = handle
        self._news = news
        self._told = 0
        self._asked: Any = None
        self._ask(())

    def exchange(self, lines: Sequence[str]) -> Heard:
        """Tell, and hear if there is something; what is told after that goes with the next
        question, as a call of an actor is what costs."""
        if self._asked is None:
            self._ask(lines)
            return Heard()
        if lines:
            self._handle.tell.remote(self._told + 1, list(lines))
            self._told += len(lines)
        return self._hear()

    def _ask(self, lines: Sequence[str]) -> None:
        self._asked = self._handle.exchange.remote(self._told + 1, list(lines))
        self._told += len(lines)
        self._asked.future().add_done_callback(lambda _: self._news())

    def _hear(self) -> Heard:
        if not ray.wait([self._asked], timeout=0)[0]:
            return Heard()
        try:
            report: DriverReport = ray.get(self._asked)
        except (RaySystemError, RpcError, ActorUnavailableError):
            raise
        except RayError as error:
            return Heard(is_gone=True, detail=f"its actor has died ({type(error).__name__})")
        lines, code = tuple(report["lines"]), report["code"]
        if code is None:
            self._asked = None
            return Heard(lines)
        how = f"signal {-code} ended it" if code < 0 else f"it ended with status {code}"
        if said := report["last_words"].strip():
            log.warning("the driver's last words:\n%s", said)
            how = f"{how}: {said.splitlines()[-1]}"
        return Heard(lines, is_gone=True, detail=how)


class RayDrivers:
    """What :class:`service.cluster.base.Drivers` asks for; ``news`` is called when one speaks."""

    def __init__(self, namespace: str, folder: Path | None, news: Callable[[], None]) -> None:
        self._namespace = namespace
        self._folder = folder
        self._news = news
        self._drivers: dict[str, _Driver] = {}

    def start(self, name: str, setup: str) -> None:
        """See :meth:`service.cluster.base.Drivers.start_driver`."""
        if name in self._drivers:
            return
        with vendor_errors():
            handle = (
                ray.remote(StudyActor)
                .options(
                    name=name,
                    namespace=self._namespace,
                    lifetime="detached",
                    num_cpus=0,
                    label_selector=ELSEWHERE,
                    max_restarts=0,
                    max_task_retries=0,
                )
                .remote(
                    name,
                    self._namespace,
                    setup,
                    None if self._folder is None else str(self._folder),
                )
            )
            self._drivers[name] = _Driver(handle, self._news)

    def exchange(self, name: str, lines: Sequence[str]) -> Heard:
        """See :meth:`service.cluster.base.Drivers.exchange`."""
        driver = self._drivers.get(name)
        if driver is None:
            return Heard(is_gone=True, detail="its host was started anew")
        with vendor_errors():
            return driver.exchange(lines)

    def end(self, name: str) -> None:
        """See :meth:`service.cluster.base.Drivers.end_driver`."""
        self._drivers.pop(name, None)
        # Nobody else's is ended: the name is an installation's own.
        with vendor_errors(), contextlib.suppress(ValueError):  # there is no such actor any more
            ray.kill(ray.get_actor(name, namespace=self._namespace), no_restart=True)
