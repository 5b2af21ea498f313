"""The main job with its artifacts in S3: a real server with keys, a public address before it."""

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
from PIL import Image

from api.client import ApiError
from tests.e2e.conftest import Start
from tests.e2e.processes import ROOT, ServiceProcess, spec, wait_for, wait_until
from tests.s3_servers import BUCKET, CREDENTIALS, SECRET_KEY, client, proxy_of
from tests.unit.workers.uploading import COLOUR, archive, pictures
from workers.generate import Generator

PREFIX = "e2e/runs"


def test_the_main_job_lives_in_s3(start: Start, seaweedfs_endpoint: str, tmp_path: Path) -> None:
    with proxy_of(seaweedfs_endpoint) as public:
        service = start(
            **CREDENTIALS,
            SPREADTRAIN_ARTIFACTS_URI=f"s3://{BUCKET}/{PREFIX}",
            SPREADTRAIN_S3_ENDPOINT=seaweedfs_endpoint,
            SPREADTRAIN_S3_PUBLIC_ENDPOINT=public.endpoint,
        )
        tiny = json.loads(json.dumps(spec(3)))
        tiny["trainer"]["grid_every_epochs"] = 1
        job = service.client.submit(tiny).wait(240)
        assert job.state == "succeeded"
        assert [checkpoint.epoch for checkpoint in job.checkpoints()] == [1, 2, 3]
        bare = client(seaweedfs_endpoint)
        listed = bare.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/jobs/{job.id}/")
        names = {entry["Key"].rpartition("/")[2] for entry in listed["Contents"]}
        assert {"outcome.json", "manifest.json", "weights.safetensors"} <= names
        assert not list((service.data_dir).glob("artifacts/**/*"))

        weights = job.download_weights(tmp_path / "weights.safetensors")
        offline = Generator.load(weights).sample(16, seed=3)
        np.testing.assert_array_equal(offline, job.samples(16, seed=3))
        assert job.filmstrip_png(n=4).startswith(b"\x89PNG")

        with httpx2.Client(base_url=f"{service.url}/v1/jobs/{job.id}") as http:
            grids = http.get("/grids").json()["grids"]
            assert len(grids) == 3
            grid = http.get(f"{service.url}{grids[-1]['links']['content']}").content
            with Image.open(io.BytesIO(grid)) as picture:
                assert picture.size[0] > 8 * 28
            address = "/checkpoints/latest/weights"
            part = http.get(address, headers={"Range": "bytes=100-199"})
            assert part.status_code == 206
            assert part.content == weights.read_bytes()[100:200]
            check_redirect(http, address, weights.read_bytes(), public.endpoint)
            check_redirect(
                http, f"{service.url}{grids[0]['links']['content']}", None, public.endpoint
            )
            ready = {
                part["name"]: part for part in http.get(f"{service.url}/readyz").json()["parts"]
            }
            assert ready["storage"]["detail"].startswith("can: range, multipart, list")
            said_at_the_start = service.log.read_text().partition(" serves on ")[0]
            assert f"the artifact store {ready['storage']['detail']}" in said_at_the_start

            gone = job.checkpoints()[0]
            key = f"{PREFIX}/jobs/{job.id}/attempts/1/checkpoints/{gone.id}/weights.safetensors"
            bare.delete_object(Bucket=BUCKET, Key=key)
            for query in ("", "?redirect=true"):
                missing = http.get(f"/checkpoints/{gone.id}/weights{query}")
                assert (missing.status_code, missing.json()["type"]) == (
                    404,
                    "/problems/result-not-found",
                )
        live_and_delete(service, bare, tmp_path)
        assert SECRET_KEY not in service.log.read_text()


def live_and_delete(service: ServiceProcess, bare: Any, folder: Path) -> None:
    """An upload's job is paused, goes on, is forked and drawn from, and leaves nothing."""
    file = folder / "faces.zip"
    file.write_bytes(archive(pictures(COLOUR)))
    digest = service.client.upload("faces", file).digest
    assert names_below(bare, f"datasets/{digest.removeprefix('sha256:')}") == {
        "data.npy",
        "facts.json",
    }
    endless = dict(spec(100_000, dataset={"name": "faces"}))
    endless["trainer"] = {**endless["trainer"], "batch_size": 8}  # type: ignore[dict-item]
    endless |= {"checkpoint_every_epochs": 200, "keep_checkpoints": 4}
    job = service.client.submit(endless)
    assert job.body.spec["dataset"]["digest"] == digest
    wait_for(job, lambda now: len(now.checkpoints()) > 1, "two checkpoints")
    job.pause()
    wait_for(job, lambda now: now.state == "paused", "the job to be paused")
    step = job.checkpoints()[-1].step
    job.resume()
    wait_for(
        job, lambda now: now.body.attempts[-1].resumed_from_step == step, "the job to go on from it"
    )
    job.cancel()
    wait_for(job, lambda now: now.state == "cancelled", "the job to be cancelled")

    fork = job.fork({"trainer": {"epochs": 2}}, start="weights").wait(240)
    assert (fork.state, fork.body.parent and fork.body.parent.job) == ("succeeded", job.id)
    assert "weights.safetensors" in names_below(bare, f"jobs/{fork.id}/parent")
    assert fork.reconstructions(3).g.shape == (3, 6, 6, 3)
    for gone in (job, fork):
        assert names_below(bare, f"jobs/{gone.id}")
        gone.delete()
        wait_until(
            lambda gone=gone: not names_below(bare, f"jobs/{gone.id}"),  # type: ignore[misc]
            240,
            "its objects to be removed",
        )
    service.client.delete_dataset("faces")
    with pytest.raises(ApiError):
        service.client.dataset("faces")


def names_below(bare: Any, prefix: str) -> set[str]:
    """The last parts of the names of all objects there."""
    found = bare.list_objects_v2(Bucket=BUCKET, Prefix=f"{PREFIX}/{prefix}/")
    return {entry["Key"].rpartition("/")[2] for entry in found.get("Contents", [])}


def test_a_service_that_cannot_use_its_storage_says_why_and_does_not_start(
    seaweedfs_endpoint: str, tmp_path: Path
) -> None:
    """Other reasons are in tests/contract/test_s3_trouble.py."""
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "serve", "--port", "0"],
        cwd=ROOT,
        env={
            **os.environ,
            **CREDENTIALS,
            "AWS_SECRET_ACCESS_KEY": "wrong-secret",
            "SPREADTRAIN_DATA_DIR": str(tmp_path / "data"),
            "SPREADTRAIN_ARTIFACTS_URI": f"s3://{BUCKET}/{PREFIX}",
            "SPREADTRAIN_S3_ENDPOINT": seaweedfs_endpoint,
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    assert "does not accept this node's credentials" in done.stderr
    assert "Traceback" not in done.stderr
    assert "wrong-secret" not in done.stderr


def check_redirect(
    http: httpx2.Client, address: str, content: bytes | None, public_endpoint: str
) -> None:
    """The redirect leads to the public address, which hands the file out, in ranges too."""
    answer = http.get(address, params={"redirect": "true"}, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["cache-control"] == "no-store"
    location = answer.headers["location"]
    assert location.startswith(f"{public_endpoint}/{BUCKET}/{PREFIX}/")
    assert SECRET_KEY not in location
    etag = http.head(address).headers["etag"].strip('"')
    fetched = httpx2.get(location)
    assert fetched.status_code == 200
    assert f"sha256:{hashlib.sha256(fetched.content).hexdigest()}" == etag
    assert content in (None, fetched.content)
    plain = http.get(address)
    assert fetched.headers["content-type"] == plain.headers["content-type"]
    assert fetched.headers["content-disposition"] == plain.headers["content-disposition"]
    followed = http.get(
        address,
        params={"redirect": "true"},
        headers={"Range": "bytes=2-5"},
        follow_redirects=True,
    )
    assert (followed.status_code, followed.content) == (206, fetched.content[2:6])
    assert urlsplit(str(followed.url)).netloc == urlsplit(public_endpoint).netloc
    tampered = httpx2.get(location.replace("Expires=600", "Expires=60000"))
    assert tampered.status_code == 403
