"""The methods of the trainer ``ica``, each as a stream of steps up to its end.

Every method begins with FastICA's answer, which is reported beside its own.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import assert_never

import torch
from torch import Tensor

from workers.data import Dataset
from workers.ica import paper
from workers.ica.asked import iterations_of, options_of
from workers.ica.counting import count_components, evidence_of
from workers.ica.fit import iterate
from workers.ica.model import IcaModel, copied
from workers.ica.options import LAST, SEARCH_ROWS, stages
from workers.ica.priors import Laplace, Prior, Priors
from workers.ica.problem import Problem
from workers.ica.results import Fitted, Iteration
from workers.ica.start import Baseline
from workers.ica.state import State
from workers.ica.sums import Model, expect, log_evidence
from workers.ica.told import Begun, End, Step, error_values, notice
from workers.parallel import Peers
from workers.spec import IcaSpec

STATE_VERSION = 1
AGAIN = "again"  # in a train state: go on although that run had ended
GIVEN = "given_mixing"  # in a train state: begin anew from this A
_FIT = "fit."
_HISTORY = 5_000  # steps whose residual and evidence are kept for the plot
_SWEEPS = 10  # of EP where the model stands still

Values = dict[str, float]


class Method:
    """One run of a method on this worker's share of the data.

    ``peers`` carry the wish to stop, and ``is_over`` tells of it within an E-step.
    """

    def __init__(
        self,
        spec: IcaSpec,
        data: Dataset,
        resume: Mapping[str, Tensor] | None,
        peers: Peers,
        device: torch.device,
        is_over: Callable[[], bool],
    ) -> None:
        self._rows = peers.share(len(data.train)).of(data.train).to(device)
        self._held_out = data.held_out[:SEARCH_ROWS]
        self._truth = None if data.mixing is None else data.mixing.to(device)
        self._trainer, self._seed = spec.trainer, spec.seed
        self._kept = {name: tensor.to(device) for name, tensor in (resume or {}).items()}
        self._peers, self._is_over = peers, is_over
        self._seconds = float(self._kept["seconds"]) if "seconds" in self._kept else 0.0
        self._since = time.perf_counter()
        self._history = deque(_rows_in(self._kept.get("history")), maxlen=_HISTORY)

    def run(self) -> Iterator[Begun | Step | End]:
        """What stands beforehand, the steps that are left, and the end. Raises Unfit."""
        begun = self._begin()
        yield begun
        match self._trainer.method:
            case "ep" | "em":
                steps = self._fit(begun)
            case "paper":
                steps = self._recipe(begun)
            case "fastica":
                steps = self._fastica(begun)
            case _:
                assert_never(self._trainer.method)
        for event in steps:
            yield event
            if isinstance(event, Step):
                self._agree()

    def _agree(self) -> None:
        """Leave where any worker was asked to stop."""
        self._peers.all_reduce(torch.zeros(1, dtype=torch.float64, device=self._rows.device))

    def _begin(self) -> Begun:
        options = options_of(self._trainer, self._seed, self._kept.get(GIVEN))
        known, count = self._kept.get("fastica_mixing"), None
        if known is not None:
            options = replace(options, components=known.shape[1])
        elif self._trainer.components is None:
            count = count_components(self._rows, options, peers=self._peers, attend=self._agree)
            options = replace(options, components=count.components)
        problem = Problem.of(self._rows, options, self._peers, self._is_over)
        if known is None:
            return Begun(problem, problem.fastica(), count)
        return Begun(problem, Baseline(known, bool(self._kept["fastica_has_converged"])), None)

    # --- the accelerated fit, and plain EM -------------------------------------------------------

    def _fit(self, begun: Begun) -> Iterator[Step | End]:
        problem = begun.problem
        state = self._kept_state(problem)
        for event in iterate(problem, peers=self._peers, state=state):
            match event:
                case Iteration():
                    state = event.state
                    yield self._iteration(begun, event)
                case Fitted():
                    assert state is not None
                    yield self._fitted(begun, event, state)
                case _:
                    assert_never(event)

    def _kept_state(self, problem: Problem) -> State | None:
        kept = {n.removeprefix(_FIT): t for n, t in self._kept.items() if n.startswith(_FIT)}
        if not kept:
            return None
        state = State.of(kept)
        last = len(stages(problem.options, problem.shard.total)) - 1
        if AGAIN in self._kept and state.stage > last:
            state = replace(state, stage=last, turn=0)
        return state

    def _iteration(self, begun: Begun, event: Iteration) -> Step:
        state = event.state
        mixing = begun.problem.back(state.mixing)
        priors = Priors(state.priors).softened(event.width).each
        values = {
            "log_evidence_nats": event.log_evidence,
            "residual": event.residual,
            "sigma": event.sigma,
            "width": event.width,
            "stage": float(event.stage),
            "noise_variance": event.noise_variance,
        }
        model = self._model(begun, mixing, state.noise_variance, priors)
        return self._step(begun, event.number, values, model, _prefixed(state))

    def _fitted(self, begun: Begun, fitted: Fitted, state: State) -> End:
        model = self._model(begun, fitted.mixing, fitted.noise_variance, fitted.priors)
        values = {
            "log_evidence_nats": fitted.log_evidence,
            "residual": fitted.residual,
            "noise_variance": fitted.noise_variance,
            **self._held_out_values(model),
        }
        number = fitted.iterations
        told = f"after {number} iterations the residual is {fitted.residual:.1e}"
        if fitted.has_converged:
            message = f"Converged: {told}."
        else:
            message = (
                f"Not converged: {told}, above the tolerance of {self._trainer.tolerance:.0e}; "
                "raise max_iterations, or fork the job to go on."
            )
        notices = tuple(notice(warned, fitted.contradicted) for warned in fitted.warnings)
        step = self._step(begun, number + 1, values, model, _prefixed(state))
        return End(step, fitted.reason, message, notices)

    # --- the published recipe ---------------------------------------------------------------------

    def _recipe(self, begun: Begun) -> Iterator[Step | End]:
        problem, trainer = begun.problem, self._trainer
        shard = replace(problem.shard, basis=None)
        state = self._kept_recipe(problem)
        residual = float(self._kept.get("recipe.residual", torch.tensor(torch.inf)))
        step = None
        while state.iteration < iterations_of(trainer):
            before = state.mixing
            state = paper.step(
                shard,
                state,
                problem.noise_variance,
                trainer.importance_samples,
                self._seed,
                self._peers,
            )
            residual = ((state.mixing - before).norm() / before.norm()).item()
            step = self._recipe_step(begun, state, residual)
            yield step
        step = step or self._recipe_step(begun, state, residual)
        message = (
            f"The recipe's {state.iteration} iterations are done; the last residual is "
            f"{residual:.1e}, and the recipe has no criterion of convergence."
        )
        values = {**step.values, **self._held_out_values(step.model)}
        last = self._step(begun, state.iteration + 1, values, step.model, step.state)
        yield End(last, "completed", message, ())

    def _kept_recipe(self, problem: Problem) -> paper.RecipeState:
        if "recipe.mixing" not in self._kept:
            mixing, _ = problem.start()
            return paper.begin(problem.back(mixing))
        return paper.RecipeState(
            self._kept["recipe.mixing"],
            float(self._kept["recipe.sigma"]),
            int(self._kept["recipe.iteration"]),
        )

    def _recipe_step(self, begun: Begun, state: paper.RecipeState, residual: float) -> Step:
        priors = (Laplace(),) * begun.problem.options.components
        noise = begun.problem.noise_variance
        model = self._model(begun, state.mixing, noise, priors)
        values = {
            "log_evidence_nats": self._evidence(begun.problem, state.mixing, noise, priors),
            "residual": residual,
            "sigma": state.sigma,
            "noise_variance": noise,
        }
        kept = {
            "recipe.mixing": state.mixing,
            "recipe.iteration": torch.tensor(state.iteration),
            "recipe.sigma": torch.tensor(state.sigma, dtype=torch.float64),
            "recipe.residual": torch.tensor(residual, dtype=torch.float64),
        }
        return self._step(begun, state.iteration, values, model, kept)

    # --- the baseline alone -----------------------------------------------------------------------

    def _fastica(self, begun: Begun) -> Iterator[Step | End]:
        problem, mixing = begun.problem, begun.baseline.mixing
        noise, priors = problem.noise_variance, problem.first_priors()
        if problem.options.prior is None:
            priors = tuple(c.prior for c in problem.choices(problem.into(mixing), noise))
        model = self._model(begun, mixing, noise, priors)
        values = {
            "log_evidence_nats": self._evidence(problem, mixing, noise, priors),
            "noise_variance": noise,
            **self._held_out_values(model),
        }
        step = self._step(begun, 1, values, model, {})
        if begun.baseline.has_converged:
            yield End(step, "converged", "FastICA has converged.", ())
        else:
            yield End(step, "iteration_limit", "FastICA did not converge in 400 iterations.", ())

    # --- what they share --------------------------------------------------------------------------

    def _evidence(
        self, problem: Problem, mixing: Tensor, noise: float, priors: tuple[Prior, ...]
    ) -> float:
        model = Model(problem.into(mixing), noise, Priors(priors))
        sums = expect(problem.shard, model, _SWEEPS, LAST, self._peers)
        return log_evidence(sums, model, problem.scatter)

    def _held_out_values(self, model: IcaModel) -> Values:
        """Without noise, data outside the span of A's columns have no density to compare."""
        if model.noise_variance == 0:
            return {}
        evidence = evidence_of(self._held_out, model).mean().item()
        return {"held_out_log_evidence_nats": evidence}

    def _model(
        self, begun: Begun, mixing: Tensor, noise: float, priors: tuple[Prior, ...]
    ) -> IcaModel:
        return IcaModel(
            mixing=copied(mixing),
            mean=copied(begun.problem.shard.mean),
            noise_variance=noise,
            priors=priors,
            fastica_mixing=copied(begun.baseline.mixing),
            true_mixing=None if self._truth is None else copied(self._truth),
        )

    def _step(
        self,
        begun: Begun,
        number: int,
        values: Mapping[str, float],
        model: IcaModel,
        kept: Mapping[str, Tensor],
    ) -> Step:
        seconds = self._seconds + time.perf_counter() - self._since
        while self._history and self._history[-1][0] >= number:  # a run that ends once more
            self._history.pop()
        told = (float(number), values.get("residual", math.nan), values["log_evidence_nats"])
        self._history.append(told)
        state = {
            **{name: copied(tensor) for name, tensor in kept.items()},
            "version": torch.tensor(STATE_VERSION),
            "step": torch.tensor(number),
            "seconds": torch.tensor(seconds, dtype=torch.float64),
            "fastica_mixing": model.fastica_mixing,
            "fastica_has_converged": torch.tensor(begun.baseline.has_converged),
            "history": torch.tensor(list(self._history), dtype=torch.float64),
        }
        truth = model.true_mixing
        measured = {**values, **error_values(model.mixing, truth), "seconds": seconds}
        return Step(number, measured, model, state)


def _rows_in(history: Tensor | None) -> list[tuple[float, float, float]]:
    return [] if history is None else [tuple(row) for row in history.tolist()]


def _prefixed(state: State) -> dict[str, Tensor]:
    return {f"{_FIT}{name}": tensor for name, tensor in state.tensors().items()}
