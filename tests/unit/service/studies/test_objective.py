"""What ranks a study: what is accepted, refused with what would be valid, and warned of."""

from typing import Any

import pytest
from pydantic import ValidationError

from service.errors import DependentObjective, FieldError, InvalidStudy
from service.studies.cautions import cautions
from service.studies.checking import is_overridden, require
from service.studies.guard import FIELDS, METRICS, metrics_of, verdict_on
from service.studies.measuring import measured
from service.studies.objective import tuned, valid
from service.studies.request import StudyRequest
from tests.factories import ica_spec, tiny_spec
from workers.kinds import AnySpec
from workers.spec import Quality, RefitSpec, TrainSpec

SCALE, KIND = "/trainer/spread/scale", "/trainer/spread/kind"
NOISE = {SCALE: {"loguniform": [0.05, 1.0]}}


def study(
    space: dict[str, Any] | None = None,
    metric: str = "kid",
    *,
    mode: str = "min",
    spec: AnySpec | None = None,
    **fields: Any,
) -> StudyRequest:
    return StudyRequest.model_validate(
        {
            "name": "which noise",
            "spec": (spec or tiny_spec()).model_dump(),
            "space": space or NOISE,
            "objective": {"metric": metric, "mode": mode},
            "budget": {"trials": 15},  # as many as are confirmed
            **fields,
        }
    )


def wrong(request: StudyRequest) -> dict[str, str]:
    with pytest.raises(InvalidStudy) as refused:
        require(request)
    return {error.pointer: error.message for error in refused.value.errors}


def warned(request: StudyRequest) -> dict[str, str]:
    return {error.pointer: error.message for error in cautions(require(request), None)}


def quality_of(request: StudyRequest) -> Quality | None:
    assert isinstance(request.spec, TrainSpec)
    return request.spec.trainer.quality


def test_a_study_as_users_write_it_is_accepted_and_completed() -> None:
    request = StudyRequest.model_validate_json(
        """{"name": "which noise",
        "spec": {"dataset": {"name": "mnist-10k"}, "trainer": {"kind": "delta_vae"}},
        "space": {"/trainer/spread/kind": {"choice": ["gaussian", "laplace"]},
                  "/trainer/spread/scale": {"loguniform": [0.05, 1.0]}},
        "objective": {"metric": "kid", "mode": "min"}, "search": {"kind": "tpe"},
        "scheduler": {"kind": "asha", "grace_epochs": 2},
        "budget": {"trials": 27, "max_wall_s": 3600}, "concurrency": 2, "seeds": [0]}"""
    )
    found = require(request)
    assert found.objective.metric == "kid_pca"
    assert quality_of(found) == Quality(at="checkpoints")
    assert require(found) == found
    assert not is_overridden(found)
    early, limit = cautions(found, None)
    assert early.pointer == "/scheduler/grace_epochs"
    assert "not before epoch 20" in early.message
    assert limit == FieldError(
        "/budget/max_wall_s",
        "bounds the search alone; the confirmation comes on top: up to 15 trial(s) on fresh seeds "
        "of at most 60 epochs each",
    )


def test_quality_is_measured_with_the_features_that_the_objective_names() -> None:
    named = require(study(metric="frechet_efficientnet_lite0_40"))
    assert quality_of(named) == Quality(features=("efficientnet_lite0_40",))
    assert quality_of(require(study({"/trainer/batch_size": {"grid": [5]}}, "elbo_nats"))) is None


def test_a_metric_has_no_control_characters_so_that_it_can_be_stored() -> None:
    with pytest.raises(ValidationError, match="pattern"):
        study(metric="k\0id")


def test_a_metric_without_its_features_must_have_one_meaning() -> None:
    several = tiny_spec(quality={"features": ["efficientnet_lite0_40"]})
    message = wrong(study(spec=several))["/objective/metric"]
    assert "name one: kid_pca, kid_efficientnet_lite0_40" in message
    assert require(study(metric="kid_pca", spec=several)).objective.metric == "kid_pca"
    other = wrong(study(metric="kid_inception_v3_fid", spec=several))
    assert "needs inception_v3_fid" in other["/objective/metric"]


@pytest.mark.parametrize(
    ("metric", "hint"),
    [
        ("kid_pac", "did you mean 'kid_pca'?"),
        ("held_out_elbo", "did you mean 'held_out_elbo_nats'?"),
        ("amari", "they have: loss_nats"),
        ("log_likelihood_gaussian_0.4", "they have: loss_nats"),
        ("accuracy", "they have: loss_nats"),
        ("inception_score", "sees samples alone, and never the data; they have: loss_nats"),
        ("Classifier_accuracy", "sees samples alone, and never the data"),
    ],
)
def test_a_metric_that_no_trial_has_is_refused(metric: str, hint: str) -> None:
    spec = tiny_spec(quality={})
    assert hint in wrong(study(metric=metric, spec=spec))["/objective/metric"]


def test_an_objective_that_holds_the_noise_is_refused_with_what_is_valid() -> None:
    with pytest.raises(DependentObjective) as refused:
        require(study(metric="held_out_elbo_nats", mode="max"))
    (error,) = refused.value.errors
    assert error.pointer == "/objective/metric"
    assert SCALE in error.message
    assert refused.value.metrics == tuple(
        f"{name}_pca"
        for name in (
            *("frechet", "kid", "mmd", "sliced_wasserstein"),
            *("precision", "recall", "density", "coverage"),
        )
    )
    assert "kid_pca" in str(refused.value)
    for metric in refused.value.metrics:
        require(study(metric=metric))


def test_the_guard_may_be_overridden_which_marks_the_study() -> None:
    found = require(study(metric="held_out_elbo_nats", mode="max", override_guard=True))
    assert is_overridden(found)
    assert not is_overridden(require(study(override_guard=True)))
    # What is not measured stays refused.
    assert wrong(study(metric="accuracy", override_guard=True))


VALUES: dict[str, Any] = {
    "/trainer/quality/samples": {"grid": [100, 200]},
    "/trainer/estimator": {"choice": ["naive", "antithetic"]},
    "/trainer/batch_size": {"grid": [5, 25]},
    "/trainer/epochs": {"grid": [2, 3]},
    "/trainer/optimizer/learning_rate": {"loguniform": [1e-4, 1e-2]},
    "/dataset/split_seed": {"grid": [1, 2]},
    "/trainer/quality/reference_scales/steps": {"grid": [1, 2]},
    **NOISE,
}


@pytest.mark.parametrize("pointer", VALUES)
def test_a_study_is_refused_exactly_where_the_table_says_so(pointer: str) -> None:
    spec = tiny_spec(quality={"reference_scales": {"scales": [0.2, 0.4, 0.8]}})
    space = {pointer: VALUES[pointer]}
    for metric in (*metrics_of(spec), "gradient_norm", "active_units"):
        expected = verdict_on(metric, [pointer])
        request = study(space, metric, spec=spec)
        if expected in ("fine", "biased"):
            assert ("/objective/metric" in warned(request)) == (expected == "biased")
        else:
            with pytest.raises(DependentObjective) as refused:
                require(request)
            assert metric not in refused.value.metrics
            assert set(refused.value.metrics) == set(valid(request))


def test_the_reference_likelihood_is_shown_beside_another_objective_only() -> None:
    spec = tiny_spec(quality={"reference_scales": {"scales": [0.2, 0.4, 0.8]}})
    likelihood = "log_likelihood_gaussian_0.4"
    with pytest.raises(DependentObjective, match="never decides alone"):
        require(study(metric=likelihood, mode="max", spec=spec))
    beside = {"metric": likelihood, "mode": "max"}
    assert require(study(spec=spec, second_objective=beside)).second_objective is not None
    scales = {"/trainer/quality/reference_scales/steps": {"grid": [1, 2]}}
    with pytest.raises(DependentObjective) as refused:
        require(study(scales, spec=spec, second_objective=beside))
    assert refused.value.errors[0].pointer == "/second_objective/metric"


def test_two_objectives_are_two() -> None:
    same = {"metric": "kid_pca", "mode": "min"}
    assert "/second_objective/metric" in wrong(study(second_objective=same))


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"/trainer": {"choice": [{"kind": "delta_vae"}, {"kind": "vae"}]}}, ["/trainer/kind"]),
        (
            {"/trainer/network": {"choice": [{"kind": "mlp"}, {"kind": "mlp", "hidden": [4]}]}},
            ["/trainer/network/hidden"],
        ),
        ({"/trainer/learned_spread": {"choice": [None, {}]}}, ["/trainer/learned_spread"]),
        ({KIND: {"choice": ["laplace"]}}, []),
        (
            {
                KIND: {"choice": ["gaussian", "laplace"]},
                "/trainer/network/latent_dim": {"choice": [5], "when": {KIND: ["laplace"]}},
            },
            [KIND, "/trainer/network/latent_dim"],
        ),
        ({"/resources": {"choice": [{"workers": 1}, {"workers": 2}]}}, ["/resources/workers"]),
    ],
)
def test_of_whole_objects_only_what_differs_is_tuned(
    space: dict[str, Any], expected: list[str]
) -> None:
    assert list(tuned(study(space))) == expected


def test_whole_trainers_may_be_compared_by_what_all_of_them_measure() -> None:
    quality = {"samples": 100}
    kinds = [{"kind": kind, "quality": quality} for kind in ("delta_vae", "vae")]
    require(study({"/trainer": {"choice": kinds}}))
    without = {"/trainer": {"choice": [kinds[0], {"kind": "vae"}]}}
    assert wrong(study(without)) == {
        "/space/~1trainer/choice/1": "would make trials without kid_pca, an objective"
    }
    other = {"/trainer": {"choice": [kinds[0], {**kinds[1], "quality": {"samples": 200}}]}}
    with pytest.raises(DependentObjective, match="/trainer/quality/samples"):
        require(study(other))


def test_encoders_at_reference_scales_cannot_be_studied() -> None:
    spec = RefitSpec.model_validate(
        {"dataset": {"kind": "line"}, "trainer": {"kind": "refit_encoder"}}
    )
    request = study({"/trainer/steps": {"grid": [1, 2]}}, "elbo_gaussian_0.4", spec=spec)
    assert "/spec/trainer/kind" in wrong(request)
    to_it = {"/trainer/kind": {"choice": ["delta_vae", "refit_encoder"]}}
    assert list(wrong(study(to_it))) == ["/space/~1trainer~1kind/choice/1"]


@pytest.mark.parametrize("pointer", [at for at in FIELDS if at != "/seed"])
def test_the_guard_has_an_answer_for_every_field_and_metric(pointer: str) -> None:
    for metric in METRICS:
        assert verdict_on(metric, [pointer, SCALE]) in ("depends", "biased", "fine")


SCHEDULERS: list[tuple[dict[str, Any], str | None]] = [
    ({"kind": "none"}, None),
    ({"kind": "asha", "grace_epochs": 3}, "/scheduler/grace_epochs"),
    ({"kind": "asha", "grace_epochs": 4}, None),
    ({"kind": "median", "grace_epochs": 3}, "/scheduler/grace_epochs"),
    ({"kind": "median", "grace_epochs": 12}, None),
    ({"kind": "hyperband"}, "/scheduler/kind"),
]


@pytest.mark.parametrize(("scheduler", "at"), SCHEDULERS)
def test_rungs_below_a_third_of_the_epochs_are_warned_of_where_noises_compete(
    scheduler: dict[str, Any], at: str | None
) -> None:
    spec = tiny_spec(epochs=12)
    assert list(warned(study(spec=spec, scheduler=scheduler))) == ([] if at is None else [at])
    rates = {"/trainer/optimizer/learning_rate": {"loguniform": [1e-4, 1e-2]}}
    assert warned(study(rates, spec=spec, scheduler=scheduler)) == {}


@pytest.mark.parametrize(("epochs", "factor", "first"), [(12, 3.0, 1), (26, 3.0, 2), (2, 3.0, 2)])
def test_hyperbands_first_rung_is_that_of_its_largest_bracket(
    epochs: int, factor: float, first: int
) -> None:
    """Those of Ray: int(R·η^−s) for s up to round(log_η R), without 0."""
    hyperband = {"kind": "hyperband", "reduction_factor": factor}
    found = warned(study(spec=tiny_spec(epochs=epochs), scheduler=hyperband))
    if first * 3 >= epochs:
        assert found == {}
    else:
        assert f"at epoch {first}," in found["/scheduler/kind"]


def test_a_third_is_of_the_longest_trial() -> None:
    space = {**NOISE, "/trainer/epochs": {"uniform": [6, 30], "step": 6}}
    asha: dict[str, Any] = {"kind": "asha", "grace_epochs": 9}
    found = warned(study(space, scheduler=asha))
    assert "not before epoch 10" in found["/scheduler/grace_epochs"]
    asha["grace_epochs"] = 31
    message = wrong(study(space, scheduler=asha))["/scheduler/grace_epochs"]
    assert message == "must be at most 30, the epochs of the longest trial"


def test_a_search_for_the_worst_is_warned_of() -> None:
    assert warned(study(mode="max")) == {"/objective/mode": "looks for the worst: min is better"}
    assert warned(study(metric="coverage", mode="max")) == {}
    ica = study({"/trainer/tolerance": {"grid": [1e-6, 1e-3]}}, "amari", spec=ica_spec())
    assert warned(ica) == {}


LIMITS: list[tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = [
    ({"trials": 15}, {}, {}),
    ({"trials": 14}, {}, {"/confirmation": "more epochs than the search, on top of which"}),
    ({"trials": 14}, {"seeds": [0, 9]}, {}),
    ({"trials": 2}, {}, {"/confirmation": "up to 10 trial(s) on fresh seeds of at most 12 epochs"}),
    ({"trials": 15, "max_epochs": 180}, {}, {"/budget/max_epochs": "at most 12 epochs each"}),
    (
        {"trials": 15, "max_epochs": 179, "max_wall_s": 60},
        {},
        {"/budget/max_epochs": "at most 12 epochs each, more epochs than the search has"},
    ),
]


@pytest.mark.parametrize(("budget", "fields", "expected"), LIMITS)
def test_what_comes_on_top_of_a_limit_or_of_a_shorter_search_is_said(
    budget: dict[str, Any], fields: dict[str, Any], expected: dict[str, str]
) -> None:
    found = warned(study(spec=tiny_spec(epochs=12), budget=budget, **fields))
    assert list(found) == list(expected)
    for pointer, words in expected.items():
        assert words in found[pointer]
    assert all(
        message.endswith("search has") is ("179" in str(budget)) for message in found.values()
    )


def test_no_epochs_are_said_of_fits_that_end_when_they_converge() -> None:
    space = {"/trainer/tolerance": {"grid": [1e-6, 1e-3]}}
    limited = study(space, "amari", spec=ica_spec(), budget={"trials": 2, "max_wall_s": 60})
    (message,) = warned(limited).values()
    assert message.endswith("comes on top: up to 10 trial(s) on fresh seeds")


FRACTION, SAMPLES = "/dataset/held_out_fraction", "/trainer/quality/samples"


@pytest.mark.parametrize(
    ("count", "fraction", "samples", "rows", "at"),
    [
        (10_000, 0.1, 5000, 1000, FRACTION),
        (10_000, 0.5, 5000, 5000, None),
        (10_000, 0.5, 4999, 4999, SAMPLES),
        (60_000, 0.1, 10_000, 6000, None),
        (None, 0.1, 100, None, None),
    ],
)
def test_a_distance_to_few_held_out_data_is_warned_of(
    count: int | None, fraction: float, samples: int, rows: int | None, at: str | None
) -> None:
    spec = tiny_spec(quality={"samples": samples}).model_dump()
    spec["dataset"] = {**spec["dataset"], "held_out_fraction": fraction}
    typed = TrainSpec.model_validate(spec)
    found = require(study(spec=typed))
    assert measured(found, "kid_pca", count).reference_rows == rows
    told = {error.pointer: error.message for error in cautions(found, count)}
    assert list(told) == ([] if at is None else [f"/spec{at}"])
    assert at is None or f"kid_pca compare with {rows:,} held-out data" in told[f"/spec{at}"]
    # Shares are none, and of what compares no samples there is nothing to say.
    assert cautions(require(study(metric="recall", mode="max", spec=typed)), count) == ()
    assert measured(found, "elbo_nats", count).reference_rows is None


@pytest.mark.parametrize("pointer", [SAMPLES, FRACTION, "/dataset/split_seed"])
def test_no_number_of_reference_rows_is_said_where_trials_differ_in_it(pointer: str) -> None:
    values = {SAMPLES: [100, 200], FRACTION: [0.1, 0.2], "/dataset/split_seed": [1, 2]}
    space = {pointer: {"grid": values[pointer]}}
    found = require(study(space, override_guard=True))
    expected = 1000 if pointer.endswith("seed") else None
    assert measured(found, "kid_pca", 10_000).reference_rows == expected
    assert any("held-out data" in one.message for one in cautions(found, 10_000)) is bool(expected)
