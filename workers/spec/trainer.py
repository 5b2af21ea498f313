"""What is trained, and how: the trainers by stochastic gradients."""

from typing import Annotated, Literal

from pydantic import Field

from workers.spec.base import SpecModel
from workers.spec.learned import LearnedSpread
from workers.spec.network import MlpNetwork, NetworkSpec
from workers.spec.optimizer import Optimizer
from workers.spec.quality import Quality
from workers.spec.spread import GaussianSpread, LaplaceSpread, SpreadSpec

Estimator = Literal["naive", "antithetic", "clean_target"]
MetricName = Literal["excess_nats", "elbo_nats", "reconstruction_nats", "kl_nats", "loss_nats"]


class EarlyStopping(SpecModel):
    """Ends the run when ``metric`` has not improved for ``patience`` evaluations in a row."""

    metric: MetricName = "excess_nats"
    """A held-out metric, see the events of kind ``metrics``; those with the prefix
    ``held_out_`` are meant here."""
    patience: int = Field(default=5, ge=1, le=10_000)
    """Evaluations without improvement that are borne."""
    min_delta: float = Field(default=0.0, ge=0.0)
    """The least change, in nats, that counts as an improvement."""


class GradientTrainer(SpecModel):
    """What the trainers by stochastic gradients share."""

    network: NetworkSpec = MlpNetwork(kind="mlp")
    """Encoder and decoder."""
    optimizer: Optimizer = Optimizer()
    """The optimiser and its schedules."""
    epochs: int = Field(default=60, ge=1, le=100_000)
    """Passes over the training split."""
    batch_size: int = Field(default=100, ge=1, le=65_536)
    """Data in one step, over all workers together."""
    noise_samples: int = Field(default=1, ge=1, le=64)
    """Noise draws for each datum in a step (delta_vae), or latent draws (vae)."""
    importance_samples: int = Field(default=1, ge=1, le=128)
    """Latents for each y in an importance-weighted bound; 1 is the ELBO."""
    log_std_bound: float = Field(default=8.0, gt=0.0, le=20.0)
    """The log of the posterior's standard deviation is clamped to ± this."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the networks in a training step. bfloat16 halves the memory of activations and
    is faster where the hardware has it; products then carry 8 significant bits, so losses differ
    in the third digit or so. Weights, likelihoods, the KL term, batch statistics, evaluation and
    samples stay float32."""
    early_stopping: EarlyStopping | None = None
    """Ends the run when a held-out metric stops improving; null runs all epochs."""
    best_metric: MetricName = "excess_nats"
    """The held-out metric by which ``checkpoint=best`` is chosen."""
    evaluate_every_epochs: int = Field(default=1, ge=1, le=100_000)
    """Epochs between two evaluations on the held-out split."""
    grid_every_epochs: int = Field(default=5, ge=1, le=100_000)
    """Epochs between two sample grids."""
    quality: Quality | None = None
    """Measures of the samples against held-out data; null takes none."""


class DeltaVae(GradientTrainer):
    """The δ-VAE: the implicit model x = g(z) trained through a spread KL (section 5 of the paper).

    Not the δ-VAE of Razavi et al. 2019, which is a KL floor against posterior collapse.
    """

    kind: Literal["delta_vae"]
    spread: SpreadSpec = LaplaceSpread(kind="laplace")
    """The spread p(y|x): which noise, and how much of it."""
    learned_spread: LearnedSpread | None = None
    """What of the spread is learned, on top of the noise; null keeps it as it is."""
    estimator: Estimator = "naive"
    """``naive`` uses y in both places and is exact; ``antithetic`` pairs x + k with x − k, exact
    too, at twice the cost; ``clean_target`` puts the clean x into log p and is biased."""
    warm_up_epochs: int = Field(default=0, ge=0, le=100_000)
    """First epochs trained as a plain VAE: clean data, noise on the model only."""


class Vae(GradientTrainer):
    """The baseline: a plain VAE, clean data and observation noise on the model only."""

    kind: Literal["vae"]
    observation: SpreadSpec = GaussianSpread(kind="gaussian")
    """The observation noise p(x|z), a distribution around g(z)."""


TrainerSpec = Annotated[DeltaVae | Vae, Field(discriminator="kind")]
