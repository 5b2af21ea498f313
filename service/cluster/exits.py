"""How a process ended that is not this one's child: the kernel tells who holds it open.

Since Linux 6.15 a pidfd that was opened while the process lived gives its exit status afterwards
(PIDFD_GET_INFO, include/uapi/linux/pidfd.h). Older kernels tell the parent alone, and then it is
not known here.
"""

import contextlib
import fcntl
import os
import select
import signal
import struct
import time

REAPED_WITHIN_S = 0.2
_INFO = struct.Struct("=QQ11Ii")  # struct pidfd_info, first version: mask, cgroup, ids, exit_code
_EXIT = 1 << 3
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11


class ExitWatch:
    """Holds one process open to hear of its end; close it. A process that is gone tells nothing."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd: int | None = None
        with contextlib.suppress(OSError):
            self._fd = os.pidfd_open(pid)

    def has_ended(self) -> bool:
        """Whether it is known to have ended, collected by its parent or not."""
        if self._fd is None:
            return False
        poll = select.poll()  # select() ends at descriptor 1023
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def status(self, patience_s: float = REAPED_WITHIN_S) -> int | None:
        """The process's exit code, or minus the signal that ended it; None if that is not known.

        The kernel tells when the parent has collected it, which is waited for.
        """
        give_up_at = time.monotonic() + patience_s
        while self._fd is not None:
            answer = bytearray(_INFO.size)
            _INFO.pack_into(answer, 0, _EXIT, *([0] * 13))
            try:
                fcntl.ioctl(self._fd, _GET_INFO, answer)
            except OSError:  # an older kernel
                return None
            mask, *_, waited = _INFO.unpack(answer)
            if mask & _EXIT:
                return os.waitstatus_to_exitcode(waited)
            if time.monotonic() > give_up_at:
                return None
            time.sleep(0.01)
        return None

    def close(self) -> None:
        """Let go of the process."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def signal_name(number: int) -> str:
    """Such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
