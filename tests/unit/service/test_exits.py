"""How a process ended that is not the asking one's child."""

import os
import subprocess
import sys

import pytest

from service.cluster.exits import ExitWatch, signal_name
from service.cluster.processes import is_running

# The kernel tells a stranger since then.
IS_TOLD = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 15)
NAMED = "SIGKILL" if IS_TOLD else None


STRANGER = """\
import subprocess, sys
child = subprocess.Popen(["sh", "-c", "read word; exit 3"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
if sys.stdin.readline() == "end\\n":
    child.stdin.close()
print(child.wait(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("status", [-9, -11, 3])
def test_the_end_of_a_strangers_child_is_told_by_the_kernel(status: int) -> None:
    stranger = subprocess.Popen(
        [sys.executable, "-c", STRANGER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with stranger:
        assert stranger.stdin is not None
        assert stranger.stdout is not None
        pid = int(stranger.stdout.readline())
        watch = ExitWatch(pid)
        assert watch.status(patience_s=0) is None
        assert not watch.has_ended()
        if status < 0:
            os.kill(pid, -status)
        stranger.stdin.write("end\n" if status > 0 else "wait\n")
        stranger.stdin.flush()
        assert int(stranger.stdout.readline()) == status
        assert not is_running(pid)
        assert watch.has_ended()
        assert watch.status() == (status if IS_TOLD else None)
        watch.close()
        assert watch.status() is None


def test_a_process_that_is_gone_already_tells_nothing() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    watch = ExitWatch(process.pid)
    assert watch.status() is None
    watch.close()


def test_signals_have_their_names() -> None:
    assert signal_name(9) == "SIGKILL"
    assert signal_name(120) == "signal 120"
