"""How many components: the number with the highest evidence on data that the fit has not seen."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workers.ica.failures import Unfit
from workers.ica.fit import Fitted, run
from workers.ica.options import Options
from workers.ica.priors import Priors
from workers.ica.shard import Shard
from workers.ica.sums import Model, expect, log_evidence
from workers.parallel import ALONE, Peers

_ROWS = 5_000
_HELD_OUT_EVERY = 5
_PATIENCE = 2  # numbers in a row that were no better, before no more are tried
_TOLERANCE = 1e-4
_MOST = 64
_SWEEPS = 3


@dataclass(frozen=True, slots=True)
class Count:
    """The chosen number, and the held-out log evidence in nats a datum of each that was tried."""

    components: int
    held_out: dict[int, float]


def count_components(
    rows: Tensor, options: Options, *, peers: Peers = ALONE, most: int = _MOST
) -> Count:
    """Try 1, 2, … components on a fixed part of the data; ``options.components`` is not read.

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
    scores: dict[int, float] = {}
    for number in range(1, min(most, rows.shape[1] - 1, len(train) - 1) + 1):
        try:
            fitted = run(train, replace(quick, components=number))
        except Unfit as failure:
            if failure.reason != "collapsed_component":
                raise
            break
        scores[number] = _score(held_out, fitted)
        best = max(scores, key=lambda tried: scores[tried])
        if number - best >= _PATIENCE:
            break
    return Count(max(scores, key=lambda tried: scores[tried]), scores)


def _rank(rows: Tensor) -> int:
    centred = rows.double() - rows.double().mean(0)
    return int(torch.linalg.matrix_rank(centred, hermitian=False, rtol=1e-5))


def _score(rows: Tensor, fitted: Fitted) -> float:
    shard = Shard(rows, fitted.mean, 0, len(rows))
    model = Model(fitted.mixing, fitted.noise_variance, Priors(fitted.priors))
    sums = expect(shard, model, _SWEEPS, torch.float64)
    score = log_evidence(sums, model, shard.scatter())
    return score if math.isfinite(score) else -math.inf
