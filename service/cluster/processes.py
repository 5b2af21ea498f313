"""Processes on this machine by id: Ray's word on who lives comes late."""

import contextlib

import psutil


def is_running(pid: int) -> bool:
    """Whether the process lives; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
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
