"""Runs of train() by several processes, for test_parallel.py."""

import json
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from workers import reporting
from workers.data import Dataset, DatasetInfo
from workers.errors import WorkerError
from workers.events import Checkpoint, Event, Finished, Metrics
from workers.parallel import ALONE, Peers, join
from workers.spec import TrainSpec
from workers.train import never, train

MLP = {"kind": "mlp", "hidden": [16], "latent_dim": 3}
CONV = {"kind": "conv", "channels": [4, 8], "latent_dim": 3}
BATCH = 25
ROWS = 101  # 5 steps an epoch; the last has one row, and so none on rank 0 of 2


def data() -> Dataset:
    """Crosses of 8×8 pixels, each with its centre somewhere else."""
    place = torch.randint(0, 8, (ROWS + 20, 2), generator=torch.Generator().manual_seed(1))
    pictures = torch.zeros(ROWS + 20, 8, 8, dtype=torch.uint8)
    for picture, (row, column) in zip(pictures, place.tolist(), strict=True):
        picture[row] = 255
        picture[:, column] = 128
    info = DatasetInfo(
        name="crosses",
        title="",
        shape=(8, 8),
        count=ROWS + 20,
        is_image=True,
        digest="sha256:" + "0" * 64,
        available=True,
        detail="",
    )
    rows = pictures.flatten(1)
    return Dataset(info, rows[:ROWS], rows[ROWS:])


def spec_of(**changes: Any) -> TrainSpec:
    trainer = {"kind": "delta_vae", "network": MLP, "epochs": 4, "batch_size": BATCH, **changes}
    return TrainSpec.model_validate(
        {
            "dataset": {"name": "crosses", "held_out_fraction": 20 / (ROWS + 20)},
            "trainer": trainer,
            "checkpoint_at_epochs": [],
        }
    )


CASES: dict[str, dict[str, Any]] = {
    "mlp": {},
    "conv": {"network": CONV, "optimizer": {"ema_decay": 0.9}},
    "every-draw": {
        "network": CONV,
        "estimator": "antithetic",
        "noise_samples": 2,
        "importance_samples": 3,
        "warm_up_epochs": 1,
    },
    "clean-target": {"estimator": "clean_target", "noise_samples": 2},
    "vae": {"kind": "vae", "network": CONV, "noise_samples": 2, "precision": "bfloat16"},
    "learned": {
        "spread": {"kind": "gaussian"},
        "learned_spread": {
            **{"every_epochs": 1, "noise_steps": 4, "encoder_steps": 3, "ascend": "kl"},
            "covariance": {"kind": "low_rank", "rank": 3, "components": 9},
            "mean_transform": {"kind": "mlp", "hidden": [6], "normalise_gain": True},
        },
    },
    "early": {"epochs": 9, "early_stopping": {"patience": 1, "min_delta": 1e6}},
    "stopped": {"network": CONV},
    "diverged": {
        "epochs": 400,
        "optimizer": {"learning_rate": 10.0, "clip_norm": None},
        "spread": {"kind": "gaussian", "scale": 1e-4},
        "network": {"kind": "mlp", "hidden": [16] * 6, "latent_dim": 2, "output": "identity"},
    },
    "hung": {"epochs": 400},
}


@dataclass
class Story:
    """What one rank saw of one run."""

    kinds: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    step: int = 0
    reason: str = ""
    error: str = ""


def tell(events: Iterator[Event], keep: Callable[[Checkpoint], None]) -> Story:
    """Consume a run."""
    story = Story()
    try:
        for event in events:
            _note(story, event)
            if isinstance(event, Checkpoint):
                keep(event)
    except WorkerError as error:
        story.error = type(error).__name__
    return story


def _note(story: Story, event: Event) -> None:
    story.kinds.append(type(event).__name__)
    match event:
        case Metrics() if event.epoch == int(event.epoch):
            story.losses.append(event.values["loss_nats"])
            story.held_out.append(event.values["held_out_loss_nats"])
        case Checkpoint():
            story.checkpoints.append(event.step)
        case Finished():
            story.step, story.reason = event.step, event.reason


def alone(name: str, resume: dict[str, Tensor] | None = None) -> tuple[Story, dict[str, Tensor]]:
    """A case on one worker, and its last train state."""
    state: dict[str, Tensor] = {}
    story = tell(
        train(spec_of(**CASES[name]), data(), resume=resume, peers=ALONE),
        lambda checkpoint: state.update(checkpoint.train_state),
    )
    return story, state


def story_of(folder: Path, name: str, rank: int) -> Story:
    return Story(**json.loads((folder / f"{name}-{rank}.json").read_text()))


def state_of(folder: Path, name: str) -> dict[str, Tensor]:
    return dict(safetensors.torch.load_file(folder / f"{name}.safetensors"))


@contextmanager
def pair(folder: Path, names: list[str], victim: bool = False) -> Iterator[list[SpawnProcess]]:
    """Two processes that run the cases; their stories appear in the folder."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_rank, args=(rank, folder, names, victim)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _rank(rank: int, folder: Path, names: list[str], victim: bool) -> None:
    torch.set_num_threads(1)
    for name in names:
        with join(
            rank,
            2,
            f"file://{folder}/{name}.meeting",
            host="127.0.0.1",
            timeout_s=1.5 if name == "hung" else 3600,
        ) as peers:
            story = tell(_events(name, peers, victim), partial(_keep, folder, name))
        (folder / f"{name}-{rank}.json").write_text(json.dumps(asdict(story)))


def _keep(folder: Path, name: str, checkpoint: Checkpoint) -> None:
    safetensors.torch.save_file(dict(checkpoint.train_state), folder / f"{name}.safetensors")


def _events(name: str, peers: Peers, victim: bool) -> Iterator[Event]:
    asked = iter(range(10**9))
    reporting.TICK_S = math.inf  # so that every question comes before a step

    def stop_at_seven() -> bool:
        return next(asked) >= 7

    def sleep_at_two() -> bool:
        if next(asked) == 2:
            time.sleep(4)
        return False

    def die_at_seven() -> bool:
        if next(asked) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    should_stop = never
    if peers.rank == 1:
        should_stop = {"stopped": stop_at_seven, "hung": sleep_at_two}.get(name, never)
        if victim:
            should_stop = die_at_seven
    return train(spec_of(**CASES[name]), data(), should_stop=should_stop, peers=peers)
