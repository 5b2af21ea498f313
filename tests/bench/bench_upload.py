"""A large upload: how fast it goes through, and what the service's memory does meanwhile.

A real service with a local store; the floor is a plain copy of the same file in the same run.
"""

import hashlib
import shutil
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil

from tests.e2e.processes import ServiceProcess, wait_until_gone

UPLOAD_BYTES = 2 << 30
SIDE = 64
LOOK_EVERY_S = 0.02


def write_npz(path: Path, size_bytes: int) -> None:
    """An npz file of colour pictures, never whole in memory."""
    block = np.random.default_rng(0).integers(0, 256, 8 << 20, np.uint8).tobytes()
    count = size_bytes // len(block) * len(block) // (SIDE * SIDE * 3)
    left = count * SIDE * SIDE * 3
    with (
        zipfile.ZipFile(path, "w") as file,
        file.open("images.npy", "w", force_zip64=True) as member,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, SIDE, SIDE, 3)}
        np.lib.format.write_array_header_1_0(member, header)
        while left:
            left -= member.write(block[:left])


class Watch:
    """The most memory that a process, and any child that it starts meanwhile, holds at a time."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._before = {child.pid for child in self._process.children(recursive=True)}
        self.first_bytes = self.peak_bytes = self._process.memory_info().rss
        self.child_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._done.wait(LOOK_EVERY_S):
            self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)
            for child in self._process.children():
                if child.pid not in self._before:
                    try:
                        self.child_bytes = max(self.child_bytes, child.memory_info().rss)
                    except psutil.NoSuchProcess:
                        continue

    def stop(self) -> None:
        """Look no more."""
        self._done.set()
        self._thread.join()


def copy_s(source: Path, target: Path) -> float:
    """Seconds to read, hash and write the file: what an upload does at the least."""
    began = time.perf_counter()
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    shutil.copyfile(source, target)
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source.npz"
        write_npz(source, UPLOAD_BYTES)
        size = source.stat().st_size
        floor_s = copy_s(source, folder / "copy")
        (folder / "copy").unlink()
        service = ServiceProcess(folder / "data")
        try:
            service.client.datasets()
            watch = Watch(service.process.pid)
            began = time.perf_counter()
            info = service.client.upload("large", source)
            upload_s = time.perf_counter() - began
            watch.stop()
        finally:
            pids = service.census()
            service.stop()
            service.end()
            wait_until_gone(pids)
    assert info.size_bytes > 0.99 * UPLOAD_BYTES
    growth = (watch.peak_bytes - watch.first_bytes) / 2**20
    print(
        f"upload of {size / 2**30:.2f} GiB: {upload_s:.1f} s, {size / upload_s / 2**20:.0f} MiB/s"
    )
    print(f"hash and copy of the same file: {floor_s:.1f} s")
    print(f"service's memory: {watch.first_bytes / 2**20:.0f} MiB, at most {growth:.0f} MiB more")
    print(f"process of the checks: at most {watch.child_bytes / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
