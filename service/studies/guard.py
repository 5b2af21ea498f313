"""The objective guard: which metric may rank trials that differ in which field.

A spread KL never rises with the noise, and a spread ELBO holds the noise's entropy: a search over
the noise by either finds a noise and no model. So metrics are of a few families, fields of a few
groups, and ``VERDICTS`` says what a field of a group does to a metric of a family.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Literal, get_args

from workers.spec import FeatureName

Verdict = Literal["depends", "biased", "fine"]


class Family(StrEnum):
    """What a metric measures."""

    SPREAD = "spread"  # what training sees, through its noise
    TRAINING = "training"  # the same, averaged over the steps, by the estimator in use
    QUALITY = "quality"  # samples against held-out data, without noise
    TRUTH = "truth"  # an estimate of A against the known one
    EVIDENCE = "evidence"  # the log evidence of clean held-out data under an ICA model
    DIAGNOSTIC = "diagnostic"  # no rank at all: it echoes the spec, or is neither good nor bad


class Group(StrEnum):
    """What a field changes."""

    NOISE = "noise"
    ESTIMATE = "estimate"
    SIZE = "size"
    DATA = "data"
    MEASURING = "measuring"
    RUNNING = "running"


_MEANS = ("loss_nats", "reconstruction_nats", "kl_nats", "elbo_nats")
_ERRORS = ("error_relative", "error_frobenius", "angle_degrees", "amari")
_SPACES = ("pca", *get_args(FeatureName))
_DISTANCES = ("frechet", "kid", "mmd", "sliced_wasserstein")
_SHARES = ("precision", "recall", "density", "coverage")
LESS = tuple(f"{name}_{space}" for space in _SPACES for name in _DISTANCES)
MORE = tuple(f"{name}_{space}" for space in _SPACES for name in _SHARES)
METRICS: Mapping[str, Family] = {
    **dict.fromkeys(_MEANS, Family.TRAINING),
    "gradient_norm": Family.DIAGNOSTIC,
    "held_out_loss_nats": Family.TRAINING,  # the trainer's own objective, whatever it is
    **dict.fromkeys((f"held_out_{name}" for name in _MEANS[1:]), Family.SPREAD),
    "held_out_excess_nats": Family.SPREAD,
    **dict.fromkeys((*LESS, *MORE), Family.QUALITY),
    **dict.fromkeys(_ERRORS, Family.TRUTH),
    "held_out_log_evidence_nats": Family.EVIDENCE,
    **dict.fromkeys((f"fastica_{name}" for name in _ERRORS), Family.DIAGNOSTIC),
    **dict.fromkeys(
        (
            *("noise_entropy_nats", "information_nats", "information_limit_nats", "spread_gain"),
            *("data_total_variance", "sample_total_variance", "active_units", "memorisation"),
            *(f"{name}_{space}_standard_error" for space in _SPACES for name in ("kid", "mmd")),
            *("scale", "learning_rate", "warm_up", "data_per_s"),
            # the training data's evidence is that of the stage, softened or spread
            *("log_evidence_nats", "residual", "sigma", "width", "stage"),
            *("noise_variance", "seconds"),
        ),
        Family.DIAGNOSTIC,
    ),
}

# The longest pointer that encloses a field says its group.
FIELDS: Mapping[str, Group] = {
    "/kind": Group.RUNNING,
    "/version": Group.RUNNING,
    "/seed": Group.RUNNING,
    "/dataset": Group.DATA,
    "/resources": Group.RUNNING,
    "/keep_checkpoints": Group.RUNNING,
    "/checkpoint_every_epochs": Group.RUNNING,
    "/checkpoint_at_epochs": Group.RUNNING,
    "/checkpoint_every_iterations": Group.RUNNING,
    "/trainer/kind": Group.NOISE,  # a plain VAE's noise is on the model alone
    "/trainer/spread": Group.NOISE,
    "/trainer/observation": Group.NOISE,
    "/trainer/learned_spread": Group.NOISE,
    "/trainer/network": Group.SIZE,
    "/trainer/optimizer": Group.RUNNING,
    "/trainer/epochs": Group.SIZE,
    "/trainer/batch_size": Group.ESTIMATE,
    "/trainer/noise_samples": Group.ESTIMATE,
    "/trainer/importance_samples": Group.ESTIMATE,
    "/trainer/estimator": Group.ESTIMATE,
    "/trainer/warm_up_epochs": Group.ESTIMATE,
    "/trainer/log_std_bound": Group.RUNNING,
    "/trainer/precision": Group.RUNNING,
    "/trainer/early_stopping": Group.RUNNING,
    "/trainer/best_metric": Group.RUNNING,
    "/trainer/evaluate_every_epochs": Group.RUNNING,
    "/trainer/grid_every_epochs": Group.RUNNING,
    "/trainer/quality": Group.MEASURING,
    "/trainer/components": Group.SIZE,
    "/trainer/method": Group.ESTIMATE,
    "/trainer/outer": Group.ESTIMATE,
    "/trainer/noise_variance": Group.NOISE,
    "/trainer/prior": Group.ESTIMATE,
    "/trainer/start": Group.RUNNING,
    "/trainer/mixing": Group.RUNNING,
    "/trainer/rescale": Group.RUNNING,
    "/trainer/tolerance": Group.RUNNING,
    "/trainer/max_iterations": Group.RUNNING,
}

_BASE: Mapping[Group, Verdict] = {
    Group.NOISE: "fine",
    Group.ESTIMATE: "fine",
    Group.SIZE: "biased",  # under a budget of epochs
    Group.DATA: "depends",  # another reference
    Group.MEASURING: "fine",
    Group.RUNNING: "fine",
}
VERDICTS: Mapping[Family, Mapping[Group, Verdict]] = {
    Family.SPREAD: {**_BASE, Group.NOISE: "depends"},
    Family.TRAINING: {**_BASE, Group.NOISE: "depends", Group.ESTIMATE: "biased"},
    Family.QUALITY: {**_BASE, Group.MEASURING: "depends"},
    Family.TRUTH: _BASE,
    Family.EVIDENCE: _BASE,
    Family.DIAGNOSTIC: dict.fromkeys(Group, "depends"),
}


def group_of(pointer: str) -> Group:
    """What a field changes; raises KeyError for a field that the table does not know."""
    place = pointer
    while place not in FIELDS:
        place = place.rpartition("/")[0]
        if not place:
            raise KeyError(pointer)
    return FIELDS[place]


def verdict(metric: str, pointer: str) -> Verdict:
    """What tuning a field does to a metric; raises KeyError where either is not known."""
    return VERDICTS[METRICS[metric]][group_of(pointer)]


def valid_metrics(pointers: Iterable[str], emitted: Iterable[str]) -> tuple[str, ...]:
    """Those of the metrics of a trainer that depend on none of the tuned fields."""
    tuned = tuple(pointers)
    return tuple(name for name in emitted if all(verdict(name, at) != "depends" for at in tuned))
