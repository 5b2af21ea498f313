"""Processes on this machine by id: Ray's word on who lives comes late."""

import psutil


def is_running(pid: int) -> bool:
    """Whether the process lives; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def own_child(name: str) -> int | None:
    """Process id of this process's child with that name, or None."""
    for process in psutil.Process().children():
        try:
            if process.name() == name and process.status() != psutil.STATUS_ZOMBIE:
                return process.pid
        except psutil.NoSuchProcess:
            continue
    return None
