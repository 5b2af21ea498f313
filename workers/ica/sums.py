"""The E-step over all data: sums over chunks and shards, and nothing else kept.

X data dimensions, Z sources. The sums are one flat float64 vector, so that one all-reduce makes a
sharded E-step the whole one, and data of any length need the memory of one chunk.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.ica.ep import Posterior, point, posterior
from workers.ica.priors import Priors
from workers.ica.shard import Shard
from workers.parallel import ALONE, Peers

_LOG_2_PI = math.log(2 * math.pi)
# Elements of the largest temporary, (Z, Z, n): about what a core's second-level cache holds.
_CHUNK_ELEMENTS = 1 << 17


@dataclass(frozen=True, slots=True)
class Model:
    """x = Az + √v·N(0, I): mixing A (X, Z) in float64, v = γ² + σ², and the sources' priors."""

    mixing: Tensor
    variance: float
    priors: Priors

    def unmixing(self) -> Tensor:
        """W = (AᵀA)⁻¹Aᵀ, (Z, X)."""
        unmixing: Tensor = torch.linalg.pinv(self.mixing)
        return unmixing

    def projected_covariance(self) -> Tensor:
        """C = v(AᵀA)⁻¹, (Z, Z), the noise of Wx."""
        w = self.unmixing()
        return self.variance * (w @ w.T)


@dataclass(frozen=True, slots=True)
class Sums:
    """Means over the data, in float64.

    ``evidence`` is of the projections alone, ``moved`` of the squared last moves of posterior
    means, ``score`` of ψmᵀ + ΠV, ``ym`` of ymᵀ, ``mm`` of mmᵀ, ``vv`` of V. For the metric of the
    scoring step, per source: ``slope`` of the effective curvature c = π − π²V_ii of the log
    evidence in s, ``bend`` of c·m², ``pull`` of ψm.
    """

    count: int
    evidence: float
    moved: float
    score: Tensor
    ym: Tensor
    mm: Tensor
    vv: Tensor
    slope: Tensor
    bend: Tensor
    pull: Tensor

    @property
    def zz(self) -> Tensor:
        """Mean of E[zzᵀ]."""
        return self.mm + self.vv


def expect(
    shard: Shard, model: Model, sweeps: int, dtype: torch.dtype, peers: Peers = ALONE
) -> Sums:
    """One E-step over the data of all workers, with ``sweeps`` of EP from cold."""
    x, z = model.mixing.shape
    size = max(256, _CHUNK_ELEMENTS // z**2 // 256 * 256)
    w, c = model.unmixing().to(dtype), model.projected_covariance().to(dtype)
    sizes = [3, x * z, z**2, z**2, z**2, z, z, z]
    buffer = torch.zeros(sum(sizes), dtype=torch.float64, device=shard.rows.device)
    for y in shard.chunks(size, dtype):
        s = w @ y
        if model.variance == 0:
            found = point(s, model.priors)
        else:
            found = posterior(s, c, model.priors, sweeps)
        buffer += torch.cat(_parts(y, found)).double()
    peers.all_reduce(buffer)
    count, evidence, moved = buffer[:3].tolist()
    buffer /= count
    _, ym, score, mm, vv, slope, bend, pull = buffer.split(sizes)
    return Sums(
        count=int(count),
        evidence=evidence / count,
        moved=moved / count,
        score=score.view(z, z),
        ym=ym.view(x, z),
        mm=mm.view(z, z),
        vv=vv.view(z, z),
        slope=slope,
        bend=bend,
        pull=pull,
    )


def _parts(y: Tensor, found: Posterior) -> list[Tensor]:
    """One chunk's sums, flat, in the order of the buffer."""
    mean, v, precision = found.mean, found.covariance, found.sites.precision
    psi = torch.addcmul(-found.sites.shift, precision, mean)
    pull = (psi * mean).sum(1)
    totals = torch.stack(
        [
            mean.new_tensor(y.shape[1]),
            found.log_evidence.sum(),
            found.moved.square().sum(),
        ]
    )
    curvature = found.curvature
    score = (psi @ mean.T).add_((v * precision[:, None]).sum(-1))
    return [
        totals,
        (y @ mean.T).flatten(),
        score.flatten(),
        (mean @ mean.T).flatten(),
        v.sum(-1).flatten(),
        curvature.sum(1),
        (curvature * mean.square()).sum(1),
        pull,
    ]


def log_evidence(sums: Sums, model: Model, scatter: Tensor) -> float:
    """Mean log p(y) in nats; where v = 0, of the coordinates of y in the span of A's columns."""
    x, z = model.mixing.shape
    inside = sums.evidence - float(torch.logdet(model.mixing.T @ model.mixing)) / 2
    if model.variance == 0 or x == z:
        return inside
    outside = outside_square(model, scatter)
    log_norm = (x - z) * (_LOG_2_PI + math.log(model.variance))
    return inside - (log_norm + outside / model.variance) / 2


def outside_square(model: Model, scatter: Tensor) -> float:
    """Mean squared length of what lies outside the span of A's columns."""
    span, _ = torch.linalg.qr(model.mixing)
    return max(float(scatter.trace() - (span.T @ scatter @ span).trace()), 0.0)
