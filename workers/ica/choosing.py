"""Which prior suits a source: named ones and a fitted mixture, by their log evidence.

An estimated source is s = z + e, e ~ N(0, c) with known c, so each candidate's log evidence is
log Ẑ(s, c). The named priors have no free parameter. The mixture is fitted by EM for the source
without its noise, and pays for its parameters as in the Bayesian information criterion.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.ica.priors import Laplace, Mixture, Prior, bimodal, logistic, student_t

_PARTS = 5
_GROUPS = 500  # quantile groups that stand for the data in the mixture's EM
_STEPS = 60
_NARROWEST = 4e-3  # variance of a part: a spike has an unbounded likelihood
_LEAST_WEIGHT = 1e-4
_TELLING = 3.0  # nats; what one datum can say at most for or against a Gaussian
# A Gaussian source cannot be separated; this much log evidence over it, in standard errors,
# says that a source is not one.
GAUSSIAN_ERRORS = 2.0
# So much log evidence, in standard errors of the paired difference, contradicts a prior.
CONTRADICTION_ERRORS = 3.0
GAUSSIAN = Mixture("gaussian", (1.0,), (0.0,), (1.0,))


@dataclass(frozen=True, slots=True)
class Choice:
    """A source's prior, and what was found on the way.

    ``gain`` is its mean log evidence above a Gaussian's, ``gain_error`` that mean's standard
    error, both in nats a datum.
    """

    prior: Prior
    gain: float
    gain_error: float

    @property
    def is_gaussian(self) -> bool:
        """Whether the source looks Gaussian, so that no method could separate it from another."""
        return self.gain < GAUSSIAN_ERRORS * self.gain_error


def choose(sources: Tensor, noise: Tensor) -> list[Choice]:
    """The prior for each row of ``sources`` (Z, n), float64, with noise variances (Z)."""
    scale = (sources.square().mean(1) - noise).clamp_min(1e-3).sqrt()
    sources, noise = sources / scale[:, None], noise / scale.square()
    fitted = fit_mixtures(sources, noise)
    return [_choose(*row) for row in zip(sources, noise, fitted, strict=True)]


def _choose(source: Tensor, noise: Tensor, fitted: Mixture) -> Choice:
    price = (3 * _PARTS - 1) / 2 * math.log(len(source)) / len(source)
    candidates: tuple[Prior, ...] = (Laplace(), logistic(), student_t(3), student_t(5), bimodal())
    best: Prior = GAUSSIAN
    best_score = -math.inf
    for prior in (*candidates, fitted):
        score = _log_evidence(prior, source, noise).mean().item()
        score -= price if prior is fitted else 0.0
        if score > best_score:
            best, best_score = prior, score
    gain = _log_evidence(best, source, noise) - _log_evidence(GAUSSIAN, source, noise)
    gain = gain.clamp(-_TELLING, _TELLING)  # a few far data must not drown the rest in their error
    return Choice(best, gain.mean().item(), (gain.std() / math.sqrt(len(gain))).item())


def _log_evidence(prior: Prior, source: Tensor, noise: Tensor) -> Tensor:
    return prior.tilted(source, noise.expand_as(source)).log_z


@dataclass(frozen=True, slots=True)
class Verdict:
    """Sources that another prior explains better beyond chance, and how many look Gaussian."""

    contradicted: tuple[int, ...]
    gaussian: int


def judge(sources: Tensor, noise: Tensor, priors: tuple[Prior, ...]) -> Verdict:
    """What the sources (Z, n) with noise variances (Z) say of their priors."""
    scale = (sources.square().mean(1) - noise).clamp_min(1e-3).sqrt()
    choices = choose(sources, noise)
    contradicted = []
    for i, choice in enumerate(choices):
        source, level = sources[i] / scale[i], noise[i] / scale[i].square()
        better = _log_evidence(choice.prior, source, level)
        gain = better - _log_evidence(priors[i], source, level)
        if gain.mean() > CONTRADICTION_ERRORS * gain.std() / math.sqrt(len(gain)):
            contradicted.append(i)
    return Verdict(tuple(contradicted), sum(choice.is_gaussian for choice in choices))


def fit_mixtures(sources: Tensor, noise: Tensor) -> list[Mixture]:
    """Mixtures of Gaussians for the rows of ``sources`` less their noise, by EM.

    EM runs from two starts, parts side by side and parts of all widths about 0, on quantile
    groups of the data; the better of the two is taken.
    """
    z, n = sources.shape
    groups = min(_GROUPS, n)
    ordered = sources.sort(1).values
    edges = torch.arange(groups + 1) * n // groups
    data = torch.stack(
        [part.mean(1) for part in ordered.split((edges[1:] - edges[:-1]).tolist(), dim=1)],
        1,
    )
    means, variances = _starts(data)
    weights = torch.full_like(means, 1 / _PARTS)
    x, c = data.repeat(2, 1)[:, None], noise.repeat(2)[:, None]
    for _ in range(_STEPS):
        total = (variances + c)[..., None]
        distance = x - means[..., None]
        joint = weights.log()[..., None] - (distance.square() / total + total.log()) / 2
        share = torch.softmax(joint, 1)
        mass = share.sum(2).clamp_min(1e-12)
        kept = variances / (variances + c)
        at = means[..., None] + kept[..., None] * distance  # E[z | x, part]
        weights = (mass / groups).clamp_min(_LEAST_WEIGHT)
        weights = weights / weights.sum(1, keepdim=True)
        means = (share * at).sum(2) / mass
        spread = (share * (at - means[..., None]).square()).sum(2) / mass + kept * c
        variances = spread.clamp_min(_NARROWEST)
    score = torch.logsumexp(joint, 1).mean(1).view(2, z)
    best = score.argmax(0) * z + torch.arange(z, device=score.device)
    return [
        Mixture(
            "mixture",
            tuple(weights[i].tolist()),
            tuple(means[i].tolist()),
            tuple(variances[i].tolist()),
        )
        for i in best.tolist()
    ]


def _starts(data: Tensor) -> tuple[Tensor, Tensor]:
    """Means and variances (2Z, parts): side by side first, then about 0 with all widths."""
    levels = (torch.arange(_PARTS, dtype=data.dtype, device=data.device) + 0.5) / _PARTS
    beside = torch.quantile(data, levels, dim=1).T
    width = (data.std(1) / _PARTS * 1.5).square()[:, None].expand_as(beside)
    widths = torch.logspace(-2, 0.8, _PARTS, dtype=data.dtype, device=data.device).expand_as(beside)
    widths = widths * data.var(1)[:, None]
    return torch.cat([beside, torch.zeros_like(beside)]), torch.cat([width, widths])
