"""Processes forked from one that has imported everything: they are there in tenths of a second,
where a new interpreter imports torch for seconds.

Run as a program (``python -m tests.nursery MODULE``) this is the one that they are forked from:
each line of its input asks for another, or for the exit status of one. What is forked calls the
module's ``begin`` and ends as every interpreter does.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.looking import looks

ROOT = Path(__file__).parents[1]


class Forked:
    """A process that was forked, with the methods of ``Popen`` that tests use."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self.pid = pid
        self._nursery = nursery
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it lives."""
        if self._status is None:
            self._status = self._nursery.status(self.pid)
        return self._status

    def wait(self, timeout: float = 240.0) -> int:
        for _ in looks(timeout):
            if (status := self.poll()) is not None:
                return status
        raise AssertionError(f"process {self.pid} has not ended after {timeout:.0f} s")

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended: until it was polled, its id is nobody else's."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that others are forked from."""

    def __init__(self, module: str) -> None:
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery", module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Linear algebra would start its threads with the import, and only one thread forks.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._hear()

    def bear(self, log: Path, variables: Mapping[str, str], how: Mapping[str, Any]) -> Forked:
        """A process with these environment variables that does ``begin(how)``; what it says is
        in the log."""
        asked = {"log": str(log), "variables": dict(variables), "how": dict(how)}
        return Forked(self, self._ask(asked))

    def status(self, pid: int) -> int | None:
        """The exit status of a process from here, told once; None while it lives."""
        status = self._ask({"status_of": pid})
        return None if status is None else int(status)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, asked: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        with self._turn:
            self._process.stdin.write(f"{json.dumps(asked)}\n")
            self._process.stdin.flush()
            return self._hear()

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        heard = self._process.stdout.readline()
        assert heard, "nothing can be forked any more"
        return json.loads(heard)


def _say(answer: int | None) -> None:
    sys.stdout.write(f"{json.dumps(answer)}\n")
    sys.stdout.flush()


def _status(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _next_born() -> Mapping[str, Any] | None:
    """Answer and fork; in who is forked, what it was asked to be, and here None at the end."""
    for line in sys.stdin:
        asked = json.loads(line)
        if (pid := asked.get("status_of")) is not None:
            _say(_status(pid))
            continue
        threads = psutil.Process().num_threads()
        assert threads == 1, f"{threads} threads, of which a fork would copy one"
        if (pid := os.fork()) == 0:
            return dict(asked)
        _say(pid)
    return None


def main() -> None:
    """Import the module, and fork until the input ends."""
    module = importlib.import_module(sys.argv[1])
    gc.freeze()  # no collection writes to pages that all share
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is for who is forked
    _say(os.getpid())
    if (born := _next_born()) is None:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(born["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(born["variables"])
    module.begin(born["how"])


if __name__ == "__main__":
    main()
