"""The objective guard over HTTP: every metric of the trainers against every field to tune.

What is expected is written out here, and not read from the guard's table.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.trials import KIND, SCALE, SPEC, study_body
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

NOISE = (
    (KIND, ["gaussian", "laplace"]),
    (SCALE, [0.2, 0.5]),
    ("/trainer/learned_spread", [None, {"covariance": {"kind": "low_rank", "rank": 2},
                                        "every_epochs": 2}]),
)  # fmt: skip
DATA = (("/dataset/held_out_fraction", [0.1, 0.2]), ("/dataset/split_seed", [0, 1]))
MEASURING = (("/trainer/quality/samples", [100, 150]), ("/trainer/quality/components", [2, 4]))
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
    ("/checkpoint_every_epochs", [1, 3]),
    ("/keep_checkpoints", [3, 5]),
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
REFERENCE = {"scales": [0.2, 0.4, 0.8], "steps": 1, "rows": 20}


def asked(metric: str, field: str, values: Sequence[Any], **more: Any) -> dict[str, Any]:
    trainer = {**SPEC["trainer"], "quality": {**SPEC["trainer"]["quality"],
                                              "reference_scales": REFERENCE}}  # fmt: skip
    return study_body(
        spec={**SPEC, "trainer": trainer},
        space={field: {"choice": values}},
        objective={"metric": metric, "mode": "min" if _is_less_better(metric) else "max"},
        **more,
    )


def _is_less_better(metric: str) -> bool:
    is_distance = metric.startswith(("frechet", "kid", "mmd", "sliced"))
    return is_distance or metric.endswith(("loss_nats", "excess_nats"))


@pytest.mark.parametrize(("field", "values", "refused", "biased"), CASES)
def test_every_metric_is_allowed_refused_or_cautioned_as_the_field_asks(
    quiet: Quiet,
    field: str,
    values: list[Any],
    refused: tuple[str, ...],
    biased: tuple[str, ...],
) -> None:
    valid = {name for name in EVERY if name not in refused}
    for metric in EVERY:
        answer = quiet.http.post("/v1/studies?dry_run=true", json=asked(metric, field, values))
        if metric in refused:
            found = problem(answer, 422, "objective-depends-on-tuned-parameter")
            assert found["errors"][0]["pointer"] == "/objective/metric"
            assert set(found["metrics"]) == valid, metric
        else:
            assert answer.status_code == 200, f"{metric}: {answer.text}"
            cautions = answer.json()["cautions"]
            told = [one for one in cautions if one["pointer"] == "/objective/metric"]
            assert bool(told) == (metric in biased), metric


def test_a_likelihood_at_a_reference_scale_may_stand_beside_and_never_alone(quiet: Quiet) -> None:
    second = {"metric": LIKELIHOODS[0], "mode": "max"}
    beside = asked("kid_pca", SCALE, [0.2, 0.5], second_objective=second)
    assert quiet.http.post("/v1/studies?dry_run=true", json=beside).status_code == 200
    alone = asked(LIKELIHOODS[0], SCALE, [0.2, 0.5])
    answer = quiet.http.post("/v1/studies?dry_run=true", json=alone)
    found = problem(answer, 422, "objective-depends-on-tuned-parameter")
    assert "never decides alone" in found["errors"][0]["message"]


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("error_relative", "min"), ("amari", "min"), ("held_out_log_evidence_nats", "max")],
)
def test_the_noise_of_ica_is_ranked_by_the_error_of_a_or_by_evidence(
    quiet: Quiet, metric: str, mode: str
) -> None:
    spec = {
        "dataset": {"kind": "laplace-ica", "dimensions": 5, "components": 2, "samples": 500},
        "trainer": {"kind": "ica", "components": 2},
    }
    body = study_body(
        spec=spec,
        space={"/trainer/noise_variance": {"loguniform": [0.01, 1.0]}},
        objective={"metric": metric, "mode": mode},
    )
    assert quiet.http.post("/v1/studies?dry_run=true", json=body).status_code == 200
    body["objective"] = {"metric": "log_evidence_nats", "mode": "max"}
    answer = quiet.http.post("/v1/studies?dry_run=true", json=body)
    found = problem(answer, 422, "objective-depends-on-tuned-parameter")
    assert metric in found["metrics"]
