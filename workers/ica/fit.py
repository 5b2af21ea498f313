"""Fitting: a generator of iterations, each with the state from which the next would follow.

To stop after any of them and go on from its state gives the same numbers, bit for bit.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

import torch
from torch import Tensor

from workers.ica.align import Errors, errors
from workers.ica.failures import Unfit
from workers.ica.options import Options, Stage, stages
from workers.ica.outer import Look, Turn, advance
from workers.ica.priors import Priors
from workers.ica.problem import Problem
from workers.ica.results import Fitted, Iteration
from workers.ica.shard import Shard
from workers.ica.state import State
from workers.ica.sums import Model, Sums, expect, log_evidence
from workers.parallel import ALONE, Peers

_COLLAPSED = 1e-6  # of the longest column's length
_SLACK = {torch.float32: 2e-6, torch.float64: 1e-11}  # for each nat of evidence

_STILL = {torch.float32: 1e-3, torch.float64: 1e-6}  # rms move of means that ends EP's sweeps
# Where EP has not settled, its evidence and its score disagree in the last digits: near the end
# the score alone leads, and the evidence shortens no step.
_NEAR = 0.02
_MOST_SWEEPS = 30
# Without log-concavity EP need not settle at every datum; the fit only needs one smooth function.
_MOST_SWEEPS_DAMPED = 3


def fit(
    rows: Tensor,
    options: Options,
    *,
    peers: Peers = ALONE,
    state: State | None = None,
    truth: Tensor | None = None,
) -> Iterator[Iteration | Fitted]:
    """Decompose ``rows`` (n, X), this worker's share of the data; Fitted comes last.

    With ``state`` it goes on from there. All workers must be given the same options and state.
    Raises Unfit with a named reason.
    """
    yield from iterate(Problem.of(rows, options, peers), peers=peers, state=state, truth=truth)


def iterate(
    problem: Problem,
    *,
    peers: Peers = ALONE,
    state: State | None = None,
    truth: Tensor | None = None,
) -> Iterator[Iteration | Fitted]:
    """See :func:`fit`; for those who have the problem already."""
    begin = time.perf_counter()
    legs = stages(problem.options, problem.shard.total)
    if state is None:
        state = _first(problem)
    while state.stage < len(legs):
        leg = legs[state.stage]
        if state.turn == 0:
            state = _enter(problem, leg, state)
        data, group = _data(problem, leg, state, peers)
        scatter = problem.scatter if data is problem.shard else data.scatter(group)
        stage = state.stage
        while state.stage == stage:
            _check(state)
            before, look = state, _look(problem, leg, state, data, scatter, group)
            state = _turned(leg, _settled(leg, advance(leg.rule, state, look), look))
            yield Iteration(
                number=state.iteration,
                stage=stage,
                log_evidence=look.evidence,
                residual=state.residual,
                sigma=before.sigma,
                width=leg.width,
                noise_variance=before.noise_variance,
                errors=_errors(problem, before.mixing, truth),
                seconds=time.perf_counter() - begin,
                state=state,
            )
    yield _finished(problem, legs[-1], state, peers, truth, begin)


def run(
    rows: Tensor, options: Options, *, peers: Peers = ALONE, truth: Tensor | None = None
) -> Fitted:
    """The end of :func:`fit`, for those who do not want to watch."""
    fitted: Fitted | None = None
    for event in fit(rows, options, peers=peers, truth=truth):
        if isinstance(event, Fitted):
            fitted = event
    if fitted is None:
        raise RuntimeError("fit() ended without a result")
    return fitted


def _first(problem: Problem) -> State:
    mixing, is_rough = problem.start()
    nothing = mixing.new_zeros((0, mixing.numel()))
    return State(
        stage=0,
        turn=0,
        iteration=0,
        mixing=mixing,
        noise_variance=problem.noise_variance,
        sigma=0.0,
        priors=problem.first_priors(),
        points=nothing,
        changes=nothing,
        base=mixing,
        change=torch.zeros_like(mixing),
        evidence=-math.inf,
        halvings=0,
        residual=math.inf,
        is_rough=is_rough,
        sweeps=1,
    )


def _enter(problem: Problem, leg: Stage, state: State) -> State:
    """A stage begins: its spread is set from A, priors are chosen, extrapolation forgets."""
    priors = state.priors
    if leg.chooses:
        choices = problem.choices(state.mixing, state.noise_variance)
        priors = tuple(choice.prior for choice in choices)
    return replace(
        state,
        sigma=leg.spread * state.mixing.square().mean().sqrt().item(),
        priors=priors,
        points=state.points[:0],
        changes=state.changes[:0],
        base=state.mixing,
        change=torch.zeros_like(state.mixing),
        evidence=-math.inf,
        halvings=0,
    )


def _data(problem: Problem, leg: Stage, state: State, peers: Peers) -> tuple[Shard, Peers]:
    """The stage's data and the workers that share them: all, or each its own copy of a few."""
    data, group = problem.shard, peers
    if leg.rows is not None:
        data, group = problem.sample.thinned(leg.rows), ALONE
    if state.sigma > 0:
        data = data.spread(state.sigma, problem.options.seed + state.stage)
    return data, group


def _look(
    problem: Problem, leg: Stage, state: State, data: Shard, scatter: Tensor, group: Peers
) -> Look:
    priors = Priors(state.priors).softened(leg.width)
    model = Model(state.mixing, state.noise_variance + state.sigma**2, priors)
    sums = expect(data, model, state.sweeps, leg.dtype, group)
    is_near = state.residual < _NEAR and not priors.is_log_concave
    return Look(
        sums=sums,
        model=model,
        evidence=log_evidence(sums, model, scatter),
        slack=math.inf if is_near else _SLACK[leg.dtype] * (1 + abs(sums.evidence)),
        scatter=scatter if problem.estimates_noise else None,
    )


def _settled(leg: Stage, turn: Turn, look: Look) -> Turn:
    """One sweep of EP more where the last one still moved the posterior means."""
    state = turn.state
    most = _MOST_SWEEPS if look.model.priors.is_log_concave else _MOST_SWEEPS_DAMPED
    if look.sums.moved <= _STILL[leg.dtype] ** 2 or state.sweeps >= most:
        return turn
    # The evidence of more sweeps is another function of A: it is not compared with the last.
    more = replace(state, sweeps=state.sweeps + 1, evidence=-math.inf)
    return Turn(more, max(turn.residual, 2 * leg.tolerance))


def _check(state: State) -> None:
    """Raise Unfit where no E-step could be computed at the state's A."""
    if not (math.isfinite(state.noise_variance) and state.mixing.isfinite().all()):
        raise Unfit(
            "not_a_number",
            f"The numbers left the reals at iteration {state.iteration}; scale the data to"
            " unit variance, or give a larger noise_variance.",
        )
    lengths = state.mixing.norm(dim=0)
    if lengths.min() <= _COLLAPSED * lengths.max():
        raise Unfit(
            "collapsed_component",
            f"Component {int(lengths.argmin())} shrank to nothing; ask for fewer components.",
        )
    directions = state.mixing / lengths
    if torch.linalg.matrix_rank(directions, rtol=_COLLAPSED) < len(lengths):
        raise Unfit(
            "rank_deficient",
            f"Two components became one at iteration {state.iteration};"
            f" ask for at most {len(lengths) - 1}.",
        )


def _turned(leg: Stage, turn: Turn) -> State:
    """The state after a turn; the next stage's where this one is over."""
    state, residual = replace(turn.state, residual=turn.residual), turn.residual
    if residual <= leg.tolerance or state.turn >= leg.max_iterations:
        return replace(state, stage=state.stage + 1, turn=0)
    return state


def _errors(problem: Problem, mixing: Tensor, truth: Tensor | None) -> Errors | None:
    return None if truth is None else errors(problem.back(mixing), truth)


def _finished(
    problem: Problem,
    leg: Stage,
    state: State,
    peers: Peers,
    truth: Tensor | None,
    begin: float,
) -> Fitted:
    options, mixing, noise = problem.options, state.mixing, state.noise_variance
    priors = Priors(state.priors).softened(leg.width)
    model = Model(mixing, noise, priors)
    sums = expect(problem.shard, model, state.sweeps, torch.float64, peers)
    verdict = problem.verdict(mixing, noise, state.priors)
    contradicted = verdict.contradicted
    mixing = mixing * _scales(options, sums, contradicted)
    warnings = list(problem.warnings)
    if state.is_rough:
        warnings.append("fastica_not_converged")
    if contradicted:
        warnings.append("prior_contradicted")
    if verdict.gaussian > 1:
        warnings.append("gaussian_sources")
    return Fitted(
        mixing=problem.back(mixing),
        mean=problem.shard.mean,
        noise_variance=noise,
        priors=priors.each,
        log_evidence=log_evidence(sums, model, problem.scatter),
        iterations=state.iteration,
        residual=state.residual,
        reason="converged" if state.residual <= leg.tolerance else "iteration_limit",
        warnings=tuple(warnings),
        contradicted=contradicted,
        errors=_errors(problem, mixing, truth),
        seconds=time.perf_counter() - begin,
    )


def _scales(options: Options, sums: Sums, contradicted: tuple[int, ...]) -> Tensor:
    """By how much each column grows so that its source has unit posterior variance."""
    scales = sums.zz.diagonal().sqrt()
    match options.rescale:
        case "always":
            return scales
        case "never":
            return torch.ones_like(scales)
        case "contradicted":
            kept = torch.ones_like(scales)
            for i in contradicted:
                kept[i] = scales[i]
            return kept
        case _:
            assert_never(options.rescale)
