"""Search spaces: what they draw, what they refuse, and the specs that come of them."""

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.studies.checking import problems
from service.studies.configuring import draw, grid, spec_of
from service.studies.objective import resolved
from service.studies.request import StudyRequest, fresh_seeds
from service.studies.space import LogUniform, Uniform
from tests.factories import ica_spec, tiny_spec
from workers.kinds import AnySpec
from workers.spec import TrainSpec

SCALE, KIND = "/trainer/spread/scale", "/trainer/spread/kind"
DEGREES = "/trainer/spread/degrees_of_freedom"
COVARIANCE = "/trainer/learned_spread/covariance"


def study(space: dict[str, Any], spec: AnySpec | None = None, **fields: Any) -> StudyRequest:
    spec = spec or tiny_spec()
    metric = "kid" if isinstance(spec, TrainSpec) else "amari"
    return resolved(
        StudyRequest.model_validate(
            {
                "name": "which noise",
                "spec": spec.model_dump(),
                "space": space,
                "objective": {"metric": metric, "mode": "min"},
                "budget": {"trials": 8},
                **fields,
            }
        )
    )


def wrong(space: dict[str, Any], spec: AnySpec | None = None, **fields: Any) -> dict[str, str]:
    return {error.pointer: error.message for error in problems(study(space, spec, **fields))}


BOUNDS = st.tuples(st.floats(1e-3, 1e2), st.floats(1e-3, 1e2)).filter(
    lambda pair: pair[0] < pair[1]
)


@settings(deadline=None)
@given(BOUNDS, st.floats(0, 1), st.sampled_from(["uniform", "loguniform"]))
def test_a_range_stays_within_its_bounds_and_fits_the_field(
    bounds: tuple[float, float], u: float, form: str
) -> None:
    request = study({SCALE: {form: bounds}})
    assert problems(request) == ()
    value = request.space[SCALE].at(u)
    assert bounds[0] <= value <= bounds[1]
    spec = spec_of(request.spec, {SCALE: value}).model_dump()
    assert spec["trainer"]["spread"]["scale"] == value


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.floats(0, 1))
def test_whole_bounds_and_a_whole_step_give_whole_numbers(
    low: int, width: int, step: int, u: float
) -> None:
    for dimension in (
        Uniform(uniform=(low, low + width), step=step),
        LogUniform(loguniform=(low, low + width), step=step),
    ):
        value = dimension.at(u)
        assert isinstance(value, int)
        assert low <= value <= low + width
        assert (value - low) % step == 0


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(1, 20))
def test_a_quantised_range_has_every_value_of_its_lattice(tenths: int, count: int) -> None:
    low, high = tenths / 10, (tenths + count) / 10
    options = Uniform(uniform=(low, high), step=0.1).options()
    assert options == tuple((tenths + k) / 10 for k in range(count + 1))


@settings(deadline=None)
@given(BOUNDS, st.floats(0, 1))
def test_loguniform_is_uniform_in_the_logarithm(bounds: tuple[float, float], u: float) -> None:
    low, high = bounds
    value = LogUniform(loguniform=bounds).at(u)
    expected = math.log(low) + u * (math.log(high) - math.log(low))
    assert math.log(value) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None)
@given(BOUNDS, st.sampled_from(["uniform", "loguniform"]))
def test_low_above_high_is_refused_where_it_stands(bounds: tuple[float, float], form: str) -> None:
    with pytest.raises(ValidationError) as caught:
        study({SCALE: {form: bounds[::-1]}})
    (error,) = caught.value.errors()
    assert error["type"] == "low_not_below_high"
    assert error["loc"][:2] + error["loc"][3:] == ("space", SCALE, form)


@pytest.mark.parametrize(
    ("dimension", "kind"),
    [
        ({"choice": []}, "too_short"),
        ({"grid": []}, "too_short"),
        ({"choice": [1, 2, 1]}, "repeated_value"),
        ({"loguniform": [0.0, 1.0]}, "low_not_positive"),
        ({"uniform": [0.1, 1.0], "step": 0}, "greater_than"),
        ({"uniform": [0.1, 1.0], "grid": [1]}, "dimension_form"),
        ({}, "dimension_form"),
    ],
)
def test_dimensions_that_mean_nothing_are_refused(dimension: dict[str, Any], kind: str) -> None:
    with pytest.raises(ValidationError) as caught:
        study({SCALE: dimension})
    assert kind in {error["type"] for error in caught.value.errors()}


def test_true_is_another_value_than_one() -> None:
    study({SCALE: {"choice": [1, True]}})


@pytest.mark.parametrize(
    ("pointer", "dimension", "at"),
    [
        ("/trainer/spread/scala", {"uniform": [0.1, 1.0]}, ""),
        ("/trainer/nothing/scale", {"uniform": [0.1, 1.0]}, ""),
        ("/trainer/learned_spread/every_epochs", {"choice": [1, 2]}, "/choice/0"),
        (SCALE, {"choice": [0.5, "large"]}, "/choice/1"),
        (SCALE, {"uniform": [0.0, 1.0]}, "/uniform/0"),
        (SCALE, {"uniform": [0.1, 1e6]}, "/uniform/1"),
        ("/trainer/epochs", {"uniform": [1, 9]}, "/uniform/0"),
        (KIND, {"choice": ["gaussian", "uniform"]}, "/choice/1"),
        ("/trainer/network/hidden/1", {"choice": [8]}, "/choice/0"),
        ("/seed", {"choice": [1, 2]}, None),
    ],
)
def test_what_does_not_fit_the_spec_is_an_error_with_its_pointer(
    pointer: str, dimension: dict[str, Any], at: str | None
) -> None:
    found = wrong({pointer: dimension})
    escaped = "/space/" + pointer.replace("/", "~1")
    form = next(iter(dimension))
    expected = escaped if at is None else escaped + (at or f"/{form}/0")
    assert list(found) == [expected]


@pytest.mark.parametrize(
    ("pointer", "value", "within", "message"),
    [
        ("/trainer/spread/schedule", {"kind": "linear"}, "", "needs 'initial_scale'"),
        ("/trainer", {"kind": "vae", "epochs": 0}, "/epochs", "must be greater than or equal to 1"),
        (COVARIANCE, {"kind": "low_rank", "rnk": 2}, "/rnk", "is no field of the spec"),
        (
            "/trainer/learned_spread",
            {"covariance": {"kind": "low_rank", "rank": 0}},
            "/covariance/rank",
            "must be greater than or equal to 1",
        ),
    ],
)
def test_what_does_not_fit_within_an_object_is_said_at_its_place(
    pointer: str, value: dict[str, Any], within: str, message: str
) -> None:
    spec = tiny_spec(learned_spread={"every_epochs": 1})
    request = study({pointer: {"choice": [value]}}, spec)
    (found,) = problems(request)
    escaped = "/space/" + pointer.replace("/", "~1")
    assert (found.pointer, found.message) == (f"{escaped}/choice/0{within}", message)


def test_a_field_of_one_kind_needs_a_condition_beside_the_others() -> None:
    kinds = {"choice": ["gaussian", "student_t"]}
    free = {KIND: kinds, DEGREES: {"uniform": [2.5, 9.0]}}
    assert "where /trainer/spread/kind is 'gaussian'" in next(iter(wrong(free).values()))
    bound = {KIND: kinds, DEGREES: {"uniform": [2.5, 9.0], "when": {KIND: ["student_t"]}}}
    assert wrong(bound) == {}


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_every_draw_of_a_conditional_space_is_a_spec(seed: int) -> None:
    space = {
        KIND: {"choice": ["gaussian", "laplace", "student_t", "gaussian_mixture"]},
        SCALE: {"loguniform": [0.05, 1.0]},
        DEGREES: {"uniform": [2.5, 9.0], "when": {KIND: ["student_t"]}},
        "/trainer/network/hidden/0": {"uniform": [4, 16], "step": 4},
        COVARIANCE: {"choice": [None, {"kind": "low_rank"}]},
        f"{COVARIANCE}/rank": {"grid": [1, 2], "when": {COVARIANCE: [{"kind": "low_rank"}]}},
    }
    spread = {"kind": "student_t", "degrees_of_freedom": 3.0}
    request = study(space, tiny_spec(spread=spread, learned_spread={}))
    assert problems(request) == ()
    configuration = draw(request.space, random.Random(seed).random)
    trainer = spec_of(request.spec, configuration).model_dump()["trainer"]
    assert (DEGREES in configuration) == (configuration[KIND] == "student_t")
    assert trainer["spread"]["kind"] == configuration[KIND]
    assert trainer["spread"].get("degrees_of_freedom") == configuration.get(DEGREES)
    covariance = trainer["learned_spread"]["covariance"]
    assert (covariance and covariance["rank"]) == configuration.get(f"{COVARIANCE}/rank")


def test_a_grid_has_every_configuration_once() -> None:
    kinds = {"choice": ["gaussian", "student_t"]}
    degrees = {"grid": [3.0, 5.0], "when": {KIND: ["student_t"]}}
    space = study({DEGREES: degrees, KIND: kinds, SCALE: {"grid": [0.1, 0.5]}}).space
    found = [tuple(sorted(configuration.items())) for configuration in grid(space)]
    assert len(found) == len(set(found)) == 2 + 2 * 2


def test_conditions_must_lead_to_a_value_of_another_dimension() -> None:
    beside = {SCALE: {"uniform": [0.1, 1.0], "when": {KIND: ["laplace"]}}}
    (missing,) = wrong(beside)
    assert missing == "/space/~1trainer~1spread~1scale/when/~1trainer~1spread~1kind"
    (foreign,) = wrong({**beside, KIND: {"choice": ["gaussian"]}})
    assert foreign == f"{missing}/0"
    circle = {
        SCALE: {"choice": [0.5], "when": {KIND: ["gaussian"]}},
        KIND: {"choice": ["gaussian"], "when": {SCALE: [0.5]}},
    }
    assert list(wrong(circle).values()) == ["depends on itself"]


def test_searchers_and_schedulers_refuse_spaces_that_they_cannot_search() -> None:
    ranges = {SCALE: {"uniform": [0.1, 1.0]}}
    two = {**ranges, "/trainer/optimizer/learning_rate": {"loguniform": [1e-4, 1e-2]}}
    assert wrong(two, search={"kind": "cma_es"}) == {}
    assert list(wrong(ranges, search={"kind": "cma_es"})) == ["/search/kind"]
    second = {"metric": "recall_pca", "mode": "max"}
    beside = wrong(two, search={"kind": "cma_es"}, second_objective=second)
    assert list(beside) == ["/second_objective"]
    assert len(wrong(ranges, search={"kind": "grid"})) == 1
    kinds = {**ranges, KIND: {"choice": ["laplace"]}}
    assert len(wrong(kinds, search={"kind": "cma_es"})) == 1
    pbt: dict[str, Any] = {"kind": "pbt", "interval_epochs": 1}
    assert wrong(ranges, scheduler=pbt) == {}
    assert len(wrong({"/trainer/batch_size": {"grid": [5, 25]}}, scheduler=pbt)) == 1
    for scales in ({"choice": [0.1, 0.5]}, {"uniform": [0.1, 0.9], "step": 0.1}):
        (message,) = wrong({SCALE: scales}, scheduler=pbt).values()
        assert "without a step" in message
    hyperband = {"kind": "hyperband"}
    assert wrong(ranges, scheduler=hyperband) == {}
    for kind in ("tpe", "gp"):
        refused = wrong(ranges, scheduler=hyperband, search={"kind": kind})
        assert list(refused) == ["/scheduler/kind"]
    tolerance = {"/trainer/tolerance": {"loguniform": [1e-7, 1e-3]}}
    assert list(wrong(tolerance, ica_spec(), scheduler=pbt)) == ["/scheduler/kind"]


def test_a_population_has_one_search_its_rungs_and_a_scale_that_nothing_else_moves() -> None:
    ranges = {SCALE: {"uniform": [0.1, 1.0]}}

    def pbt(spec: AnySpec | None = None, interval: int = 1, **fields: Any) -> dict[str, str]:
        scheduler = {"kind": "pbt", "interval_epochs": interval}
        return wrong(ranges, spec, scheduler=scheduler, **fields)

    assert pbt() == {}
    assert list(pbt(search={"kind": "tpe"})) == ["/search/kind"]
    assert list(pbt(budget={"trials": 1})) == ["/budget/trials"]
    assert list(pbt(interval=3)) == ["/scheduler/interval_epochs"]  # all epochs that there are
    assert list(pbt(tiny_spec(epochs=70))) == ["/scheduler/interval_epochs"]
    assert pbt(tiny_spec(epochs=70), interval=2) == {}
    schedule = {"kind": "linear", "initial_scale": 1.0, "until_epoch": 2}
    moved = tiny_spec(spread={"kind": "laplace", "schedule": schedule})
    assert list(pbt(moved)) == ["/spec/trainer/spread/schedule"]
    learned = tiny_spec(learned_spread={"covariance": {"kind": "low_rank", "rank": 1}})
    assert list(pbt(learned)) == ["/spec/trainer/learned_spread"]
    request = study(ranges, scheduler={"kind": "pbt", "interval_epochs": 1})
    assert isinstance(request.spec, TrainSpec)
    assert request.spec.checkpoint_at_epochs == (1, 2)


def test_health_is_of_trials_that_have_latents() -> None:
    tolerance = {"/trainer/tolerance": {"loguniform": [1e-7, 1e-3]}}
    assert list(wrong(tolerance, ica_spec(), stop_unhealthy={})) == ["/stop_unhealthy"]
    assert wrong({SCALE: {"uniform": [0.1, 1.0]}}, stop_unhealthy={}) == {}


def test_trials_that_end_by_themselves_have_one_seed() -> None:
    tolerance = {"/trainer/tolerance": {"loguniform": [1e-7, 1e-3]}}
    assert list(wrong(tolerance, ica_spec(), seeds=[0, 6])) == ["/seeds"]
    assert wrong(tolerance, ica_spec(), seeds=[6]) == {}
    scale = {SCALE: {"uniform": [0.1, 1.0]}}
    stops = {"early_stopping": {"metric": "excess_nats"}}
    assert list(wrong(scale, tiny_spec(**stops), seeds=[0, 6])) == ["/seeds"]
    patience = {"/trainer/early_stopping": {"choice": [None, stops["early_stopping"]]}}
    assert "/seeds" in wrong(scale | patience, seeds=[0, 6])
    assert wrong(scale, seeds=[0, 6]) == {}


def test_seeds_that_confirm_are_fresh() -> None:
    space = {SCALE: {"uniform": [0.1, 1.0]}}
    found = wrong(space, seeds=[0, 3], confirmation={"seeds": [1, 2, 3]})
    assert list(found) == ["/confirmation/seeds/2"]
    assert wrong(space, seeds=[3]) == {}
    assert wrong(space, seeds=[3], confirmation={"top": 2}) == {}


@pytest.mark.parametrize("given", [{}, {"confirmation": {"top": 7}}])
def test_seeds_that_are_not_given_are_the_five_smallest_fresh_ones(given: dict[str, Any]) -> None:
    body = {
        "name": "fresh",
        "spec": tiny_spec().model_dump(mode="json"),
        "space": {SCALE: {"uniform": [0.1, 1.0]}},
        "objective": {"metric": "kid_pca", "mode": "min"},
        "budget": {"trials": 3},
        "seeds": [1, 3, 4],
        **given,
    }
    made = StudyRequest.model_validate(body)
    assert made.confirmation.seeds == (2, 5, 6, 7, 8)
    # What is stored has them, so that it is the same when it is read again.
    assert StudyRequest.model_validate_json(made.model_dump_json()) == made
    assert fresh_seeds(()) == (1, 2, 3, 4, 5)
