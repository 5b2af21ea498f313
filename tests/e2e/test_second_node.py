"""Two nodes that share nothing but the network: a job on the other one lives in S3, or is refused.

The other node is a second raylet with its own mounts, where Ray's folder and the service's data
folder are empty disks. Only it has the cores that these jobs ask for.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.client import ApiError, JobFailed
from tests.e2e.conftest import Start
from tests.e2e.processes import ServiceProcess, wait_until
from tests.other_ray import OtherRay, SecondNode
from tests.s3_servers import BUCKET, CREDENTIALS
from tests.unit.workers.uploading import COLOUR, archive, pictures

CPUS = 3  # of each worker: more than the head has


@pytest.fixture
def head() -> Iterator[OtherRay]:
    ray = OtherRay(cpus=2)
    yield ray
    ray.close()


@pytest.fixture
def node(head: OtherRay, tmp_path: Path) -> Iterator[SecondNode]:
    # One core more than a job asks for, as the warm spare may be there.
    other = SecondNode(head, CPUS + 1, [tmp_path / "data"], CREDENTIALS)
    yield other
    other.close()


def spec(dataset: dict[str, object]) -> dict[str, object]:
    return {
        "dataset": dataset,
        "trainer": {
            "kind": "delta_vae",
            "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2},
            "epochs": 2,
            "batch_size": 8,
        },
        "resources": {"cpus_per_worker": CPUS},
    }


def has_both_nodes(service: ServiceProcess) -> bool:
    """Whether the other node is known by now: it joins in its own time."""
    try:
        service.client.plan(spec({"kind": "line", "samples": 100}))
    except ApiError:
        return False
    return True


def test_a_job_on_another_node_lives_in_s3_and_a_local_store_is_refused_there(
    start: Start, head: OtherRay, node: SecondNode, seaweedfs_endpoint: str, tmp_path: Path
) -> None:
    service = start(
        **CREDENTIALS,
        **head.settings,
        SPREADTRAIN_ARTIFACTS_URI=f"s3://{BUCKET}/second-node",
        SPREADTRAIN_S3_ENDPOINT=seaweedfs_endpoint,
    )
    wait_until(lambda: has_both_nodes(service), 240, "the other node to join")
    file = tmp_path / "faces.zip"
    file.write_bytes(archive(pictures(COLOUR)))
    digest = service.client.upload("faces", file).digest
    job = service.client.submit(spec({"name": "faces"})).wait(240)
    assert (job.state, len(job.body.attempts)) == ("succeeded", 1)
    # It fetched its data there, and this machine's own folders were never touched.
    kept = service.data_dir / "datasets" / "uploads" / f"{digest.removeprefix('sha256:')}.npy"
    assert node.seen(kept).is_file()
    assert not kept.exists()
    assert not (service.data_dir / "artifacts").exists()
    assert [checkpoint.epoch for checkpoint in job.checkpoints()] == [1, 2]
    assert job.samples(3, seed=1).shape == (3, 6, 6, 3)
    assert any("training begins" in line.text for line in job.logs())
    assert service.stop() == 0

    local = start(**head.settings)
    wait_until(lambda: has_both_nodes(local), 240, "the other node to join")
    refused = local.client.submit(spec({"kind": "line", "samples": 100}))
    with pytest.raises(JobFailed, match="store_not_shared"):
        refused.wait(240)
    assert [attempt.reason for attempt in refused.body.attempts] == ["store_not_shared"]
    assert "does not share the artifact folder of the service" in refused.body.message
    assert "use s3://bucket/prefix" in refused.body.message
    assert not node.seen(local.data_dir / "artifacts").exists()
    # And of a gang whose workers are on both nodes, by whichever of them is there.
    gang = spec({"kind": "line", "samples": 100})
    gang["resources"] = {"workers": 3, "cpus_per_worker": 2}
    spread = local.client.submit(gang)
    with pytest.raises(JobFailed, match="store_not_shared"):
        spread.wait(240)
    assert [attempt.reason for attempt in spread.body.attempts] == ["store_not_shared"]
    assert not node.seen(local.data_dir / "artifacts").exists()
