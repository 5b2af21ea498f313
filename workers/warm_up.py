"""Paying for a process's first use of its libraries before there is anything to train."""

import torch

from workers.data import Dataset, DatasetInfo
from workers.spec import TrainSpec
from workers.train import train


def warm_up() -> None:
    """Train on a few invented pictures and forget them.

    The first use of torch's layers, gradients and kernels and of the PNG encoder comes here, so
    that the first step of a real attempt comes at once. The service, which imports the same
    modules, does not need it; nor does an attempt before it needs them what takes longer than all
    this to import, such as scikit-learn.
    """
    spec = TrainSpec.model_validate(
        {
            "dataset": {"name": "warm-up"},
            "trainer": {
                "kind": "delta_vae",
                "network": {"kind": "mlp", "hidden": [4], "latent_dim": 1},
                "epochs": 1,
                "batch_size": 4,
            },
        }
    )
    info = DatasetInfo(
        name="warm-up",
        title="",
        shape=(4, 4),
        count=20,
        is_image=True,
        digest="sha256:" + "0" * 64,
        available=True,
        detail="",
    )
    train_split, held_out = torch.zeros(20, 16, dtype=torch.uint8).split((18, 2))
    for _ in train(spec, Dataset(info, train_split, held_out)):
        pass
