"""Figure 6: colour pictures from a VAE, and from δ-VAEs with fixed, learned and Laplace spread.

The same latents side by side, with measures that do not depend on the noise below (section 5). At
scale ``paper`` the network, the noise and the rates are those of the authors' code for CelebA:
the VAE's observation noise has variance 0.5, the spread σ = 0.5, and the mean transform is learned
from epoch 200 on, as its arm is the fixed one until then. Epochs after that and seeds are ours. At
scale ``quick`` pictures are reduced, and the network is small.

On CelebA the paper has Fréchet Inception distances of 63.0 (VAE), 52.7 (fixed) and 46.5 (learned).
Its arms have different noise, which a comparison of trainings should keep in mind.
"""

from collections.abc import Mapping
from typing import Any

from workers.errors import SpecMismatch
from workers.paper.arms import Arm, Pictures, Setting
from workers.paper.base import Asked, Scale
from workers.paper.samples_figure import Claim, SamplesFigure

OBSERVATION = 0.5**0.5  # standard deviation of the VAE's noise
SCALE = 0.5  # σ of the spreads
FID = {"vae": 63.0, "fixed": 52.7, "learned": 46.5}  # on CelebA, of 10,000 samples (Table 1)

SETTINGS: Mapping[Scale, Setting] = {
    "quick": Setting(
        train=1500,
        reference=500,
        repetitions=1,
        trainer={
            "network": {
                "kind": "conv",
                "channels": [16, 32, 64],
                "kernel_size": 3,
                "latent_dim": 32,
            },
            "batch_size": 50,
            "epochs": 20,
            "quality": {"samples": 1000},
        },
        rounds={
            "mean_transform": {"kind": "conv", "blocks": 2, "layers": 2, "channels": 4},
            "learning_rate": 1e-3,
            "first_epoch": 10,
            "every_epochs": 2,
            "noise_steps": 30,
            "encoder_steps": 10,
        },
        reduces=True,
    ),
    "paper": Setting(
        train=182_599,
        reference=20_000,
        repetitions=5,
        trainer={
            "network": {"kind": "conv", "channels": [128, 256, 512, 1024], "latent_dim": 100},
            "optimizer": {"learning_rate": 1e-4},
            "batch_size": 100,
            "epochs": 300,
            "quality": {"samples": 10_000},
        },
        rounds={
            "mean_transform": {"kind": "conv"},
            "learning_rate": 1e-5,
            "first_epoch": 200,
            "every_epochs": 10,
            "noise_steps": 1000,
            "encoder_steps": 100,
        },
    ),
}


def arms(setting: Setting) -> tuple[Arm, ...]:
    """The four trainings; costs are those of scale ``quick``, on one core of a server of 2023."""
    laplace, gaussian = ({"kind": kind, "scale": SCALE} for kind in ("laplace", "gaussian"))
    delta_vae: Mapping[str, Any] = {"kind": "delta_vae", "spread": gaussian}
    observation = {"kind": "gaussian", "scale": OBSERVATION}
    return (
        Arm("vae", "VAE, σ² = 0.5", {"kind": "vae", "observation": observation}, 15.0),
        Arm("fixed", f"δ-VAE, Gaussian spread, σ = {SCALE:g}", delta_vae, 14.0),
        Arm(
            "learned",
            "δ-VAE, Gaussian spread with learned mean transform",
            {**delta_vae, "learned_spread": setting.rounds},
            37.0,
        ),
        Arm("laplace", "δ-VAE, Laplace spread", {**delta_vae, "spread": laplace}, 15.0),
    )


def pictures(asked: Asked, setting: Setting) -> Pictures:
    """What is asked; raises SpecMismatch where it is no set of colour pictures of a fit size."""
    shape, layers = asked.shape, len(setting.trainer["network"]["channels"])
    if asked.data is None:
        raise SpecMismatch(
            "/dataset",
            "figure 6 needs colour pictures, and none are shipped; name celeba, or upload some",
        )
    if len(shape) != 3 or shape[2] != 3:
        raise SpecMismatch(
            "/dataset", "figure 6 needs colour pictures; name celeba, or upload some"
        )
    if any(side % 2**layers for side in shape[:2]):
        raise SpecMismatch(
            "/dataset",
            f"figure 6 needs pictures whose sides can be halved {layers} times, and these are "
            f"{shape[0]}×{shape[1]}; upload them as 64×64",
        )
    return Pictures(asked.data, shape)


def _published(first: str, second: str) -> str:
    return f"FID {FID[first]} against {FID[second]} on CelebA, at noise of each arm's own"


FIGURE_6 = SamplesFigure(
    name="6",
    title="Colour pictures at the same latents: VAE, fixed, learned and Laplace spread",
    source="Figure 6, Table 1, footnote 11",
    arms=arms,
    claims=(
        Claim(
            "fixed",
            "vae",
            "A δ-VAE with fixed spread is nearer the data than a VAE",
            _published("fixed", "vae"),
        ),
        Claim(
            "learned",
            "fixed",
            "A learned mean transform is nearer the data than a fixed one",
            _published("learned", "fixed"),
        ),
        Claim(
            "laplace",
            "fixed",
            "Laplace spread is nearer the data on colour than Gaussian",
            "footnote 11, outside its table",
        ),
    ),
    settings=SETTINGS,
    pictures=pictures,
    published=FID,
)
