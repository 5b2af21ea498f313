import os
import signal
import subprocess
import sys

from service.cluster.processes import is_running, is_running_child
from tests.looking import looks


def test_a_child_runs_until_it_has_ended_whether_or_not_somebody_waits_for_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert is_running_child(child.pid)
    os.kill(child.pid, signal.SIGSTOP)  # a child that hangs lives
    assert is_running_child(child.pid)
    child.kill()
    for _ in looks(30):
        if not is_running_child(child.pid):
            break
    assert not is_running(child.pid)  # nobody has waited for it yet
    assert child.wait() == -signal.SIGKILL
    assert not is_running_child(child.pid)
    assert not is_running_child(os.getppid())
