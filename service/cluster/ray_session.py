"""Starting, joining and leaving Ray, in the host process (ray_host.py).

``address="auto"`` would join whatever cluster Ray finds, so an own Ray is always started with
``address="local"``.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

import ray
from ray.exceptions import RayError

from service.cluster.base import ClusterUnavailable
from service.cluster.processes import is_running, own_children
from service.cluster.reap import end_holders, start_guard

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 80 << 20  # nothing large ever goes through it; 75 MiB is Ray's least


def _folder_prefix(data_dir: Path) -> str:
    """How the temporary folders of a data folder's local Rays begin.

    Short, as the paths of Unix sockets in them have at most 107 bytes. Each start has a folder
    of its own, so that the guard of a killed service never meets its successor.
    """
    return f"spreadtrain-{hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:8]}-"


class RaySession:
    """This process's connection to Ray: an own local one, or a cluster joined by address.

    ``identity`` names the running cluster, ``folder`` is the temporary folder of an own one.
    """

    def __init__(self, address: str, data_dir: Path, cpus: int | None) -> None:
        self.own = not address
        self.identity = ""
        self._address = address
        self._prefix = _folder_prefix(data_dir)
        self.folder: Path | None = None
        self._cpus = cpus
        self._daemons: tuple[int, ...] = ()
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start or join; call it in the main thread first. Raises ClusterUnavailable."""
        if self.own:
            self._start_local()
        else:
            self._join()

    def is_alive(self) -> bool:
        """Whether Ray is up, as far as the process ids of an own Ray tell."""
        return ray.is_initialized() and all(is_running(pid) for pid in self._daemons)

    def close(self) -> None:
        """Leave; an own Ray ends, and with it all its processes."""
        ray.shutdown()
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def _start_local(self) -> None:
        self._clean_up_after_others()
        self.folder = Path(tempfile.mkdtemp(prefix=self._prefix))  # for this user alone
        self._guard = start_guard(self.folder, spare=os.getppid())
        try:
            ray.init(
                address="local",
                num_cpus=self._cpus,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(self.folder / "ray"),  # which Ray opens to everybody
            )
        except (RayError, RuntimeError, OSError, ConnectionError) as error:
            log.exception("the local Ray did not start")
            raise ClusterUnavailable(
                f"the local Ray did not start ({type(error).__name__}); the log says more"
            ) from error
        self._daemons = own_children("raylet", "gcs_server")
        self.identity = f"local-{secrets.token_hex(6)}"

    def _clean_up_after_others(self) -> None:
        """End what earlier services on this data folder left, should their guards be dead too."""
        for old in Path(tempfile.gettempdir()).glob(f"{self._prefix}*"):
            with contextlib.suppress(FileNotFoundError):  # its guard is at it
                if old.lstat().st_uid == os.getuid() and not old.is_symlink():
                    end_holders(old, spare=frozenset({os.getppid()}))
                    shutil.rmtree(old, ignore_errors=True)

    def _join(self) -> None:
        try:
            context = ray.init(address=self._address, log_to_driver=False, configure_logging=False)
        except (RayError, RuntimeError, OSError, ConnectionError, ValueError) as error:
            raise ClusterUnavailable(
                f"Ray at {self._address} cannot be joined: {type(error).__name__}; check "
                "RAY_ADDRESS, and that the token of RAY_AUTH_TOKEN is the cluster's"
            ) from error
        # The session's folder is named anew each time a head node starts.
        self.identity = Path(context.address_info["session_dir"]).name
