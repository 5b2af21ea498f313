"""The checks in a process of their own: a stranger's file meets decoders written in C.

Whatever happens to that process, its caller goes on, with its memory and its lock on Python as
they were. The process has a limit on its memory and gets nothing of the caller's environment.
"""

import ctypes
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.content import Facts
from workers.errors import Interrupted, InvalidUpload, NoRoom
from workers.intake.checking import take_in
from workers.intake.limits import Limits

log = logging.getLogger(__name__)

MEMORY_BYTES = 2 << 30
TIMEOUT_S = 3600.0
_ROOT = Path(__file__).parents[2]
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from workers.intake.process import main"
_NO_ROOM = "no room"
_NO_SPACE = 28  # ENOSPC
_LOOK_EVERY_S = 0.2
_SHOWN_BYTES = 2000
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def take_in_apart(
    source: Path,
    target: Path,
    limits: Limits,
    *,
    memory_bytes: int = MEMORY_BYTES,
    timeout_s: float = TIMEOUT_S,
    stop: threading.Event | None = None,
    reserve_bytes: int = 0,
) -> Facts:
    """:func:`workers.intake.take_in` in a process of its own.

    Raises InvalidUpload, also for a file on which the process died or ran out of memory or time,
    NoRoom where less than ``reserve_bytes`` are left on the disk, which others fill too, and
    Interrupted soon after ``stop`` is set.
    """

    def has_room() -> bool:
        return shutil.disk_usage(target.parent).free >= reserve_bytes

    order = json.dumps(
        {
            "parent": os.getpid(),
            "source": str(source),
            "target": str(target),
            "memory_bytes": memory_bytes,
            "max_decoded_bytes": limits.max_decoded_bytes,
            "max_members": limits.max_members,
        }
    )
    # Decoders warn of what they make do without; as often as a file has it, and who reads it waits.
    quietly = (sys.executable, "-I", "-W", "ignore")
    command = [*quietly, "-c", f"{_START}; main(sys.argv[1])", str(_ROOT), order]
    # One thread: a BLAS with many reserves more memory than the limit before it has any work.
    environment = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    with process:
        try:
            answer, trouble = _answer(process, timeout_s, stop, has_room)
        finally:
            process.kill()  # unless it has ended; leaving the block would wait for it
    if process.returncode:
        shown = trouble[-_SHOWN_BYTES:].decode(errors="replace")
        log.warning("checking an upload ended with %d: %s", process.returncode, shown)
        raise InvalidUpload("it could not be checked: the process that read it broke down")
    match json.loads(answer):
        case {"facts": facts}:
            return Facts.model_validate(facts)
        case {"refused": str(reason)} if reason != _NO_ROOM:
            raise InvalidUpload(reason)
        case _:
            raise NoRoom


def _answer(
    process: subprocess.Popen[bytes],
    timeout_s: float,
    stop: threading.Event | None,
    has_room: Callable[[], bool],
) -> tuple[bytes, bytes]:
    """What the process prints until its end, which comes early when it is told to stop, or when
    the disk fills."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        if not has_room():
            raise NoRoom
        try:
            return process.communicate(timeout=_LOOK_EVERY_S)
        except subprocess.TimeoutExpired as error:
            stopping = stop is not None and stop.is_set()
            if not stopping and time.monotonic() < give_up_at:
                continue
            if stopping:
                raise Interrupted from error
            raise InvalidUpload(f"it could not be checked within {timeout_s:g} s") from error


def main(order: str) -> None:
    """Carry out one order and print what came of it."""
    given = json.loads(order)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != given["parent"]:  # it died before it could be heard of
            sys.exit(1)
    resource.setrlimit(resource.RLIMIT_AS, (given["memory_bytes"], given["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limits = Limits(given["max_decoded_bytes"], given["max_members"])
    try:
        facts = take_in(Path(given["source"]), Path(given["target"]), limits)
        answer: dict[str, Any] = {"facts": facts.model_dump(mode="json")}
    except InvalidUpload as error:
        answer = {"refused": str(error)}
    except MemoryError:
        answer = {"refused": "it cannot be read within the memory that is allowed for it"}
    except OSError as error:
        if error.errno != _NO_SPACE:
            raise
        answer = {"refused": _NO_ROOM}
    sys.stdout.write(json.dumps(answer))
