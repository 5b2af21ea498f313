"""The objective guard over HTTP: every metric of the trainers against every field to tune.

What is expected is written out here, and not read from the guard's table.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest

from service.cluster.inline import InlineCluster
from tests.trials import KIND, SCALE, SPEC, study_body
from tests.unit.api import conftest
from tests.unit.api.conftest import Quiet
from tests.unit.api.test_problems import problem

LIKELIHOODS = ("log_likelihood_gaussian_0.4", "log_likelihood_gaussian_0.4_k50",
               "elbo_gaussian_0.4")  # fmt: skip
SEEN_IN_TRAINING = ("loss_nats", "reconstruction_nats", "kl_nats", "elbo_nats")
HELD_OUT = (
    *("held_out_loss_nats", "held_out_reconstruction_nats", "held_out_kl_nats"),
    *("held_out_elbo_nats", "held_out_excess_nats"),
)
OF_SAMPLES = (
    *("frechet_pca", "kid_pca", "mmd_pca", "sliced_wasserstein_pca"),
    *("precision_pca", "recall_pca", "density_pca", "coverage_pca"),
)
ECHOES = ("gradient_norm", "noise_entropy_nats", "active_units", "scale", "learning_rate")
EVERY = (*SEEN_IN_TRAINING, *HELD_OUT, *OF_SAMPLES, *LIKELIHOODS, *ECHOES)
ERRORS = ("error_relative", "error_frobenius", "angle_degrees", "amari")
OF_ICA = (*ERRORS, "held_out_log_evidence_nats")
# The evidence of what a fit has seen is that of its stage, softened or spread.
ECHOES_OF_ICA = ("log_evidence_nats", "fastica_error_relative", "residual", "sigma", "seconds")

NOISE = (
    ("/trainer/kind", ["delta_vae", "vae"]),  # the noise of one is on the data too
    (KIND, ["gaussian", "laplace"]),
    (SCALE, [0.2, 0.5]),
    ("/trainer/spread/schedule", [None, {"kind": "linear", "initial_scale": 0.9,
                                         "until_epoch": 3}]),
    ("/trainer/learned_spread", [None, {"covariance": {"kind": "low_rank", "rank": 2},
                                        "every_epochs": 2}]),
)  # fmt: skip
DATA = (("/dataset/held_out_fraction", [0.1, 0.2]), ("/dataset/split_seed", [0, 1]))
OBSERVED = (
    ("/trainer/observation/kind", ["gaussian", "laplace"]),
    ("/trainer/observation/scale", [0.2, 0.5]),
)
MEASURING = (
    ("/trainer/quality/samples", [100, 150]),
    ("/trainer/quality/components", [2, 4]),
    ("/trainer/quality/features", [[], ["efficientnet_lite0_40"]]),
)
AT_REFERENCE = (
    ("/trainer/quality/reference_scales/steps", [1, 2]),
    ("/trainer/quality/reference_scales/rows", [20, 30]),
)
ESTIMATING = (
    ("/trainer/batch_size", [200, 400]),
    ("/trainer/noise_samples", [1, 2]),
    ("/trainer/importance_samples", [1, 5]),
    ("/trainer/estimator", ["naive", "clean_target"]),
    ("/trainer/warm_up_epochs", [0, 1]),
)
SIZING = (
    ("/trainer/epochs", [6, 9]),
    ("/trainer/early_stopping", [None, {"patience": 2}]),  # which says how many epochs there are
    ("/trainer/network/hidden", [[8], [16]]),
    ("/trainer/network/latent_dim", [2, 3]),
)
RUNNING = (
    ("/trainer/optimizer/learning_rate", [1e-4, 1e-3]),
    ("/trainer/optimizer/clip_norm", [None, 10.0]),
    ("/trainer/optimizer/schedule", [{"kind": "constant"}, {"kind": "cosine"}]),
    ("/trainer/precision", ["float32", "bfloat16"]),
    ("/trainer/log_std_bound", [4.0, 8.0]),
    ("/trainer/evaluate_every_epochs", [1, 3]),
    ("/trainer/grid_every_epochs", [1, 3]),
    ("/trainer/network/output", ["identity", "sigmoid"]),
    ("/trainer/quality/at", ["end", "checkpoints"]),
    ("/checkpoint_every_epochs", [1, 3]),
    ("/keep_checkpoints", [3, 5]),
    ("/trainer/best_metric", ["elbo_nats", "kl_nats"]),  # a rank takes no checkpoint of it
    ("/resources", [{"workers": 1}, {"workers": 2}]),
    ("/resources/cpus_per_worker", [1, 2]),
)
MIXING = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0], [0.5, 0.0]]
FITTING = (
    ("/trainer/noise_variance", [0.01, 1.0]),  # no error of A and no held-out datum has it
    ("/trainer/method", ["ep", "em"]),
    ("/trainer/outer", ["scoring", "anderson"]),
    ("/trainer/prior", [{"kind": "laplace"}, {"kind": "logistic"}]),
    ("/trainer/prior/kind", ["laplace", "bimodal"]),
    ("/trainer/importance_samples", [100, 1000]),
    ("/trainer/start", ["fastica", "random"]),
    ("/trainer/mixing", [MIXING, MIXING[::-1]]),
    ("/trainer/rescale", ["always", "never"]),
    ("/trainer/tolerance", [1e-6, 1e-3]),
    ("/trainer/max_iterations", [10, 300]),
    ("/checkpoint_every_iterations", [1, 10]),
    ("/resources/workers", [1, 2]),
)
NEVER = (*ECHOES, *LIKELIHOODS)  # a likelihood at a reference scale never decides alone
CASES = [
    *((field, values, (*SEEN_IN_TRAINING, *HELD_OUT, *NEVER), ()) for field, values in NOISE),
    *((field, values, EVERY, ()) for field, values in DATA),
    *((field, values, (*OF_SAMPLES, *NEVER), ()) for field, values in MEASURING),
    *((field, values, NEVER, ()) for field, values in AT_REFERENCE),
    *(
        (field, values, NEVER, (*SEEN_IN_TRAINING, "held_out_loss_nats"))
        for field, values in ESTIMATING
    ),
    *(
        (field, values, NEVER, (*SEEN_IN_TRAINING, *HELD_OUT, *OF_SAMPLES))
        for field, values in SIZING
    ),
    *((field, values, NEVER, ()) for field, values in RUNNING),
]
CASES_OF_ICA = [
    *((field, values, ECHOES_OF_ICA, ()) for field, values in FITTING),
    ("/trainer/components", [1, 2], ECHOES_OF_ICA, OF_ICA),
    *(
        (f"/dataset/{name}", values, (*OF_ICA, *ECHOES_OF_ICA), ())
        for name, values in (("noise_std", [0.1, 0.4]), ("samples", [100, 500]), ("seed", [0, 1]))
    ),
]
REFERENCE = {"scales": [0.2, 0.4, 0.8], "steps": 1, "rows": 20}
QUALITY = {**SPEC["trainer"]["quality"], "reference_scales": REFERENCE}
BASE = {**SPEC, "trainer": {**SPEC["trainer"], "quality": QUALITY}}
BASE_OF_ICA: dict[str, Any] = {
    "dataset": {"kind": "laplace-ica", "dimensions": 5, "components": 2, "samples": 500},
    "trainer": {
        "kind": "ica",
        "components": 2,
        "prior": {"kind": "laplace"},
    },
}


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that resources can be tuned."""
    monkeypatch.setattr(conftest, "InlineCluster", partial(InlineCluster, 2))


def asked(
    metric: str, field: str, values: Sequence[Any], spec: Mapping[str, Any] = BASE, **more: Any
) -> dict[str, Any]:
    return study_body(
        spec=spec,
        space={field: {"choice": values}},
        objective={"metric": metric, "mode": "min" if _is_less_better(metric) else "max"},
        **more,
    )


def _is_less_better(metric: str) -> bool:
    is_distance = metric.startswith(("frechet", "kid", "mmd", "sliced"))
    return is_distance or metric in ERRORS or metric.endswith(("loss_nats", "excess_nats"))


def look(
    quiet: Quiet,
    spec: Mapping[str, Any],
    field: str,
    values: Sequence[Any],
    allowed: Mapping[str, bool],
    refused: Sequence[str],
) -> None:
    """Ask for a study by each metric; ``allowed`` are those with a caution, and those without."""
    for metric in (*allowed, *refused):
        body = asked(metric, field, values, spec)
        answer = quiet.http.post("/v1/studies?dry_run=true", json=body)
        if metric in refused:
            found = problem(answer, 422, "objective-depends-on-tuned-parameter")
            assert found["errors"][0]["pointer"] == "/objective/metric"
            assert set(found["metrics"]) == set(allowed), metric
        else:
            assert answer.status_code == 200, f"{metric}: {answer.text}"
            cautions = answer.json()["cautions"]
            told = [one for one in cautions if one["pointer"] == "/objective/metric"]
            assert bool(told) == allowed[metric], metric


@pytest.mark.parametrize(("field", "values", "refused", "biased"), CASES)
def test_every_metric_is_allowed_refused_or_cautioned_as_the_field_asks(
    quiet: Quiet,
    field: str,
    values: list[Any],
    refused: tuple[str, ...],
    biased: tuple[str, ...],
) -> None:
    allowed = {name: name in biased for name in EVERY if name not in refused}
    look(quiet, BASE, field, values, allowed, refused)


@pytest.mark.parametrize(("field", "values"), OBSERVED)
def test_the_observation_noise_of_a_vae_is_ranked_by_samples_alone(
    quiet: Quiet, field: str, values: list[Any]
) -> None:
    spec = {**BASE, "trainer": {**BASE["trainer"], "kind": "vae"}}
    refused = (*SEEN_IN_TRAINING, *HELD_OUT, *NEVER)
    look(quiet, spec, field, values, dict.fromkeys(OF_SAMPLES, False), refused)


@pytest.mark.parametrize(("field", "values", "refused", "biased"), CASES_OF_ICA)
def test_fits_of_ica_are_ranked_by_the_error_of_a_or_by_held_out_evidence(
    quiet: Quiet,
    field: str,
    values: list[Any],
    refused: tuple[str, ...],
    biased: tuple[str, ...],
) -> None:
    allowed = {name: name in biased for name in OF_ICA if name not in refused}
    start = {"start": "given", "mixing": MIXING} if field == "/trainer/mixing" else {}
    spec = {**BASE_OF_ICA, "trainer": {**BASE_OF_ICA["trainer"], **start}}
    look(quiet, spec, field, values, allowed, refused)


def test_a_likelihood_at_a_reference_scale_may_stand_beside_and_never_alone(quiet: Quiet) -> None:
    second = {"metric": LIKELIHOODS[0], "mode": "max"}
    beside = asked("kid_pca", SCALE, [0.2, 0.5], second_objective=second)
    assert quiet.http.post("/v1/studies?dry_run=true", json=beside).status_code == 200
    alone = asked(LIKELIHOODS[0], SCALE, [0.2, 0.5])
    answer = quiet.http.post("/v1/studies?dry_run=true", json=alone)
    found = problem(answer, 422, "objective-depends-on-tuned-parameter")
    assert "never decides alone" in found["errors"][0]["message"]
