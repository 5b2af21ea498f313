"""What a training job computes: request body, wire format and stored manifest are this one model.

Every field has a unit in its name or its description and a bound, so that a body that validates
cannot ask for unbounded memory. Unions are told apart by ``kind``. A stored spec parses for ever:
a field may be added with a default, never renamed or removed (tests/unit/workers/specs/ keeps
specs of every version).
"""

import hashlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

SCALE_MIN, SCALE_MAX = 1e-4, 1e3
SEED_MAX = 2**53 - 1  # the largest integer that every JSON reader keeps exactly


class SpecModel(BaseModel):
    """A frozen part of a spec: unknown keys, NaN and numbers written as strings are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


# --- spread ---------------------------------------------------------------------------------


class ScaleSchedule(SpecModel):
    """Moves the spread's standard deviation from ``initial_scale`` to ``scale``, then holds it.

    With progress u = epoch / until_epoch in [0, 1]: ``linear`` a + (b − a)u, ``cosine``
    b + (a − b)(1 + cos πu)/2, ``geometric`` a·(b/a)^u.
    """

    kind: Literal["linear", "cosine", "geometric"]
    initial_scale: float = Field(ge=SCALE_MIN, le=SCALE_MAX)
    """Standard deviation at the first step."""
    until_epoch: int = Field(ge=1, le=100_000)
    """The epoch from which the scale is constant."""


class FixedSpread(SpecModel):
    """What the fixed spreads share: y = x + k with independent noise k in every dimension."""

    scale: float = Field(default=0.5, ge=SCALE_MIN, le=SCALE_MAX)
    """Standard deviation of the noise in each dimension, for every kind of noise."""
    schedule: ScaleSchedule | None = None
    """How the scale gets to its value; null holds it constant."""


class GaussianSpread(FixedSpread):
    """Gaussian noise, k ~ N(0, scale² I)."""

    kind: Literal["gaussian"]


class LaplaceSpread(FixedSpread):
    """Laplace noise, p(k) = e^(−|k|/b)/2b with b = scale/√2."""

    kind: Literal["laplace"]


SpreadSpec = Annotated[GaussianSpread | LaplaceSpread, Field(discriminator="kind")]


# --- networks -------------------------------------------------------------------------------

Output = Literal["auto", "sigmoid", "identity"]


class LinearNetwork(SpecModel):
    """Affine encoder and decoder: x = Az + b, q(z|y) = N(Wy + c, diag s²)."""

    kind: Literal["linear"]
    latent_dim: int = Field(default=2, ge=1, le=4096)
    """Dimensions of the latent z."""
    output: Output = "auto"
    """The decoder's last function; auto is sigmoid for pictures and identity for vectors."""


class MlpNetwork(SpecModel):
    """Feed-forward encoder and decoder with LeakyReLU(0.01) between dense layers."""

    kind: Literal["mlp"]
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(strict=False)] = (
        Field(default=(400, 400), min_length=1, max_length=8)
    )
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    latent_dim: int = Field(default=64, ge=1, le=4096)
    """Dimensions of the latent z."""
    output: Output = "auto"
    """The decoder's last function; auto is sigmoid for pictures and identity for vectors."""


class ConvNetwork(SpecModel):
    """Convolutional encoder and decoder of pictures, every layer of stride 2, with ReLU between.

    Encoder: ``channels`` convolutions, then a dense layer. Decoder: a dense layer, transposed
    convolutions with the channels in reverse, the last of them with half the first number, and a
    convolution to the picture's own channels. Height and width must be divisible by 2 to the
    number of layers.
    """

    kind: Literal["conv"]
    channels: Annotated[tuple[Annotated[int, Field(ge=1, le=2048)], ...], Field(strict=False)] = (
        Field(default=(32, 64), min_length=1, max_length=8)
    )
    """Channels of the encoder's convolutions; each of them halves height and width."""
    kernel_size: Literal[3, 5] = 5
    """Height and width of every kernel in pixels."""
    batch_norm: bool = True
    """Batch normalisation after every convolution but the last; over several workers its
    statistics are those of the whole batch. Samples use the running statistics."""
    latent_dim: int = Field(default=64, ge=1, le=4096)
    """Dimensions of the latent z."""
    output: Output = "auto"
    """The decoder's last function; auto is sigmoid for pictures and identity for vectors."""


NetworkSpec = Annotated[LinearNetwork | MlpNetwork | ConvNetwork, Field(discriminator="kind")]


# --- optimiser ------------------------------------------------------------------------------


class ConstantRate(SpecModel):
    """The learning rate stays as it is."""

    kind: Literal["constant"] = "constant"


class CosineRate(SpecModel):
    """The learning rate falls along half a cosine to ``final_fraction`` of itself at the end."""

    kind: Literal["cosine"]
    final_fraction: float = Field(default=0.0, ge=0.0, le=1.0)
    """Last learning rate, as a fraction of the first."""


class StaircaseRate(SpecModel):
    """The learning rate is multiplied by ``factor`` after every ``every_epochs`` epochs."""

    kind: Literal["staircase"]
    every_epochs: int = Field(ge=1, le=100_000)
    """Epochs between two steps of the staircase."""
    factor: float = Field(default=0.5, gt=0.0, le=1.0)
    """What each step multiplies the learning rate by."""


RateSchedule = Annotated[ConstantRate | CosineRate | StaircaseRate, Field(discriminator="kind")]


class Optimizer(SpecModel):
    """Adam (weight decay as an L2 term) or AdamW (decoupled weight decay)."""

    kind: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0.0, le=10.0)
    """Step size of Adam."""
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]],
        Field(strict=False),
    ] = (0.9, 0.999)
    """Decay rates of the running means of the gradient and of its square."""
    weight_decay: float = Field(default=0.0, ge=0.0, le=10.0)
    """Weight decay coefficient."""
    clip_norm: float | None = Field(default=100.0, gt=0.0, le=1e9)
    """Largest Euclidean norm of the whole gradient; null never clips."""
    schedule: RateSchedule = ConstantRate()
    """How the learning rate changes over the run."""
    ema_decay: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Decay of an exponential moving average of the weights, which samples and evaluation then
    use; null uses the weights themselves."""


# --- trainers -------------------------------------------------------------------------------

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


class DeltaVae(GradientTrainer):
    """The δ-VAE: the implicit model x = g(z) trained through a spread KL (section 5 of the paper).

    Not the δ-VAE of Razavi et al. 2019, which is a KL floor against posterior collapse.
    """

    kind: Literal["delta_vae"]
    spread: SpreadSpec = LaplaceSpread(kind="laplace")
    """The spread p(y|x): which noise, and how much of it."""
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


# --- data -----------------------------------------------------------------------------------

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class DatasetRef(SpecModel):
    """What every reference to data carries: its pinned content and how it is split."""

    digest: Digest | None = None
    """Content the job is pinned to; filled in at submission, and checked by the worker."""
    held_out_fraction: float = Field(default=0.1, gt=0.0, le=0.5)
    """Share of the data that training never sees."""
    split_seed: int = Field(default=0, ge=0, le=SEED_MAX)
    """Seed of the split; its own, so that runs with other seeds hold out the same data."""


class NamedDataset(DatasetRef):
    """A data set by its name, see GET /v1/datasets."""

    kind: Literal["named"] = "named"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Name of the data set."""


class ToyDataset(DatasetRef):
    """A small drawn data set of vectors: ``ring``, ``line`` and ``two-moons`` in the plane, and
    ``surface``, the curved sheet in three dimensions of the paper's Figure 1."""

    kind: Literal["ring", "line", "two-moons", "surface"]
    samples: int = Field(default=10_000, ge=20, le=1_000_000)
    """Number of data drawn."""
    noise_std: float = Field(default=0.0, ge=0.0, le=10.0)
    """Standard deviation of Gaussian noise added to the drawn points."""
    seed: int = Field(default=0, ge=0, le=SEED_MAX)
    """Seed of the draw."""


def _dataset_kind(value: Any) -> Any:
    return value.get("kind", "named") if isinstance(value, dict) else getattr(value, "kind", None)


_TOYS = ("ring", "line", "two-moons", "surface")


def _dataset_tag(value: Any) -> str | None:
    kind = _dataset_kind(value)
    return "toy" if kind in _TOYS else kind if kind == "named" else None


DatasetSpec = Annotated[
    Annotated[NamedDataset, Tag("named")] | Annotated[ToyDataset, Tag("toy")],
    Discriminator(
        _dataset_tag,
        custom_error_type="dataset_kind",
        custom_error_message="kind must be one of: named (the default), " + ", ".join(_TOYS),
    ),
]


# --- the whole ------------------------------------------------------------------------------


class Resources(SpecModel):
    """What one attempt reserves on the cluster."""

    workers: int = Field(default=1, ge=1, le=1)
    """Worker processes; one in this version."""
    cpus_per_worker: int = Field(default=1, ge=1, le=1024)
    """Cores, and torch threads, of each worker."""
    gpus_per_worker: int = Field(default=0, ge=0, le=64)
    """GPUs of each worker."""


class TrainSpec(SpecModel):
    """One training run, complete: the same spec gives the same weights."""

    kind: Literal["train"] = "train"
    version: Literal[1] = 1
    """Version of this format."""
    seed: int = Field(default=0, ge=0, le=SEED_MAX)
    """Seed of initial weights, data order, noise and latents."""
    dataset: DatasetSpec
    trainer: TrainerSpec
    resources: Resources = Resources()
    checkpoint_every_epochs: int = Field(default=5, ge=1, le=100_000)
    """Epochs between two checkpoints; the last epoch always has one."""
    checkpoint_at_epochs: Annotated[
        tuple[Annotated[int, Field(ge=1, le=100_000)], ...], Field(strict=False)
    ] = Field(default=(1,), max_length=64)
    """Epochs that have a checkpoint besides; these are never thinned out."""
    keep_checkpoints: int = Field(default=16, ge=3, le=1000)
    """How many of the regular checkpoints are kept; the others are thinned evenly. The first, the
    last two and the best stay; the train state is kept of the last two."""

    def digest(self) -> str:
        """Identity of the computation: data, trainer, seed; not resources, limits or cadence."""
        content = self.model_dump_json(include={"version", "seed", "dataset", "trainer"})
        return "sha256:" + hashlib.sha256(content.encode()).hexdigest()
