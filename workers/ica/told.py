"""What a method tells while it runs: what it found beforehand, its steps, its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

from torch import Tensor

from workers.events import Notice
from workers.ica.align import errors
from workers.ica.counting import Count
from workers.ica.model import IcaModel
from workers.ica.problem import Problem, Warned
from workers.ica.start import Baseline

EndReason = Literal["completed", "converged", "iteration_limit"]


@dataclass(frozen=True, slots=True)
class Begun:
    """What stands before the first step.

    ``count`` is how the number of components was chosen, None where it was given.
    """

    problem: Problem
    baseline: Baseline
    count: Count | None


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration: what it measured, the model that it leads to, and what resuming needs."""

    number: int
    values: Mapping[str, float]
    model: IcaModel
    state: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class End:
    """The last step, its model made ready, and how it came to an end."""

    step: Step
    reason: EndReason
    message: str
    notices: tuple[Notice, ...]


def error_values(mixing: Tensor, truth: Tensor | None, prefix: str = "") -> dict[str, float]:
    """The errors of an estimate as metrics, none where the truth is not known or of another Z."""
    if truth is None or mixing.shape != truth.shape:
        return {}
    found = errors(mixing, truth)
    return {
        f"{prefix}error_relative": found.relative,
        f"{prefix}error_frobenius": found.frobenius,
        f"{prefix}angle_degrees": found.angle_degrees,
        f"{prefix}amari": found.amari,
    }


def count_notice(count: Count) -> Notice:
    """How the number of components was chosen."""
    if not count.held_out:
        return Notice(
            "components_chosen",
            f"{count.components} component(s): that is the rank of the data, which have no noise.",
        )
    tried = ", ".join(f"{number}: {value:.4f}" for number, value in count.held_out.items())
    return Notice(
        "components_chosen",
        f"{count.components} component(s), by the log evidence of held-out data in nats a datum "
        f"({tried}); more must raise it by more than chance.",
    )


def notice(warned: Warned, contradicted: tuple[int, ...] = ()) -> Notice:
    """A warning of a fit as a sentence for people."""
    match warned:
        case "fastica_not_converged":
            text = (
                "FastICA, from which the fit began, did not converge; compare with a job that "
                'begins at "random".'
            )
        case "noise_not_identified":
            text = (
                "With as many components as dimensions, noise cannot be told from sources: it was "
                "taken to be 0. Give noise_variance, or fewer components."
            )
        case "prior_contradicted":
            which = ", ".join(str(source) for source in contradicted)
            text = (
                f"The data contradict the prior of source(s) {which}: these columns of A may be "
                'wrong though the evidence is high. Choose prior "auto", and compare with '
                "fastica_mixing."
            )
        case "gaussian_sources":
            text = (
                "Several sources look Gaussian. Nothing can separate those: their columns span the "
                "right space, and are arbitrary within it."
            )
        case _:
            assert_never(warned)
    return Notice(warned, text)
