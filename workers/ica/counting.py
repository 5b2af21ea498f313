"""How many components: as long as one more raises the evidence of data that the fit has not seen.

More must raise it by more than chance, as one that fits nothing costs almost nothing either.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workers.ica.ep import posterior
from workers.ica.failures import Unfit
from workers.ica.fit import run
from workers.ica.options import Options
from workers.ica.priors import Priors
from workers.ica.results import Solution
from workers.ica.shard import Shard
from workers.ica.sums import Model
from workers.parallel import ALONE, Peers

_ROWS = 5_000
_HELD_OUT_EVERY = 5
_ERRORS = 3.0  # standard errors of the paired gain that one more component needs
_PATIENCE = 2  # numbers in a row that were no better, before no more are tried
_TOLERANCE = 1e-4
MOST = 64
_SWEEPS = 10


@dataclass(frozen=True, slots=True)
class Count:
    """The chosen number, and the held-out log evidence in nats a datum of each that was tried."""

    components: int
    held_out: dict[int, float]


def _nothing() -> None:
    pass


def count_components(
    rows: Tensor,
    options: Options,
    *,
    peers: Peers = ALONE,
    most: int = MOST,
    attend: Callable[[], None] = _nothing,
) -> Count:
    """Try 1, 2, … components on a fixed part of the data; ``options.components`` is not read.

    ``attend`` is called before each number; what it raises ends the search.

    The noise must be known and positive, or estimated: without noise the evidence of different
    numbers is of different spaces, and the number is the data's rank. Raises Unfit as a fit does.
    """
    some = Shard.of(rows, peers).thinned(_ROWS, peers)
    is_held_out = torch.arange(len(some.rows)) % _HELD_OUT_EVERY == 0
    train, held_out = some.rows[~is_held_out], some.rows[is_held_out]
    rank = _rank(train)
    if options.noise_variance == 0 or rank < rows.shape[1]:
        return Count(rank, {})
    quick = replace(options, tolerance=_TOLERANCE)
    held: dict[int, Tensor] = {}
    best = 1
    for number in range(1, min(most, rows.shape[1] - 1, len(train) - 1) + 1):
        attend()
        try:
            fitted = run(train, replace(quick, components=number))
        except Unfit as failure:
            if failure.reason in ("collapsed_component", "rank_deficient"):
                break
            raise
        held[number] = evidence_of(held_out, fitted)
        gain = held[number] - held[best]
        if gain.mean() > _ERRORS * gain.std() / math.sqrt(len(gain)):
            best = number
        if number - best >= _PATIENCE:
            break
    return Count(best, {number: score.mean().item() for number, score in held.items()})


def _rank(rows: Tensor) -> int:
    centred = rows.double() - rows.double().mean(0)
    return int(torch.linalg.matrix_rank(centred, hermitian=False, rtol=1e-5))


def evidence_of(rows: Tensor, fitted: Solution) -> Tensor:
    """log p(x) in nats of each of ``rows`` (n, X); noise must be positive."""
    model = Model(fitted.mixing, fitted.noise_variance, Priors(fitted.priors))
    y = (rows.double() - fitted.mean).T
    s = model.unmixing() @ y
    found = posterior(s, model.projected_covariance(), model.priors, _SWEEPS)
    x, z = fitted.mixing.shape
    outside = (y - fitted.mixing @ s).square().sum(0) / model.variance
    log_norm = (x - z) * math.log(2 * math.pi * model.variance)
    log_volume = torch.logdet(fitted.mixing.T @ fitted.mixing)
    return found.log_evidence - (log_volume + log_norm + outside) / 2
