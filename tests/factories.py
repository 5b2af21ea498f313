"""Small real things to test with."""

from typing import Any

from service.jobs import JobRequest
from workers.kinds import AnySpec
from workers.spec import IcaSpec, PaperSpec, TrainSpec


def tiny_spec(**trainer: Any) -> TrainSpec:
    """A spec that trains in a fraction of a second: the line toy, three epochs of four steps."""
    return TrainSpec.model_validate(
        {
            "dataset": {"kind": "line", "samples": 100},
            "trainer": {
                "kind": "delta_vae",
                "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2},
                "epochs": 3,
                "batch_size": 25,
                **trainer,
            },
        }
    )


def long_spec(epochs: int = 100_000) -> TrainSpec:
    """A spec that trains until it is stopped, with a checkpoint often."""
    spec = tiny_spec(epochs=epochs, evaluate_every_epochs=100_000, grid_every_epochs=100_000)
    return spec.model_copy(update={"checkpoint_every_epochs": 100})


def ica_spec(samples: int = 1000, noise_std: float = 0.2, **trainer: Any) -> IcaSpec:
    """A fit that takes a fraction of a second: 5 dimensions, 2 components."""
    return IcaSpec.model_validate(
        {
            "dataset": {
                "kind": "laplace-ica",
                "dimensions": 5,
                "components": 2,
                "samples": samples,
                "noise_std": noise_std,
                "seed": 1,
            },
            "trainer": {"kind": "ica", "components": 2, **trainer},
        }
    )


def paper_spec(figure: str = "mixture", **trainer: Any) -> PaperSpec:
    """A figure of the paper; ``mixture`` has ten parts, which take 0.1 s, and is drawn in 1 s."""
    return PaperSpec.model_validate({"trainer": {"kind": "paper", "figure": figure, **trainer}})


def request(spec: AnySpec | None = None, **fields: Any) -> JobRequest:
    """A job request around a spec."""
    return JobRequest.model_validate({"spec": (spec or tiny_spec()).model_dump(), **fields})
