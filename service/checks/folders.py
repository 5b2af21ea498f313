"""Folders, and the limits of this machine."""

import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from service.checks.finding import Finding
from service.settings import Settings

OPEN_FILES = 4096  # Ray's processes, connections, streams and files of a busy service
SHARED_MEMORY_BYTES = 128 << 20  # Ray keeps what it moves between processes there
SHARED_MEMORY = Path("/dev/shm")


def check_folders(settings: Settings) -> Iterator[Finding]:
    """The folders that the service writes to, and what they have room for."""
    data = settings.data_dir.resolve()
    yield _folder("data folder", data, "SPREADTRAIN_DATA_DIR")
    if not settings.datasets_dir.is_relative_to(data):
        yield _folder("folder of data sets", settings.datasets_dir, "SPREADTRAIN_CACHE_DIR")
    yield _folder("temporary folder", Path(tempfile.gettempdir()), "TMPDIR")
    needed = settings.max_upload_bytes + settings.max_decoded_bytes
    with_room = data if data.is_dir() else data.parent
    if with_room.is_dir() and (free := shutil.disk_usage(with_room).free) < needed:
        yield Finding(
            "room for uploads",
            "warning",
            f"{_gb(free)} free, and the largest upload needs {_gb(needed)} while it is checked; "
            "make room, or lower SPREADTRAIN_MAX_UPLOAD_BYTES and SPREADTRAIN_MAX_DECODED_BYTES",
        )
    else:
        yield Finding("room for uploads", "ok", f"{_gb(needed)} for the largest one")


def _folder(part: str, folder: Path, variable: str) -> Finding:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".check-") as file:
            file.write(b"spreadtrain")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(
            part,
            "wrong",
            f"{folder} cannot be written: {error.strerror}; choose another one "
            f"({variable}) or change its permissions",
        )
    return Finding(part, "ok", f"{folder}, {_gb(free)} free")


def check_limits(settings: Settings) -> Iterator[Finding]:
    """What this machine gives a process, beside what the settings ask for."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_few = files != resource.RLIM_INFINITY and files < OPEN_FILES
    advice = f"; allow {OPEN_FILES} or more (ulimit -n, LimitNOFILE)" if is_few else ""
    yield Finding("open files", "warning" if is_few else "ok", f"{files}{advice}")
    memory = psutil.virtual_memory().total
    if settings.sample_cache_bytes > memory // 2:
        yield Finding(
            "memory",
            "warning",
            f"{_gb(memory)}, and generators may take {_gb(settings.sample_cache_bytes)} of it; set "
            "SPREADTRAIN_SAMPLE_CACHE_BYTES lower",
        )
    else:
        yield Finding("memory", "ok", _gb(memory))
    if not settings.ray_address and SHARED_MEMORY.is_dir():
        size = shutil.disk_usage(SHARED_MEMORY).total
        is_small = size < SHARED_MEMORY_BYTES
        advice = "; Ray then uses the disk: enlarge it (--shm-size)" if is_small else ""
        yield Finding("shared memory", "warning" if is_small else "ok", f"{_gb(size)}{advice}")
    yield _port(settings)


def _port(settings: Settings) -> Finding:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    where = f"{settings.host} port {settings.port}"
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            return Finding(
                "port",
                "warning",
                f"{where}: {error.strerror}; right where the service runs already, else choose "
                "another one (SPREADTRAIN_PORT)",
            )
    return Finding("port", "ok", f"{where} is free")


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
