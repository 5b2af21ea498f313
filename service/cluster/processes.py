"""Processes on this machine by id: Ray's word on who lives comes late."""

import contextlib
import ctypes
import os
import signal

import psutil

PR_SET_PDEATHSIG = 1
FORSAKEN_S = 300.0
"""An actor that nobody has asked after for so long has lost its service, and ends itself."""
WATCH_INTERVAL_S = 1.0  # between an actor's looks at whether it is forsaken, or its node dead


def is_running(pid: int) -> bool:
    """Whether the process lives; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_running_child(pid: int) -> bool:
    """The same of a child of this process, at the cost of one system call."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:  # somebody has waited for it
        return False


def is_stopped(pid: int) -> bool:
    """Whether the process lives, and was stopped by a signal (SIGSTOP) or a debugger."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    except psutil.NoSuchProcess:
        return False


def own_children(*names: str) -> tuple[int, ...]:
    """Process ids of this process's living children with these names."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() in names and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return tuple(found)


def tie_to_parent() -> int:
    """Let the kernel kill this process when its parent dies; returns the parent."""
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the request took effect
        os._exit(1)
    return parent
