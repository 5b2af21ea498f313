"""The S3 store against boto3 alone, on SeaweedFS: ``python -m tests.bench.bench_storage``.

Both put and fetch the same file with the same server in turn; the disk and the server's share of
the cores are in both figures, so that the ratio is what the store adds or saves.
"""

import contextlib
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.bench_service import row
from tests.s3_servers import BUCKET, CREDENTIALS, client, seaweedfs
from workers.artifacts import open_store

SIZE_MIB = 256
ROUNDS = 7
BAR = "≥ 0.9"


def mib_per_s(work: Callable[[], object]) -> float:
    """Throughput of moving the file once."""
    begun = time.perf_counter()
    work()
    return SIZE_MIB / (time.perf_counter() - begun)


def compare(name: str, ours: Callable[[], object], bare: Callable[[], object]) -> None:
    """One line: medians, and the median of the rounds' ratios; who goes first changes.

    What was written before is still on its way to the disk when the next begins.
    """
    figures: dict[Callable[[], object], list[float]] = {ours: [], bare: []}
    for number in range(ROUNDS + 1):  # the first is not counted
        for work in (ours, bare) if number % 2 else (bare, ours):
            figures[work].append(mib_per_s(work))
    rates = [values[1:] for values in figures.values()]
    ratio = statistics.median(one / other for one, other in zip(*rates, strict=True))
    row(
        name,
        f"{statistics.median(rates[0]):.0f} MiB/s",
        f"{statistics.median(rates[1]):.0f} MiB/s",
        f"{ratio:.2f}",
        BAR,
    )


@contextlib.contextmanager
def credentials() -> Iterator[None]:
    """The test server's keys in the environment, as every node has its own."""
    before = dict(os.environ)
    os.environ.update(CREDENTIALS)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def measure(endpoint: str, folder: Path) -> None:
    """Upload, then download, each in turn with boto3."""
    content, fetched = folder / "content", folder / "fetched"
    content.write_bytes(os.urandom(1 << 20) * SIZE_MIB)
    store, bare = open_store(f"s3://{BUCKET}/bench?endpoint={endpoint}"), client(endpoint)
    store.check()
    store.capabilities()
    numbers = itertools.count()

    def fetch() -> None:
        with store.open_file("content") as path:
            assert path.stat().st_size == SIZE_MIB << 20

    def fetch_bare() -> None:
        bare.download_file(BUCKET, "bench/content", str(fetched))
        fetched.unlink()

    row("figure", "store", "boto3 alone", "ratio", "bar")
    compare(
        f"upload of {SIZE_MIB} MiB",
        lambda: store.put_file(f"up/{next(numbers)}", content),
        lambda: bare.upload_file(str(content), BUCKET, f"bare/{next(numbers)}"),
    )
    store.put_file("content", content)
    compare(f"download of {SIZE_MIB} MiB to a file", fetch, fetch_bare)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name, credentials():
        folder = Path(name)
        with seaweedfs(folder / "seaweedfs") as endpoint:
            measure(endpoint, folder)


if __name__ == "__main__":
    main()
