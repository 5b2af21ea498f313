"""From the trainer's spec to what is asked of a fit."""

from typing import assert_never

import torch
from torch import Tensor

from workers.ica.options import Options
from workers.ica.paper import ITERATIONS
from workers.ica.priors import Laplace, Prior, bimodal, logistic, student_t
from workers.spec import (
    AutoPrior,
    BimodalPrior,
    Ica,
    LaplacePrior,
    LogisticPrior,
    PriorSpec,
    StudentTPrior,
)

_ITERATIONS = 300


def options_of(trainer: Ica, seed: int, given: Tensor | None = None) -> Options:
    """The options of a trainer; ``given`` is an A that goes before its start.

    Where the number of components is not known yet it is 1.
    """
    start: Tensor | str = trainer.start
    if given is not None:
        start = given
    elif trainer.start == "given":
        start = torch.tensor(trainer.mixing, dtype=torch.float64)
    return Options(
        components=trainer.components or 1,
        noise_variance=trainer.noise_variance,
        prior=prior_of(trainer.prior),
        start=start,  # type: ignore[arg-type]
        method="em" if trainer.method == "em" else "ep",
        outer=trainer.outer,
        rescale=trainer.rescale,
        tolerance=trainer.tolerance,
        max_iterations=iterations_of(trainer),
        seed=seed,
    )


def iterations_of(trainer: Ica) -> int:
    """Most iterations of a stage."""
    if trainer.method == "fastica":
        return 1
    return trainer.max_iterations or (ITERATIONS if trainer.method == "paper" else _ITERATIONS)


def prior_of(spec: PriorSpec) -> Prior | None:
    """The density that a spec names, None for one that is to be chosen."""
    match spec:
        case AutoPrior():
            return None
        case LaplacePrior():
            return Laplace()
        case LogisticPrior():
            return logistic()
        case StudentTPrior(degrees=degrees):
            return student_t(degrees)
        case BimodalPrior():
            return bimodal()
        case _:
            assert_never(spec)
