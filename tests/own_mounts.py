"""Mounts that only a test sees: another node's folders, a disk of a few megabytes.

A mount namespace needs root. Where there is none the test is skipped, on CI it fails.
"""

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

CLONE_NEWNS = 0x0002_0000
MS_REC, MS_PRIVATE = 1 << 14, 1 << 18


def need_own_mounts() -> None:
    """Skip, or on CI fail, where mounts of one's own cannot be had."""
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if tried.returncode == 0:
        return
    if os.environ.get("CI") == "true":
        pytest.fail("a mount namespace needs root: run the tests as root, or allow unshare")
    pytest.skip("a mount namespace needs root")


def in_own_mounts(story: Callable[[], None]) -> None:
    """Play a test in a thread with a mount namespace of its own, which ends with it.

    Threads and processes that it starts see what it mounts, and nobody else does.
    """
    need_own_mounts()
    failures: list[BaseException] = []

    def play() -> None:
        try:
            _call("unshare", CLONE_NEWNS)
            _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
            story()
        except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
            failures.append(error)

    thread = threading.Thread(target=play, name="own-mounts")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def mount_disk(folder: Path, size_bytes: int) -> None:
    """A disk of this size at the folder, in the present thread's mount namespace."""
    folder.mkdir(parents=True, exist_ok=True)
    _call("mount", b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={size_bytes}".encode())


def fill(folder: Path) -> Path:
    """A file that takes all the room of a disk."""
    path = folder / "something-else"
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return path


def _call(name: str, *arguments: object) -> None:
    """A system call of the C library; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
