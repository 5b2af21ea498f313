"""Estimates of a mixing matrix by each method of Figure 4, on the same drawn data.

Each yields None after every iteration, and the estimate (X, Z) in the end. Both kinds of EM begin
at the same random rotation of the principal components.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor

from workers.ica import paper
from workers.ica.drawn import MixtureRecipe, draw
from workers.ica.fit import iterate
from workers.ica.options import Options
from workers.ica.priors import Laplace, Priors
from workers.ica.problem import Problem
from workers.ica.results import Fitted
from workers.ica.start import random_start
from workers.ica.steps import em_step
from workers.ica.sums import Model, expect
from workers.parallel import ALONE
from workers.seeds import SeedStream

MethodName = Literal["em", "spread_em", "paper", "ep", "fastica"]
_SWEEPS = 2  # of EP from cold


@dataclass(frozen=True, slots=True)
class Drawing:
    """Drawn data as a problem with γ² known, and the true A."""

    problem: Problem
    truth: Tensor
    seed: int

    @classmethod
    def of(cls, recipe: MixtureRecipe) -> "Drawing":
        """Draw the data of a recipe with Laplace sources."""
        drawn = draw(recipe)
        options = Options(
            components=recipe.components,
            noise_variance=recipe.noise_std**2,
            prior=Laplace(),
            seed=recipe.seed,
        )
        problem = Problem.of(torch.from_numpy(drawn.rows), options)
        return cls(problem, torch.from_numpy(drawn.mixing), recipe.seed)

    def estimate(self, method: MethodName, iterations: int) -> Iterator[Tensor | None]:
        """A by a method; ``iterations`` bounds EM of any kind."""
        match method:
            case "em":
                return self._em(iterations, is_spread=False)
            case "spread_em":
                return self._em(iterations, is_spread=True)
            case "paper":
                return self._recipe(iterations)
            case "ep":
                return self._ep()
            case "fastica":
                return iter([self.problem.fastica().mixing])
            case _:
                assert_never(method)

    def _start(self) -> Tensor:
        return random_start(self.problem.components, self.seed)

    def _em(self, iterations: int, *, is_spread: bool) -> Iterator[Tensor | None]:
        """A ← E[yzᵀ]E[zzᵀ]⁻¹ with the expectations of EP, on y = x or on fresh y = x + σe.

        σ follows the published rule, see workers.ica.paper.
        """
        problem, mixing = self.problem, self._start()
        priors = Priors((Laplace(),) * problem.options.components)
        seeds = SeedStream(self.seed, "figure-4-spread")
        for iteration in range(iterations):
            data, variance = problem.shard, problem.noise_variance
            if is_spread:
                sigma = paper.sigma_of(mixing)
                data, variance = data.spread(sigma, seeds.at(iteration)), variance + sigma**2
            model = Model(mixing, variance, priors)
            mixing = em_step(expect(data, model, _SWEEPS, torch.float32))
            yield None
        yield mixing

    def _recipe(self, iterations: int) -> Iterator[Tensor | None]:
        problem, state = self.problem, paper.begin(self._start())
        while state.iteration < iterations:
            state = paper.step(
                problem.shard, state, problem.noise_variance, paper.SAMPLES, self.seed, ALONE
            )
            yield None
        yield state.mixing

    def _ep(self) -> Iterator[Tensor | None]:
        for event in iterate(self.problem):
            yield event.mixing if isinstance(event, Fitted) else None
