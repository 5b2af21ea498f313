"""Ends what a Ray session leaves behind.

When the process that started a local Ray is killed, Ray's own reaper ends the raylet, but the
agents that the raylet started live on. They change their own command line and environment, so
they are told by the one thing that they keep: log files open in the session's folder.

Run as a program (``python -m service.cluster.reap FOLDER SPARED``) this guards a local Ray: it
waits until its standard input ends, which happens when its parent does, however it died, and then
ends every process that has a file open in the folder and removes the folder. It spares the process
with the id SPARED, the service, which may look into the folder while it cleans up itself.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

SWEEPS = 100
SWEEP_INTERVAL_S = 0.1


def holders(folder: Path) -> list[psutil.Process]:
    """Processes of this user, other than this one, with a file or socket open in the folder."""
    inside = f"{folder.resolve()}{os.sep}"
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            links = [path.readlink() for path in Path(f"/proc/{process.pid}/fd").iterdir()]
        except OSError:
            continue  # it has ended, or it is another user's
        if any(str(link).startswith(inside) for link in links):
            found.append(process)
    return found


def end_holders(folder: Path, spare: frozenset[int] = frozenset()) -> int:
    """Kill every process with a file open in the folder until there is none; returns how many.

    Raises TimeoutError if some survive for ten seconds.
    """
    ended: set[int] = set()
    for _ in range(SWEEPS):
        left = [process for process in holders(folder) if process.pid not in spare]
        if not left:
            return len(ended)
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
            ended.add(process.pid)
        time.sleep(SWEEP_INTERVAL_S)
    raise TimeoutError(f"processes survived being killed: {[process.pid for process in left]}")


def start_guard(folder: Path, spare: int) -> subprocess.Popen[bytes]:
    """Start the guard of a folder; it acts when this process ends or closes its ``stdin``, and
    leaves the process with the id ``spare`` alone."""
    return subprocess.Popen(
        [sys.executable, "-m", "service.cluster.reap", str(folder), str(spare)],
        stdin=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,  # Ctrl-C at the terminal is for the service, not for its guard
    )


def main() -> None:
    """Wait for the end of standard input, then clean up."""
    folder, spared = Path(sys.argv[1]), int(sys.argv[2])
    parent = os.getppid()
    sys.stdin.buffer.read()
    # A parent that lives has only left its Ray, and may still hold that Ray's log files.
    end_holders(folder, spare=frozenset({spared, *({parent} & {os.getppid()})}))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
