"""What a spare process has not imported, before and after attempts that need nothing of it."""

import subprocess
import sys
from pathlib import Path

# Of seconds and tens of megabytes each: torch's compiler, what it reasons with, and statistics.
_SLOW = ("torch._dynamo", "sympy", "torch.fx.experimental.symbolic_shapes")
_STATISTICS = ("scipy", "sklearn", "pandas", "matplotlib")

_SCRIPT = f"""
import sys

import torch

import workers.run
from workers.data import Dataset, DatasetInfo
from workers.kinds import resolve, train
from workers.spec import TrainSpec
from workers.warm_up import warm_up

def slow():
    return [name for name in {_SLOW + _STATISTICS} if name in sys.modules]

warm_up()
print(*slow(), "warm", flush=True)
spec = TrainSpec.model_validate({{
    "dataset": {{"name": "invented"}},
    "trainer": {{
        "kind": "delta_vae",
        "network": {{"kind": "conv", "channels": [2, 3], "latent_dim": 2}},
        "epochs": 3,
        "batch_size": 30,
        "precision": "bfloat16",
        "optimizer": {{"kind": "adamw", "ema_decay": 0.9, "clip_norm": 10.0}},
        "learned_spread": {{
            **{{"every_epochs": 1, "noise_steps": 2, "encoder_steps": 1}},
            "covariance": {{"kind": "low_rank", "rank": 2}},
            "mean_transform": {{"kind": "conv", "blocks": 1, "channels": 2}},
        }},
        "quality": {{"at": "checkpoints", "samples": 100, "components": 4}},
    }},
}})
info = DatasetInfo(
    name="invented",
    title="",
    shape=(8, 8),
    count=240,
    is_image=True,
    digest="sha256:" + "0" * 64,
    available=True,
    detail="",
)
rows = torch.randint(0, 256, (240, 64), dtype=torch.uint8)
for _ in train(resolve(spec, info), Dataset(info, *rows.split((120, 120)))):
    pass
print(*slow(), "trained", flush=True)
"""


def test_neither_a_spare_nor_a_training_imports_compilers_and_statistics() -> None:
    said = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
        cwd=Path(__file__).parents[3],
    )
    assert said.stdout.splitlines() == ["warm", "trained"]
