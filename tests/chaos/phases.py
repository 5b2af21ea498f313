"""Bringing a job into a phase of its life, so that a strike hits it there."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.client import ApiError, Client, JobHandle
from tests.chaos.cells import Phase
from tests.chaos.stage import CORES, WORKERS, Stage
from workers.artifacts import job_prefix

PATIENCE_S = 90.0
LOOK_INTERVAL_S = 0.1
EPOCHS = 20
LARGE_EPOCHS = 8


class Missed(Exception):
    """The moment to strike at did not come; nothing is said of the service."""


@dataclass
class Scene:
    """A job in its phase. ``blocker`` holds the cores while the job is queued."""

    job: JobHandle
    blocker: JobHandle | None = None


def spec(stage: Stage, *, large: bool = False) -> Mapping[str, Any]:
    """Digits on a small network, 90 steps and .1 s an epoch, a checkpoint at each; ``large``: a
    network whose checkpoints have tens of MB, so that a strike can meet one that is being
    written; smaller ones in S3, which is slower."""
    width = 1200 if stage.seaweed is None else 700
    hidden = [width, width] if large else [32]
    dataset: Mapping[str, Any] = (
        {"kind": "ring", "samples": 200} if large else {"name": "mnist-10k"}
    )
    return {
        "dataset": dataset,
        "trainer": {
            "kind": "delta_vae",
            "network": {"kind": "mlp", "hidden": hidden, "latent_dim": 8},
            "epochs": LARGE_EPOCHS if large else EPOCHS,
            "evaluate_every_epochs": 100_000,
            "grid_every_epochs": 100_000,
        },
        "checkpoint_every_epochs": 1,
        "keep_checkpoints": 3,
        "resources": {"workers": WORKERS[stage.setting]},
    }


def bring(stage: Stage, phase: Phase, chance: random.Random) -> Scene:
    """Submit a job and return when it is in the phase, at a random moment of it. Raises Missed."""
    client = stage.service.client
    match phase:
        case "queued":
            scene = _queued(stage, client)
            time.sleep(chance.uniform(0, 0.5))
        case "starting":
            scene = Scene(_submit(client, spec(stage)))
            time.sleep(chance.uniform(0, 0.15))
        case "training":
            scene = _training(stage, client)
            time.sleep(chance.uniform(0, 0.8))
        case "checkpoint":
            scene = _training(stage, client, large=True)
            _wait_for_half_a_checkpoint(stage, scene.job)
            time.sleep(chance.uniform(0, 0.05))
        case "finishing":
            scene = Scene(_submit(client, spec(stage)))
            _wait(scene.job, _is_nearly_done, "the last epoch")
            time.sleep(chance.uniform(0, 0.35))
        case "cancelling":
            scene = _training(stage, client, large=True)
            scene.job.cancel()
            time.sleep(chance.uniform(0, 0.5))
        case "pausing":
            scene = _training(stage, client, large=True)
            scene.job.pause()
            time.sleep(chance.uniform(0, 0.5))
    return scene


def _submit(client: Client, asked: Mapping[str, Any]) -> JobHandle:
    """As a patient user: a Ray that the strike before has hit may not be there again yet."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return client.submit(asked)
        except ApiError as error:
            if not error.problem.retryable or time.monotonic() > give_up_at:
                raise
        time.sleep(LOOK_INTERVAL_S)


def _training(stage: Stage, client: Client, *, large: bool = False) -> Scene:
    job = _submit(client, spec(stage, large=large))
    _wait(job, lambda job: len(job.checkpoints()) >= 2, "two checkpoints")
    return Scene(job)


def _queued(stage: Stage, client: Client) -> Scene:
    request = dict(spec(stage))
    request["trainer"] = {**request["trainer"], "epochs": 100_000}
    request["resources"] = {"cpus_per_worker": CORES[stage.setting]}
    blocker = _submit(client, request)
    _wait(blocker, lambda job: job.refresh().state == "running", "the job that holds the cores")
    return Scene(_submit(client, spec(stage)), blocker)


def _is_nearly_done(job: JobHandle) -> bool:
    progress = job.refresh().body.progress
    return progress is not None and progress.epoch >= EPOCHS - 2


def _wait_for_half_a_checkpoint(stage: Stage, job: JobHandle) -> None:
    """Until some file of a checkpoint is there, or on its way, and its manifest is not."""
    if stage.seaweed is not None:
        store = stage.store()

        def half_there() -> bool:
            keys = [stored.key for stored in store.list(job_prefix(job.id))]
            folders = {key.rpartition("/")[0] for key in keys if "/checkpoints/" in key}
            return any(f"{folder}/manifest.json" not in keys for folder in folders)

        _poll(job, half_there, 0.02)
        return
    root = stage.folder / "data" / "artifacts"
    _poll(job, lambda: _is_writing(root, job.id), 0.002)


def _is_writing(root: Path, job_id: str) -> bool:
    if any(root.glob(".incoming-*")):
        return True
    folders = root.glob(f"{job_prefix(job_id)}/attempts/*/checkpoints/*")
    return any(not (folder / "manifest.json").exists() for folder in folders)


def _wait(job: JobHandle, is_there: Callable[[JobHandle], bool], what: str) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not is_there(job):
        assert time.monotonic() < give_up_at, f"{what} did not come: {job.refresh().body.message}"
        time.sleep(LOOK_INTERVAL_S)


def _poll(job: JobHandle, look: Callable[[], bool], interval_s: float) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not look():
        if time.monotonic() > give_up_at:
            raise Missed(f"no checkpoint was seen half-written; the job is {job.refresh().state}")
        time.sleep(interval_s)
