"""Errors of a study's request point at their place over all forms of a dimension."""

from typing import Any

import pytest
from pydantic import ValidationError

from api.pointers import field_errors
from service.studies.request import StudyRequest

SCHEMA = StudyRequest.model_json_schema()
SCALE = "/trainer/spread/scale"
AT = "/space/~1trainer~1spread~1scale"


def errors_of(dimension: object, **fields: Any) -> dict[str, str]:
    body = {
        "name": "which noise",
        "spec": {"dataset": {"name": "digits"}, "trainer": {"kind": "delta_vae"}},
        "space": {SCALE: dimension},
        "objective": {"metric": "kid", "mode": "min"},
        "budget": {"trials": 3},
        **fields,
    }
    with pytest.raises(ValidationError) as caught:
        StudyRequest.model_validate(body)
    problems: list[Any] = caught.value.errors()
    return {error.pointer: error.message for error in field_errors(problems, body, SCHEMA)}


@pytest.mark.parametrize(
    ("dimension", "where", "message"),
    [
        ({"uniform": [1.0, 0.5]}, "/uniform", "must be [low, high] with low below high"),
        ({"uniform": ["a", 1.0]}, "/uniform/0", "must be a number"),
        ({"uniform": [0.1, True]}, "/uniform/1", "must be a number"),
        ({"uniform": [0.1, 1e13]}, "/uniform/1", "must be between -1e12 and 1e12"),
        ({"uniform": [0.1]}, "/uniform/1", "is required"),
        ({"uniform": [0.1, 1.0], "step": 0}, "/step", "must be greater than 0"),
        ({"uniform": [0.1, 1.0], "step": "x"}, "/step", "must be a number"),
        ({"uniform": [0.1, 1.0], "setp": 1}, "/setp", "unknown key 'setp'; did you mean 'step'?"),
        ({"loguniform": [0.0, 1.0]}, "/loguniform", "must begin above 0: it has no logarithm"),
        ({"loguniform": [0.1, float("nan")]}, "/loguniform/1", "must be between -1e12 and 1e12"),
        ({"loguniform": 3}, "/loguniform", "must be a valid"),
        ({"choice": []}, "/choice", "must have at least 1 item"),
        ({"choice": [1, 2, 1]}, "/choice", "must not have a value twice"),
        ({"choice": [1], "step": 2}, "/step", "unknown key 'step'; allowed are: choice, when"),
        ({"grid": [1, "x"]}, "/grid/1", "must be a number"),
        ({"grid": [1], "when": {"nowhere": [1]}}, "/when/nowhere", "must match pattern"),
        ({"grid": [1], "when": {"/a/b": []}}, "/when/~1a~1b", "must have at least 1 item"),
        ({}, "", "must have exactly one of: uniform, loguniform, choice, grid"),
        ({"uniform": [0.1, 1.0], "grid": [1]}, "", "must have exactly one of"),
        (3, "", "must have exactly one of"),
        (None, "", "must have exactly one of"),
    ],
)
def test_an_error_within_a_dimension_points_at_its_place(
    dimension: object, where: str, message: str
) -> None:
    found = errors_of(dimension)
    assert list(found) == [AT + where]
    assert found[AT + where].startswith(message)


@pytest.mark.parametrize(
    ("fields", "where", "message"),
    [
        ({"space": {}}, "/space", "must have at least 1 item"),
        ({"space": {"trainer": {"choice": [1]}}}, "/space/trainer", "must match pattern"),
        ({"search": {"kind": "tpee"}}, "/search/kind", "must be one of: random, grid, tpe, gp"),
        ({"scheduler": {"kind": "asha"}}, "/scheduler/grace_epochs", "is required"),
        ({"seeds": [0, 0]}, "/seeds", "must not have a seed twice"),
        (
            {"spec": {"dataset": {"name": "digits"}, "trainer": {"kind": "vae", "epoch": 3}}},
            "/spec/trainer/epoch",
            "unknown key 'epoch'; did you mean 'epochs'?",
        ),
    ],
)
def test_an_error_beside_the_space_points_at_its_place(
    fields: dict[str, Any], where: str, message: str
) -> None:
    found = errors_of({"grid": [0.5]}, **fields)
    assert where in found
    assert found[where].startswith(message)
