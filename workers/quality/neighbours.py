r"""Measures by nearest neighbours: what of the data is covered, and what is copied.

With B_k(x) the ball around x up to its k-th nearest neighbour in its own sample:

=========  ============================================================
precision  share of samples in the ball of some datum
recall     share of data in the ball of some sample
density    mean number of data's balls that a sample is in, divided by k
coverage   share of data whose ball holds some sample
=========  ============================================================

Precision and recall with k = 3 (Kynkäänniemi et al., 2019), density and coverage with k = 5 (Naeem
et al., 2020). For equal distributions density is 1 and coverage near 1 − 2^{−k}.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.metrics import as_float

K_SUPPORT, K_COVERAGE = 3, 5
_ROWS_AT_ONCE = 512
_NOTHING = 1e-12


@dataclass(frozen=True, slots=True)
class Support:
    """Precision, recall, density and coverage."""

    precision: float
    recall: float
    density: float
    coverage: float


def support(samples: Tensor, data: Tensor) -> Support:
    """The four measures for features of shape (N, F) and (M, F), each more than 5 rows."""
    between = torch.cdist(samples.double(), data.double())
    own, of_data = (torch.cdist(x.double(), x.double()).sort(1).values for x in (samples, data))
    # Column 0 is the distance to itself.
    inside = between <= of_data[:, K_COVERAGE]
    return Support(
        precision=_share((between <= of_data[:, K_SUPPORT]).any(1)),
        recall=_share((between <= own[:, K_SUPPORT, None]).any(0)),
        density=float(inside.double().sum(1).mean() / K_COVERAGE),
        coverage=_share(inside.any(0)),
    )


def nearest_distances(rows: Tensor, train: Tensor) -> Iterator[Tensor]:
    """Euclidean distances of each row to the nearest training datum, block by block of these.

    Each yield is the best so far, shape (N,); the last one is the answer.
    """
    x = as_float(rows).double()  # float32 would lose the distance of what was almost copied
    best = torch.full((len(x),), float("inf"), device=x.device, dtype=torch.float64)
    for block in train.split(_ROWS_AT_ONCE):
        best = torch.minimum(best, torch.cdist(x, as_float(block).double()).amin(1))
        yield best


def memorisation(samples: Tensor, held_out: Tensor) -> float:
    """Median distance of samples to the nearest training datum, over that of held-out data.

    Near 0 the samples are copies of training data; 1 is what new data have. Where half of the
    held-out data are copies themselves, it says nothing, and is very large.
    """
    return float(samples.median() / held_out.median().clamp_min(_NOTHING))


def _share(yes: Tensor) -> float:
    return float(yes.double().mean())
