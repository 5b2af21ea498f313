"""What is asked of a fit, and the stages that follow from it."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workers.ica.priors import Prior

Rule = Literal["scoring", "anderson", "squarem", "em"]
Outer = Literal["scoring", "anderson"]
Rescale = Literal["contradicted", "always", "never"]

SEARCH_ROWS = 20_000  # that the start and the search see of longer data
_RANDOM_ROWS = 2_000  # that see the way from a random start
_SPREADS = (1.0, 0.5, 0.2)  # σ over rms(A), on the way from a random start
_SMOOTH = 2.0  # width·√N of the sources' own spread in the last stages
_WIDEST = 0.1
_SEARCH_TURNS = 40  # at most, of a stage that another one follows
_CHOICES = 5  # of choosing priors anew, from a random start with automatic priors
SEARCH, LAST = torch.float32, torch.float64


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of a fit.

    ``noise_variance`` is γ², None where it is to be estimated; ``prior`` None chooses one per
    source; ``start`` names a start or is a mixing matrix (X, Z). ``outer`` is the loop around the
    EP E-step: the scoring step at σ = 0, or Anderson acceleration of spread EM. ``rescale`` says
    which columns of A get a source of unit posterior variance: those whose prior the data
    contradict, all, or none. ``width`` is the priors' softening in the end, None for the rule of
    :func:`smoothing`. ``max_iterations`` bounds each stage.
    """

    components: int
    noise_variance: float | None = None
    prior: Prior | None = None
    start: Literal["fastica", "random"] | Tensor = "fastica"
    method: Literal["ep", "em"] = "ep"
    outer: Outer = "scoring"
    rescale: Rescale = "contradicted"
    tolerance: float = 1e-6
    max_iterations: int = 300
    seed: int = 0
    width: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One leg of a fit: which data, which objective, which step, and when it is over.

    ``rows`` None is all data. ``spread`` is σ over rms(A), drawn and kept for the stage; ``width``
    softens the priors, which is a spread of the sources without draws. ``chooses`` picks the
    priors anew at its start.
    """

    rule: Rule
    rows: int | None
    spread: float
    width: float
    dtype: torch.dtype
    tolerance: float
    max_iterations: int
    chooses: bool


def smoothing(total: int) -> float:
    """The softening that leaves some hundreds of data on a Laplace prior's bend.

    Without noise its log evidence has a kink at every datum, and its maximum is no better an
    estimate than that of the smoothed one: the error of A falls by 3% at N = 1000 (measured).
    """
    return min(_WIDEST, _SMOOTH / math.sqrt(total))


def stages(options: Options, total: int) -> tuple[Stage, ...]:
    """The legs of a fit of ``total`` data."""
    chooses = options.prior is None
    tolerance, limit = options.tolerance, options.max_iterations
    if options.method == "em":
        return (Stage("em", None, 0.0, 0.0, LAST, tolerance, limit, chooses),)
    width = smoothing(total) if options.width is None else options.width
    short = min(limit, _SEARCH_TURNS)
    legs: list[Stage] = []
    if isinstance(options.start, str) and options.start == "random":
        legs += _from_random(options, chooses)
    if total > 2 * SEARCH_ROWS:
        wide = smoothing(SEARCH_ROWS)
        legs.append(Stage("scoring", SEARCH_ROWS, 0.0, wide, SEARCH, 1e-3, short, chooses))
    if options.outer == "anderson":
        legs.append(Stage("anderson", None, 0.2, 0.0, SEARCH, 1e-4, limit, chooses))
        legs.append(Stage("anderson", None, 0.2, 0.0, LAST, tolerance, limit, False))
    else:
        legs.append(Stage("scoring", None, 0.0, width, SEARCH, 1e-3, short, chooses))
        legs.append(Stage("scoring", None, 0.0, width, SEARCH, 1e-4, short, chooses))
        legs.append(Stage("scoring", None, 0.0, width, LAST, tolerance, limit, False))
    return tuple(legs)


def _from_random(options: Options, chooses: bool) -> list[Stage]:
    rows = _RANDOM_ROWS
    if options.outer == "anderson":
        return [
            Stage("squarem", rows, spread, 0.0, SEARCH, 1e-4, 100, chooses) for spread in _SPREADS
        ]
    turns = _CHOICES if chooses else 1
    first = [
        Stage("scoring", rows, 0.0, 0.5, SEARCH, 1e-2, 60 if turns == 1 else 12, chooses)
        for _ in range(turns)
    ]
    return [*first, Stage("scoring", rows, 0.0, smoothing(rows), SEARCH, 1e-2, 60, chooses)]
