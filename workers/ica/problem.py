"""Data made ready for a fit: checked, centred, and in principal coordinates where noise-free."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from workers.ica.choosing import Choice, Verdict, choose, judge
from workers.ica.failures import Unfit
from workers.ica.options import SEARCH_ROWS, Options
from workers.ica.priors import Laplace, Prior, Priors
from workers.ica.shard import Shard
from workers.ica.start import (
    Baseline,
    Components,
    Contrast,
    fastica_baseline,
    principal,
    random_start,
)
from workers.ica.sums import Model, expect, log_evidence
from workers.parallel import ALONE, Peers

_CHOOSING_ROWS = 4_000
_FASTICA_TURNS = 2
_CONTRASTS: tuple[Contrast, ...] = ("logcosh", "exp")
_SWEEPS = 2
_MIXED = 0.4  # of a source in another's place, beyond which two answers are not the same

Warned = Literal[
    "fastica_not_converged", "noise_not_identified", "prior_contradicted", "gaussian_sources"
]


@dataclass(frozen=True, slots=True)
class Problem:
    """What a fit works on.

    ``shard`` has the coordinates of the fit: those of the data or, without noise, the Z principal
    ones, ``basis`` (X, Z) being the way back. ``scatter`` is its mean square, ``sample`` some of
    its rows, the same on all workers, ``noise_variance`` γ² where it is known, else where its
    estimate starts.
    """

    options: Options
    shard: Shard
    sample: Shard
    scatter: Tensor
    components: Components
    basis: Tensor | None
    noise_variance: float
    estimates_noise: bool
    warnings: tuple[Warned, ...]

    @classmethod
    def of(
        cls,
        rows: Tensor,
        options: Options,
        peers: Peers = ALONE,
        is_over: Callable[[], bool] | None = None,
    ) -> "Problem":
        """The problem that this worker's ``rows`` (n, X) are a part of; ``is_over``: see Shard.

        Raises Unfit for data without such a decomposition.
        """
        z = options.components
        shard = Shard.of(rows, peers)
        if is_over is not None:
            shard = replace(shard, is_over=is_over)
        if not shard.mean.isfinite().all():
            raise Unfit("not_a_number", "The data hold NaN or infinity; remove those rows.")
        if shard.total <= z:
            raise Unfit(
                "too_few_rows",
                f"{shard.total} rows cannot tell {z} components; send more, or ask for fewer.",
            )
        scatter = shard.scatter(peers)
        if not scatter.isfinite().all():
            raise Unfit("not_a_number", "The data overflow when squared; scale them down.")
        components = principal(scatter, z, options.noise_variance)
        warnings: tuple[Warned, ...] = ()
        noise = components.rest if options.noise_variance is None else options.noise_variance
        if options.noise_variance is None and z == shard.rows.shape[1]:
            warnings = ("noise_not_identified",)
        basis = None
        if noise == 0:
            basis = components.basis
            shard = replace(shard, basis=basis)
            scatter = basis.T @ scatter @ basis
        return cls(
            options=options,
            shard=shard,
            sample=shard.thinned(SEARCH_ROWS, peers),
            scatter=scatter,
            components=components,
            basis=basis,
            noise_variance=noise,
            estimates_noise=options.noise_variance is None and noise > 0,
            warnings=warnings,
        )

    def start(self) -> tuple[Tensor, bool]:
        """The first A, in the coordinates of the fit, and whether FastICA left it unfinished."""
        options = self.options
        if isinstance(options.start, Tensor):
            return self.into(options.start.to(self.scatter)), False
        if options.start == "random":
            return random_start(self._white(), options.seed), False
        found = self._best_fastica()
        return self.into(found.mixing), not found.has_converged

    def fastica(self, contrast: Contrast = "logcosh", turn: int = 0) -> Baseline:
        """FastICA's answer on the sample, (X, Z), to be shown beside ours; turns differ by seed."""
        seed = self.options.seed + turn
        found = fastica_baseline(self.sample, self._white(), seed, contrast)
        return replace(found, mixing=self.back(found.mixing))

    def _best_fastica(self) -> Baseline:
        """Of FastICA's answers that differ, the one with the highest evidence on the sample.

        FastICA converges at times with two sources mixed half and half (Tichavský et al. 2006),
        from where no local search comes back. Its answers rarely differ, and then this is free.
        """
        found: list[Baseline] = []
        for turn in range(_FASTICA_TURNS):
            for contrast in _CONTRASTS:
                other = self.fastica(contrast, turn)
                if not any(_is_same(other.mixing, one.mixing) for one in found):
                    found.append(other)
        if len(found) == 1:
            return found[0]
        return max(found, key=lambda each: self._evidence(self.into(each.mixing)))

    def _evidence(self, mixing: Tensor) -> float:
        """Mean log evidence of the sample with the priors that A's sources would get."""
        priors = self.first_priors()
        if self.options.prior is None:
            priors = tuple(each.prior for each in self.choices(mixing, self.noise_variance))
        some = self.sample.thinned(_CHOOSING_ROWS)
        model = Model(mixing, self.noise_variance, Priors(priors))
        sums = expect(some, model, _SWEEPS, torch.float64)
        return log_evidence(sums, model, some.scatter())

    def _white(self) -> Components:
        """The principal components in the coordinates of the fit."""
        if self.basis is None:
            return self.components
        identity = torch.eye(len(self.scatter)).to(self.scatter)
        return Components(identity, self.components.deviations, 0.0)

    def into(self, mixing: Tensor) -> Tensor:
        """A matrix of columns (X, Z) of the data in the coordinates of the fit."""
        return mixing if self.basis is None else self.basis.T @ mixing

    def back(self, mixing: Tensor) -> Tensor:
        """The inverse of :meth:`into`."""
        return mixing if self.basis is None else self.basis @ mixing

    def choices(self, mixing: Tensor, noise_variance: float) -> list[Choice]:
        """Priors for the sources that A sees in the sample."""
        return choose(*self._sources(mixing, noise_variance))

    def verdict(self, mixing: Tensor, noise_variance: float, priors: tuple[Prior, ...]) -> Verdict:
        """What the sample says of the priors in the end."""
        return judge(*self._sources(mixing, noise_variance), priors)

    def _sources(self, mixing: Tensor, noise_variance: float) -> tuple[Tensor, Tensor]:
        w = torch.linalg.pinv(mixing)
        some = self.sample.thinned(_CHOOSING_ROWS)
        sources = torch.cat([w @ y for y in some.chunks(_CHOOSING_ROWS, torch.float64)], 1)
        return sources, noise_variance * w.square().sum(1)

    def first_priors(self) -> tuple[Prior, ...]:
        """The priors of a state before any stage has chosen."""
        return (self.options.prior or Laplace(),) * self.options.components


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether each source of one answer is mostly a single source of the other's."""
    if one.shape[1] == 1:
        return True
    shares = (torch.linalg.pinv(one) @ other).abs().topk(2, dim=1).values
    return bool((shares[:, 1] < _MIXED * shares[:, 0]).all())
