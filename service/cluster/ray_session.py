"""Starting, joining and leaving Ray, in the host process (ray_host.py).

``address="auto"`` would join whatever cluster Ray finds, so an own Ray is always started with
``address="local"``.

A Ray driver reaches its cluster through a node on its own machine. Where there is none, in a
container for example, the joining host starts one that offers nothing: no core, no GPU, no actor.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import ray
from ray.exceptions import RayError

from service.cluster.base import ClusterUnavailable
from service.cluster.processes import is_running_child, own_children
from service.cluster.reap import end_holders, start_guard

log = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 80 << 20  # nothing large ever goes through it; 75 MiB is Ray's least
# Of the node that a joining host starts, and what an actor that needs no core asks of its own.
NODE_LABEL, SERVICE_NODE = "spreadtrain-node", "service"
ELSEWHERE = {NODE_LABEL: f"!{SERVICE_NODE}"}


def _folder_prefix(data_dir: Path) -> str:
    """How the temporary folders of a data folder's local Rays begin.

    Short, as the paths of Unix sockets in them have at most 107 bytes. Each start has a folder
    of its own, so that the guard of a killed service never meets its successor.
    """
    return f"spreadtrain-{hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:8]}-"


class RaySession:
    """This process's connection to Ray: an own local one, or a cluster joined by address.

    ``identity`` names the running cluster, ``folder`` is the temporary folder of an own one, and
    ``node_folder`` that of whatever was started here.
    """

    def __init__(self, address: str, data_dir: Path, cpus: int | None) -> None:
        self.own = not address
        self.identity = ""
        self._address = address
        self._prefix = _folder_prefix(data_dir)
        self.folder: Path | None = None
        self.node_folder: Path | None = None
        self._cpus = cpus
        self._daemons: tuple[int, ...] = ()
        self._guard: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start or join; call it in the main thread first. Raises ClusterUnavailable."""
        if self.own:
            self._start_local()
        else:
            self._join()

    def is_alive(self) -> bool:
        """Whether Ray is up, as far as the process ids of an own Ray tell."""
        return ray.is_initialized() and all(map(is_running_child, self._daemons))

    def close(self) -> None:
        """Leave; what was started here ends, and with it all its processes."""
        ray.shutdown()
        if self._node is not None:
            self._node.terminate()  # it stops its raylet in order, so that the cluster knows
            self._node.wait()
            self._node = None
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None

    def _start_local(self) -> None:
        self.folder = self._guarded_folder()
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

    def _guarded_folder(self) -> Path:
        """A new folder for this user alone, in which every process ends when this one does."""
        self._clean_up_after_others()
        self.node_folder = Path(tempfile.mkdtemp(prefix=self._prefix))
        self._guard = start_guard(self.node_folder, spare=os.getppid())
        return self.node_folder

    def _clean_up_after_others(self) -> None:
        """End what earlier services on this data folder left, should their guards be dead too."""
        for old in Path(tempfile.gettempdir()).glob(f"{self._prefix}*"):
            with contextlib.suppress(FileNotFoundError):  # its guard is at it
                if old.lstat().st_uid == os.getuid() and not old.is_symlink():
                    end_holders(old, spare=frozenset({os.getppid()}))
                    shutil.rmtree(old, ignore_errors=True)

    def _join(self) -> None:
        if not _has_node_here(self._address):
            self._start_node()
        try:
            context = ray.init(address=self._address, log_to_driver=False, configure_logging=False)
        except (RayError, RuntimeError, OSError, ConnectionError, ValueError) as error:
            raise ClusterUnavailable(
                f"Ray at {self._address} cannot be joined: {type(error).__name__}; check "
                "RAY_ADDRESS, and that the token of RAY_AUTH_TOKEN is the cluster's"
            ) from error
        # The session's folder is named anew each time a head node starts.
        self.identity = Path(context.address_info["session_dir"]).name

    def _start_node(self) -> None:
        folder = self._guarded_folder()
        self._node = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
                *(f"--address={self._address}", "--num-cpus=0", "--num-gpus=0"),
                *(f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats"),
                *(f"--labels={NODE_LABEL}={SERVICE_NODE}", f"--temp-dir={folder / 'ray'}"),
            ],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._daemons = (self._node.pid,)  # it ends when a process of its own does


def _has_node_here(address: str) -> bool:
    """Whether a raylet of the cluster runs on this machine, by the port of its GCS: the host may
    have been written in another way."""
    ending = f":{address.rpartition(':')[2]}"
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "raylet":
            for argument in process.info["cmdline"] or ():
                if argument.startswith("--gcs-address=") and argument.endswith(ending):
                    return True
    return False
