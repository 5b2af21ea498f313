"""The loops around the E-step: from a state and its sums to the next state.

Each takes one E-step a turn. ``scoring`` and ``anderson`` extrapolate over their last steps
(Anderson acceleration with m = 8; of the scoring step, of the EM map) and shorten a change that
lowers the evidence; ``squarem`` extrapolates after every second EM step (Varadhan and Roland
2008); ``em`` is plain.
"""

from dataclasses import dataclass, replace
from typing import assert_never

import torch
from torch import Tensor

from workers.ica.options import Rule
from workers.ica.state import State
from workers.ica.steps import em_step, noise_step, scoring_step
from workers.ica.sums import Model, Sums

_MEMORY = 8
_REGULARISER = 1e-10  # of the normal equations, relative to their trace
_HALVINGS = 5  # before a change is taken as it is
_LONGEST_SQUAREM = 64.0


@dataclass(frozen=True, slots=True)
class Look:
    """What an E-step found at a state's A.

    ``evidence`` is the mean log evidence in nats, which rounding blurs by ``slack``; ``scatter``
    is the data's mean yyᵀ where the noise is to be estimated, else None.
    """

    sums: Sums
    model: Model
    evidence: float
    slack: float
    scatter: Tensor | None


@dataclass(frozen=True, slots=True)
class Turn:
    """The next state, and how far the step wanted to go: ‖step‖/‖A‖."""

    state: State
    residual: float


def advance(rule: Rule, state: State, look: Look) -> Turn:
    """The state after one E-step."""
    state = replace(state, turn=state.turn + 1, iteration=state.iteration + 1)
    if rule in ("scoring", "anderson") and _is_worse(state, look):
        return _shortened(state)
    if rule == "scoring":
        change = scoring_step(look.sums, look.model)
    else:
        change = em_step(look.sums) - state.mixing
    residual = (change.norm() / state.mixing.norm()).item()
    if look.scatter is not None:
        noise, moved = noise_step(look.sums, look.model, look.scatter, state.sigma)
        state = replace(state, noise_variance=noise)
        residual = max(residual, moved)
    match rule:
        case "scoring" | "anderson":
            return Turn(_anderson(state, change, look.evidence), residual)
        case "squarem":
            return Turn(_squarem(state, change), residual)
        case "em":
            return Turn(replace(state, mixing=state.mixing + change), residual)
        case _:
            assert_never(rule)


def _is_worse(state: State, look: Look) -> bool:
    return look.evidence < state.evidence - look.slack and state.halvings < _HALVINGS


def _shortened(state: State) -> Turn:
    """Half the last change, from where it started, and no memory of what led there."""
    half = state.change / 2
    shorter = replace(
        state,
        mixing=state.base + half,
        change=half,
        halvings=state.halvings + 1,
        points=state.points[:0],
        changes=state.changes[:0],
    )
    return Turn(shorter, (half.norm() / state.base.norm()).item())


def _anderson(state: State, change: Tensor, evidence: float) -> State:
    """Type II: the change minus what the last steps' differences explain of it."""
    points = torch.cat([state.points, state.mixing.reshape(1, -1)])[-_MEMORY - 1 :]
    changes = torch.cat([state.changes, change.reshape(1, -1)])[-_MEMORY - 1 :]
    if len(points) > 1:
        d_points, d_changes = points.diff(dim=0), changes.diff(dim=0)
        normal = d_changes @ d_changes.T
        normal.diagonal().add_(_REGULARISER * normal.trace().clamp_min(1e-300))
        shares = torch.linalg.solve(normal, d_changes @ changes[-1])
        change = change - ((d_points + d_changes).T @ shares).view_as(change)
    return replace(
        state,
        mixing=state.mixing + change,
        points=points,
        changes=changes,
        base=state.mixing,
        change=change,
        evidence=evidence,
        halvings=0,
    )


def _squarem(state: State, change: Tensor) -> State:
    """Two EM steps r and r + v, then A₀ − 2αr + α²v with α = −max(1, min(‖r‖/‖v‖, 64))."""
    if not len(state.points):
        kept = state.mixing.reshape(1, -1), change.reshape(1, -1)
        return replace(state, mixing=state.mixing + change, points=kept[0], changes=kept[1])
    start, r = state.points[0].view_as(change), state.changes[0].view_as(change)
    v = change - r
    ratio = (r.norm() / v.norm().clamp_min(1e-300)).item()
    alpha = -max(1.0, min(ratio, _LONGEST_SQUAREM))
    return replace(
        state,
        mixing=start - 2 * alpha * r + alpha**2 * v,
        points=state.points[:0],
        changes=state.changes[:0],
    )
