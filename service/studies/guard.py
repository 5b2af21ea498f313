"""The objective guard: which metric may rank trials that differ in which field.

A spread KL never rises with the noise, and a spread ELBO holds the noise's entropy: a search over
the noise by either finds a noise and no model. So metrics are of a few families, fields of a few
groups, and ``VERDICTS`` says what a field of a group does to a metric of a family.
"""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Literal, assert_never, get_args

from service.studies.pointers import encloses, parent_of
from workers.kinds import AnySpec
from workers.quality import likelihood_names
from workers.spec import (
    FeatureName,
    IcaDataset,
    IcaSpec,
    PaperSpec,
    ReferenceScales,
    RefitSpec,
    TrainSpec,
)

Verdict = Literal["depends", "beside", "biased", "fine"]
"""``depends``: ranks the field, not the model; ``beside``: may stand beside another objective, and
never decides alone; ``biased``: ranks, with a warning. The worst of several counts."""
_WORST_FIRST: tuple[Verdict, ...] = get_args(Verdict)


class Family(StrEnum):
    """What a metric measures."""

    SPREAD = "spread"  # what training sees, through its noise
    TRAINING = "training"  # the same, averaged over the steps, by the estimator in use
    QUALITY = "quality"  # samples against held-out data, without noise
    TRUTH = "truth"  # an estimate of A against the known one
    EVIDENCE = "evidence"  # the log evidence of clean held-out data under an ICA model
    REFERENCE = "reference"  # the likelihood of spread data at a fixed noise, by a fresh encoder
    DIAGNOSTIC = "diagnostic"  # no rank at all: it echoes the spec, or is neither good nor bad


class Group(StrEnum):
    """What a field changes."""

    NOISE = "noise"
    ESTIMATE = "estimate"
    SIZE = "size"
    DATA = "data"
    MEASURING = "measuring"
    REFERENCE = "reference"
    RUNNING = "running"


_MEANS = ("loss_nats", "reconstruction_nats", "kl_nats", "elbo_nats")
_ERRORS = ("error_relative", "error_frobenius", "angle_degrees", "amari")
PCA = "pca"
_SPACES = (PCA, *get_args(FeatureName))
DISTANCES = ("frechet", "kid", "mmd", "sliced_wasserstein")
SHARES = ("precision", "recall", "density", "coverage")
_LESS = tuple(f"{name}_{space}" for space in _SPACES for name in DISTANCES)
_MORE = tuple(f"{name}_{space}" for space in _SPACES for name in SHARES)
METRICS: Mapping[str, Family] = {
    **dict.fromkeys(_MEANS, Family.TRAINING),
    "gradient_norm": Family.DIAGNOSTIC,
    "held_out_loss_nats": Family.TRAINING,  # the trainer's own objective, whatever it is
    **dict.fromkeys((f"held_out_{name}" for name in _MEANS[1:]), Family.SPREAD),
    "held_out_excess_nats": Family.SPREAD,
    **dict.fromkeys((*_LESS, *_MORE), Family.QUALITY),
    **dict.fromkeys(_ERRORS, Family.TRUTH),
    "held_out_log_evidence_nats": Family.EVIDENCE,
    **dict.fromkeys((f"fastica_{name}" for name in _ERRORS), Family.DIAGNOSTIC),
    **dict.fromkeys(
        (
            *("noise_entropy_nats", "information_nats", "information_limit_nats", "spread_gain"),
            *("data_total_variance", "sample_total_variance", "memorisation"),
            *("active_units", "informative_units"),
            *(f"{name}_{space}_standard_error" for space in _SPACES for name in ("kid", "mmd")),
            *("scale", "learning_rate", "warm_up", "data_per_s"),
            # the training data's evidence is that of the stage, softened or spread
            *("log_evidence_nats", "residual", "sigma", "width", "stage"),
            *("noise_variance", "seconds"),
        ),
        Family.DIAGNOSTIC,
    ),
}

_BETTER: Mapping[str, Literal["min", "max"]] = {
    **dict.fromkeys((*_LESS, *_ERRORS, "loss_nats", "held_out_loss_nats"), "min"),
    "held_out_excess_nats": "min",
    **dict.fromkeys((*_MORE, "elbo_nats", "held_out_elbo_nats"), "max"),
    "held_out_log_evidence_nats": "max",
}

# Their names hold the noise, its scale, and the draws of the looser bound.
_REFERENCE = re.compile(r"(log_likelihood|elbo)_(gaussian|laplace)_\d[\d.e+-]*(_k\d+)?")
_STANDARD_ERROR = "_standard_error"

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
    "/trainer/network/output": Group.RUNNING,
    "/trainer/network/batch_norm": Group.RUNNING,
    "/trainer/optimizer": Group.RUNNING,
    "/trainer/epochs": Group.SIZE,
    "/trainer/batch_size": Group.ESTIMATE,
    "/trainer/noise_samples": Group.ESTIMATE,
    "/trainer/importance_samples": Group.ESTIMATE,
    "/trainer/estimator": Group.ESTIMATE,
    "/trainer/warm_up_epochs": Group.ESTIMATE,
    "/trainer/log_std_bound": Group.RUNNING,
    "/trainer/precision": Group.RUNNING,
    "/trainer/early_stopping": Group.SIZE,  # it says how many epochs there are
    "/trainer/best_metric": Group.RUNNING,
    "/trainer/evaluate_every_epochs": Group.RUNNING,
    "/trainer/grid_every_epochs": Group.RUNNING,
    "/trainer/quality": Group.MEASURING,
    "/trainer/quality/at": Group.RUNNING,
    "/trainer/quality/reference_scales": Group.REFERENCE,
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
    "/trainer/noise": Group.REFERENCE,
    "/trainer/scales": Group.REFERENCE,
    "/trainer/steps": Group.REFERENCE,
    "/trainer/learning_rate": Group.REFERENCE,
    "/trainer/rows": Group.REFERENCE,
}

_BASE: Mapping[Group, Verdict] = {
    Group.NOISE: "fine",
    Group.ESTIMATE: "fine",
    Group.SIZE: "biased",  # under a budget of epochs
    Group.DATA: "depends",  # another reference
    Group.MEASURING: "fine",
    Group.REFERENCE: "fine",
    Group.RUNNING: "fine",
}
VERDICTS: Mapping[Family, Mapping[Group, Verdict]] = {
    Family.SPREAD: {**_BASE, Group.NOISE: "depends"},
    Family.TRAINING: {**_BASE, Group.NOISE: "depends", Group.ESTIMATE: "biased"},
    Family.QUALITY: {**_BASE, Group.MEASURING: "depends"},
    Family.TRUTH: _BASE,
    Family.EVIDENCE: _BASE,
    Family.REFERENCE: {
        **dict.fromkeys(Group, "beside"),
        Group.DATA: "depends",
        Group.REFERENCE: "depends",
    },
    Family.DIAGNOSTIC: dict.fromkeys(Group, "depends"),
}


def family_of(metric: str) -> Family:
    """What a metric measures; raises KeyError for one that the table does not know."""
    if _REFERENCE.fullmatch(metric.removesuffix(_STANDARD_ERROR)):
        return Family.DIAGNOSTIC if metric.endswith(_STANDARD_ERROR) else Family.REFERENCE
    return METRICS[metric]


def features_of(metric: str) -> tuple[FeatureName, ...] | None:
    """The networks that a measure of samples needs, by its name in full or without its features.

    None where the name is of something else.
    """
    if metric in (*DISTANCES, *SHARES) or METRICS.get(metric) is Family.QUALITY:
        names: tuple[FeatureName, ...] = get_args(FeatureName)
        return tuple(name for name in names if metric.endswith(f"_{name}"))
    return None


def measure_of(metric: str) -> tuple[str, str] | None:
    """A measure of samples as (what it is, in which features); None for other metrics."""
    if METRICS.get(metric) is not Family.QUALITY:
        return None
    space = max((space for space in _SPACES if metric.endswith(f"_{space}")), key=len)
    return metric.removesuffix(f"_{space}"), space


def better(metric: str) -> Literal["min", "max"] | None:
    """Whether less or more of a metric is better; None where that is not known by itself."""
    if _REFERENCE.fullmatch(metric):
        return "max"
    return _BETTER.get(metric)


def metrics_of(spec: AnySpec) -> tuple[str, ...]:
    """The metrics by which runs of a spec can be compared, in the table's order."""
    match spec:
        case TrainSpec():
            quality = spec.trainer.quality
            families = (Family.TRAINING, Family.SPREAD)
            found = [name for name, family in METRICS.items() if family in families]
            if quality is not None:
                for space in (PCA, *quality.features):
                    found += [f"{name}_{space}" for name in (*DISTANCES, *SHARES)]
                if quality.reference_scales is not None:
                    found += _reference_names(quality.reference_scales)
            return tuple(found)
        case IcaSpec():
            errors = _ERRORS if isinstance(spec.dataset, IcaDataset) else ()
            return (*errors, "held_out_log_evidence_nats")
        case RefitSpec():
            return tuple(_reference_names(spec.trainer))
        case PaperSpec():
            return ()
        case _:
            assert_never(spec)


def _reference_names(spec: ReferenceScales) -> list[str]:
    scales = dict.fromkeys(spec.scales)
    return [name for scale in scales for name in likelihood_names(spec, scale)]


def groups_of(pointer: str) -> frozenset[Group]:
    """What a place changes: as a field, or as one within it, and all that it holds.

    Raises KeyError for a field that the table does not know.
    """
    found = {FIELDS[at] for at in FIELDS if encloses(pointer, at)}
    place = pointer
    while place and place not in FIELDS:
        place = parent_of(place)
    if place:
        found.add(FIELDS[place])
    if not found:
        raise KeyError(pointer)
    return frozenset(found)


def verdict(metric: str, pointer: str) -> Verdict:
    """What tuning a field does to a metric; raises KeyError where either is not known."""
    row = VERDICTS[family_of(metric)]
    return min((row[group] for group in groups_of(pointer)), key=_WORST_FIRST.index)


def verdict_on(metric: str, pointers: Iterable[str]) -> Verdict:
    """What tuning all these fields does to a metric; nothing tuned is as a field that runs."""
    verdicts = [VERDICTS[family_of(metric)][Group.RUNNING], *(verdict(metric, p) for p in pointers)]
    return min(verdicts, key=_WORST_FIRST.index)


def valid_metrics(pointers: Iterable[str], emitted: Iterable[str]) -> tuple[str, ...]:
    """Those of the metrics of a trainer that may decide alone where these fields are tuned."""
    tuned = tuple(pointers)
    return tuple(name for name in emitted if verdict_on(name, tuned) in ("biased", "fine"))
