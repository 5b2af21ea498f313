"""A checkpoint goes into a store and comes out of it in much less memory than its own size, and a
run goes on from it with its tensors in memory once."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.s3_servers import BUCKET

ROOT = Path(__file__).parents[2]
SIZE_MIB = 300
ALLOWED_MIB = 100  # beyond the tensors; a part is 8 MiB, of which several are under way

_PUBLISH = """
import gc
import sys
from pathlib import Path
import torch
from tests.factories import tiny_spec
from workers.artifacts import open_store
from workers.beginning import beginning
from workers.checkpoint import parse_manifest, verify
from workers.data import describe
from workers.events import Checkpoint
from workers.ledger import Ledger
from workers.publish import Publisher

def memory_mib(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024

spec, prefix = tiny_spec(), "jobs/j/attempts/1"
rows = int(sys.argv[2]) << 18
tensors = {"weights": torch.arange(rows, dtype=torch.float32)}
checkpoint = Checkpoint(1, 1.0, tensors, tensors, {}, is_best=False, is_named=False)
store = open_store(sys.argv[1])
store.check()
store.capabilities()
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = memory_mib("VmRSS")
ledger = Ledger(store, prefix)
with Publisher(store, prefix, spec, describe(spec.dataset, Path()), ledger) as publisher:
    publisher.checkpoint(checkpoint)
ledger.close()
folder = f"{prefix}/checkpoints/00000001"
manifest = parse_manifest(store.get(f"{folder}/manifest.json"))
assert manifest.weights.size_bytes > rows * 4
with store.open_file(f"{folder}/train_state.safetensors") as path:
    verify(path, manifest.train_state)
published = memory_mib("VmHWM") - before
del tensors, checkpoint
gc.collect()
Path("/proc/self/clear_refs").write_text("5")
before = memory_mib("VmRSS")
begun = beginning(store, spec, [folder], None).tensors["weights"]
assert begun.numel() == rows and float(begun.max()) > 0  # all of it is read
print(published, memory_mib("VmHWM") - before)
"""


@pytest.mark.parametrize("kind", ["local", "seaweedfs"])
def test_publishing_and_resuming_take_little_memory_beside_the_tensors(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, s3_credentials: None
) -> None:
    uri = (tmp_path / "artifacts").as_uri()
    if kind == "seaweedfs":
        endpoint = request.getfixturevalue("seaweedfs_endpoint")
        uri = f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={endpoint}"
    done = subprocess.run(
        [sys.executable, "-c", _PUBLISH, uri, str(SIZE_MIB)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    published_mib, resumed_mib = map(float, done.stdout.split())
    assert published_mib < ALLOWED_MIB
    assert resumed_mib < SIZE_MIB + ALLOWED_MIB
