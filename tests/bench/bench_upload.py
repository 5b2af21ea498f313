"""A large upload: how fast it goes through, and what the service's memory does meanwhile.

A real service, with a local store and with one on SeaweedFS. The floors, of the same file in the
same run: a plain copy, and boto3 alone. ``python -m tests.bench.bench_upload [MIB]`` takes another
size than 2 GiB.
"""

import hashlib
import shutil
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil

from tests.e2e.processes import ServiceProcess, wait_until_gone
from tests.s3_servers import BUCKET, CREDENTIALS, client, seaweedfs

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


def bare_s(source: Path, endpoint: str) -> float:
    """Seconds that boto3 alone needs to put the file."""
    bare = client(endpoint)
    began = time.perf_counter()
    bare.upload_file(str(source), BUCKET, "bare")
    took_s = time.perf_counter() - began
    bare.delete_object(Bucket=BUCKET, Key="bare")
    return took_s


def measure(where: str, source: Path, data_dir: Path, **environment: str) -> None:
    """Upload the file to a service of its own, and print what that took."""
    size = source.stat().st_size
    service = ServiceProcess(data_dir, None, **environment)
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
    assert info.size_bytes > 0.99 * size
    growth = (watch.peak_bytes - watch.first_bytes) / 2**20
    print(
        f"{where}: upload of {size / 2**30:.2f} GiB: {upload_s:.1f} s, "
        f"{size / upload_s / 2**20:.0f} MiB/s"
    )
    print(
        f"{where}: service's memory: {watch.first_bytes / 2**20:.0f} MiB, "
        f"at most {growth:.0f} MiB more"
    )
    print(f"{where}: process of the checks: at most {watch.child_bytes / 2**20:.0f} MiB")


def main(size_bytes: int = UPLOAD_BYTES) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source.npz"
        write_npz(source, size_bytes)
        print(f"hash and copy of the same file: {copy_s(source, folder / 'copy'):.1f} s")
        (folder / "copy").unlink()
        measure("folder", source, folder / "local")
        shutil.rmtree(folder / "local")  # so that the disk need not hold both
        with seaweedfs(folder / "seaweedfs") as endpoint:
            print(f"boto3 alone, into SeaweedFS: {bare_s(source, endpoint):.1f} s")
            measure(
                "SeaweedFS",
                source,
                folder / "s3",
                **CREDENTIALS,
                SPREADTRAIN_ARTIFACTS_URI=f"s3://{BUCKET}/bench",
                SPREADTRAIN_S3_ENDPOINT=endpoint,
            )


if __name__ == "__main__":
    main(*(int(mib) << 20 for mib in sys.argv[1:2]))
