"""What a study asks for: the body of POST /v1/studies, and what is stored of it."""

from collections.abc import Collection
from itertools import count, islice
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from service.studies.space import Space
from workers.spec import JobSpec
from workers.spec.base import SEED_MAX, SpecModel

SEEDS_MAX, TRIALS_MAX = 100, 10_000
FRESH_SEEDS = 5
Seed = Annotated[int, Field(ge=0, le=SEED_MAX)]


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise PydanticCustomError("repeated_seed", "must not have a seed twice")
    return seeds


Seeds = Annotated[
    tuple[Seed, ...],
    Field(
        strict=False,
        min_length=1,
        max_length=SEEDS_MAX,
        json_schema_extra={"uniqueItems": True},
    ),
    AfterValidator(_distinct),
]


class Objective(SpecModel):
    """What the trials are ranked by."""

    metric: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")
    """A metric of the trainer, see the events of kind ``metrics``."""
    mode: Literal["min", "max"]
    """Whether less or more of it is better."""


class RandomSearch(SpecModel):
    """Independent draws from the space."""

    kind: Literal["random"]


class GridSearch(SpecModel):
    """Every configuration of a space whose dimensions are all finite."""

    kind: Literal["grid"]


class TpeSearch(SpecModel):
    """Tree-structured Parzen estimators (Bergstra et al., 2011)."""

    kind: Literal["tpe"]
    startup_trials: int = Field(default=10, ge=1, le=1000)
    """Random configurations before the model is believed."""


class GpSearch(SpecModel):
    """Bayesian optimisation with a Gaussian process."""

    kind: Literal["gp"]
    startup_trials: int = Field(default=10, ge=1, le=1000)
    """Random configurations before the model is believed."""


class CmaEsSearch(SpecModel):
    """CMA-ES (Hansen and Ostermeier, 2001), for numbers alone."""

    kind: Literal["cma_es"]


class NoScheduler(SpecModel):
    """Every trial runs to its end."""

    kind: Literal["none"]


class Asha(SpecModel):
    """Asynchronous successive halving (Li et al., 2020)."""

    kind: Literal["asha"]
    grace_epochs: int = Field(ge=1, le=100_000)
    """No trial is stopped before this epoch."""
    reduction_factor: float = Field(default=3.0, gt=1.0, le=100.0)
    """Of the trials at a rung, one in so many goes on."""


class HyperBand(SpecModel):
    """HyperBand (Li et al., 2018)."""

    kind: Literal["hyperband"]
    reduction_factor: float = Field(default=3.0, gt=1.0, le=100.0)
    """Of the trials at a rung, one in so many goes on."""


class MedianStopping(SpecModel):
    """Stops trials that are worse than the median of the others' means (Golovin et al., 2017)."""

    kind: Literal["median"]
    grace_epochs: int = Field(ge=1, le=100_000)
    """No trial is stopped before this epoch."""
    min_trials: int = Field(default=3, ge=1, le=1000)
    """Trials that a median needs."""


class Pbt(SpecModel):
    """Population-based training (Jaderberg et al., 2017), over the spread's scale.

    Its answer is a schedule of the scale, not a value.
    """

    kind: Literal["pbt"]
    interval_epochs: int = Field(ge=1, le=100_000)
    """Epochs between two exchanges."""
    quantile: float = Field(default=0.25, gt=0.0, le=0.5)
    """The share of trials that copy, and that are copied."""


Search = Annotated[
    RandomSearch | GridSearch | TpeSearch | GpSearch | CmaEsSearch, Field(discriminator="kind")
]
Scheduler = Annotated[
    NoScheduler | Asha | HyperBand | MedianStopping | Pbt, Field(discriminator="kind")
]


class Budget(SpecModel):
    """What a study may use; the search ends with whatever is reached first."""

    trials: int = Field(ge=1, le=TRIALS_MAX)
    """Configurations that are tried, each with every seed."""
    max_wall_s: float | None = Field(default=None, gt=0, le=31_536_000)
    """Seconds in which any trial of the search has an attempt; the confirmation comes on top."""
    max_epochs: int | None = Field(default=None, ge=1, le=10**12)
    """Epochs of all trials of the search together; the confirmation comes on top."""


class Confirmation(SpecModel):
    """The best configurations are trained again on fresh seeds, and those alone give the interval.

    The best of many noisy results is too good to be true; a fresh one is not.
    """

    top: int = Field(default=3, ge=1, le=100)
    """Configurations that are trained again."""
    seeds: Seeds = (1, 2, 3, 4, 5)
    """Seeds of the search itself must not be among them. Without it: the five smallest that are
    not."""


class Unhealthy(SpecModel):
    """Stops trials whose latents carry nothing of the data: with the reason `posterior_collapse`
    where no latent has 0.01 nats of it on average (`informative_units` is 0), and `dead_latents`
    where too few are active (`active_units`, those whose posterior mean has a variance above 0.01
    over held-out data; Burda et al., 2016)."""

    evaluations: int = Field(default=3, ge=1, le=1000)
    """So many evaluations in a row must say so."""
    active_share: float = Field(default=0.05, ge=0.0, le=1.0)
    """Latents are dead where a smaller share of them than this is active; 0 looks for a collapse
    alone."""


def fresh_seeds(used: Collection[int]) -> tuple[int, ...]:
    """The five smallest positive seeds that a search does not use."""
    return tuple(islice((seed for seed in count(1) if seed not in used), FRESH_SEEDS))


def _with_fresh_seeds(confirmation: Confirmation, info: ValidationInfo) -> Confirmation:
    """What is stored has its seeds, so that a later default changes nothing."""
    if "seeds" in confirmation.model_fields_set:
        return confirmation
    return confirmation.model_copy(update={"seeds": fresh_seeds(info.data.get("seeds", ()))})


class StudyRequest(SpecModel):
    """A search over specs, whose trials are jobs."""

    name: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
    """A name for people."""
    spec: JobSpec
    """The base: what the space does not change."""
    space: Space
    """What is searched: JSON pointers into the spec, and the values there."""
    objective: Objective
    """What ranks the trials."""
    second_objective: Objective | None = None
    """What is traded off against it, for a Pareto front."""
    search: Search = RandomSearch(kind="random")
    """How configurations are chosen."""
    scheduler: Scheduler = NoScheduler(kind="none")
    """Which trials are stopped early."""
    stop_unhealthy: Unhealthy | None = None
    """Which trials of the search are stopped for their models' health, besides; null: none is."""
    budget: Budget
    """How much may be used."""
    concurrency: int = Field(default=1, ge=1, le=1000)
    """Trials at one time."""
    seeds: Seeds = (0,)
    """Every configuration of the search is trained with each of them."""
    confirmation: Annotated[Confirmation, AfterValidator(_with_fresh_seeds)] = Field(
        default=Confirmation(), validate_default=True
    )
    """What is trained again for the answer."""
    override_guard: bool = False
    """Rank by the objective though the study tunes what it depends on; the study is marked so."""
