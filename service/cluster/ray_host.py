"""The process that holds the connection to Ray, apart from the service.

A Ray driver takes the process that it lives in hostage: it replaces signal handlers, it dies
with the thread that started it, a lost GCS ends the process after a while or, told not to, makes
every call wait for ever, and leaving such a cluster hangs. So the service keeps its driver in a
child process and speaks to it through a socket, one JSON line for a question and one for its
answer. A host that does not answer is killed and another one started: nothing is lost with it,
as executors are found again by name.

``python -m service.cluster.ray_host FD NEWS SERVICE``: the first line on the socket FD is the
configuration; on the socket NEWS a byte is sent when the driver of a study has spoken, another one
when an attempt has ended; SERVICE is the service's process id.
"""

import contextlib
import faulthandler
import json
import os
import socket
import sys
import threading
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from service.cluster.base import ENDED, SPOKEN, ClusterDown, ClusterUnavailable
from service.cluster.ray_drivers import RayDrivers
from service.cluster.ray_executors import RayExecutors
from service.cluster.ray_session import RaySession
from service.log_lines import LogFormat, write_log
from workers.spec import Resources

WATCH_INTERVAL_S = 0.2
HELD_UP_S = 15.0  # the service has given up an answer by then


class HostConfiguration(BaseModel):
    """What a host is told at its start."""

    address: str
    data_dir: Path
    cpus: int | None
    namespace: str
    log_format: LogFormat = "human"


def _answer(executors: RayExecutors, drivers: RayDrivers, question: dict[str, Any]) -> Any:
    match question:
        case {"call": "capacity"}:
            return asdict(executors.capacity())
        case {"call": "unclaimed"}:
            return asdict(executors.unclaimed())
        case {"call": "reserve", "resources": resources}:
            return executors.reserve(Resources.model_validate(resources))
        case {"call": "launch", "executor_id": name, "run": run, "resources": resources}:
            return executors.launch(name, run, Resources.model_validate(resources))
        case {"call": "look", "executor_id": name}:
            return asdict(executors.look(name))
        case {"call": "request_stop", "executor_id": name, "reason": reason}:
            return executors.request_stop(name, reason)
        case {"call": "kill", "executor_id": name}:
            return executors.kill(name)
        case {"call": "release", "executor_id": name, "reusable": reusable}:
            return executors.release(name, reusable)
        case {"call": "tend", "known": known, "spares": spares}:
            return executors.tend(frozenset(known), spares)
        case {"call": "start_driver", "name": name, "setup": setup}:
            return drivers.start(name, setup)
        case {"call": "exchange", "name": name, "lines": lines}:
            return asdict(drivers.exchange(name, lines))
        case {"call": "end_driver", "name": name}:
            return drivers.end(name)
    raise AssertionError(f"not a question: {question}")


def _die_with(service: int) -> None:
    """End this process when its parent does, the service, even while Ray holds up the main thread.

    The service's id is given, because it may have died before this process could ask for it.

    A call into Ray that keeps the interpreter to itself holds up the watching thread too. So that
    thread winds up a clock that runs without the interpreter, and ends the process if it runs down.
    """

    def watch() -> None:
        while os.getppid() == service:
            faulthandler.dump_traceback_later(HELD_UP_S, exit=True)
            time.sleep(WATCH_INTERVAL_S)
        os._exit(1)

    threading.Thread(target=watch, name="service-watch", daemon=True).start()


def _tell(news: socket.socket, kind: bytes) -> None:
    # A full buffer is news enough, and a service that has gone needs none.
    with contextlib.suppress(OSError):
        news.send(kind, socket.MSG_DONTWAIT)


def main() -> None:
    """Start or join Ray, answer questions until there are no more, leave."""
    _die_with(int(sys.argv[3]))
    connection = socket.socket(fileno=int(sys.argv[1]))
    lines = connection.makefile("rw", encoding="utf-8", newline="\n")

    def say(**answer: Any) -> None:
        lines.write(json.dumps(answer) + "\n")
        lines.flush()

    configuration = HostConfiguration.model_validate_json(lines.readline())
    write_log(configuration.log_format)
    session = RaySession(configuration.address, configuration.data_dir, configuration.cpus)
    try:
        session.start()
    except ClusterUnavailable as error:
        say(unavailable=str(error))
        session.close()
        return
    news = socket.socket(fileno=int(sys.argv[2]))
    executors = RayExecutors(session, configuration.namespace, partial(_tell, news, ENDED))
    drivers = RayDrivers(configuration.namespace, session.folder, partial(_tell, news, SPOKEN))
    folder = session.node_folder
    say(session=session.identity, folder=None if folder is None else str(folder))
    for line in lines:
        try:
            say(result=_answer(executors, drivers, json.loads(line)))
        except ClusterDown as error:
            say(down=str(error))
    if session.is_alive() and not session.own:
        executors.leave()
    session.close()


if __name__ == "__main__":
    main()
