"""Uploads on a real service: trained on by a Ray worker, and cut short by real signals."""

import signal
import threading
from functools import partial
from pathlib import Path

import psutil

from api.client import Client, ClientError
from tests.e2e.conftest import Start
from tests.e2e.processes import ServiceProcess, wait_until, wait_until_gone
from tests.unit.workers.uploading import COLOUR, archive, bomb, pictures, zeros_npy


def test_a_ray_worker_trains_on_an_upload(start: Start, tmp_path: Path) -> None:
    service = start()
    file = tmp_path / "faces.zip"
    file.write_bytes(archive(pictures(COLOUR)))
    info = service.client.upload("faces", file)
    spec = {
        "dataset": {"name": "faces"},
        "trainer": {
            "kind": "delta_vae",
            "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2},
            "epochs": 2,
            "batch_size": 8,
        },
    }
    job = service.client.submit(spec).wait(240)
    assert job.body.spec["dataset"]["digest"] == info.digest
    assert job.samples(3).shape == (3, 6, 6, 3)


def checker(service: ServiceProcess) -> int | None:
    """Process id of the service's child that checks an upload."""
    for child in psutil.Process(service.process.pid).children():
        try:
            if any("workers.intake" in word for word in child.cmdline()):
                return child.pid
        except psutil.NoSuchProcess:
            continue
    return None


def send(url: str, file: Path, refusals: list[ClientError]) -> None:
    """Upload a file; what the service or the broken connection says is added."""
    with Client(url) as client:
        try:
            client.upload("large", file)
        except ClientError as error:
            refusals.append(error)


def test_a_check_that_a_signal_cuts_short_leaves_nothing(start: Start, tmp_path: Path) -> None:
    service = start()
    # A gigabyte and a half of zeros, in as many megabytes: some seconds of work.
    large = bomb(tmp_path / "large.npz", "data.npy", zeros_npy((3 << 19, 32, 32)), 3 << 29)
    for number in (signal.SIGTERM, signal.SIGKILL):
        refusals: list[ClientError] = []
        thread = threading.Thread(target=send, args=(service.url, large, refusals))
        thread.start()
        pid = wait_until(partial(checker, service), 240, "the check to begin")
        assert pid is not None
        pids = service.census()
        assert pid in pids
        service.stop(number)
        wait_until_gone(pids)
        thread.join()
        assert refusals

        service = start()
        assert "large" not in [info.name for info in service.client.datasets()]
        for folder in ("incoming", "artifacts/datasets"):
            assert not [path for path in (service.data_dir / folder).rglob("*") if path.is_file()]
