from typing import Any

import pytest
from pydantic import ValidationError

from api.pointers import field_errors, pointer
from service.jobs import JobRequest

SCHEMA = JobRequest.model_json_schema()


def errors_of(body: object) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate(body)
    problems: list[Any] = caught.value.errors()
    return {e.pointer: e.message for e in field_errors(problems, body, SCHEMA)}


def spec(**fields: object) -> dict[str, object]:
    return {"spec": {"dataset": {"name": "digits"}, "trainer": {"kind": "delta_vae"}, **fields}}


def trainer(**fields: object) -> dict[str, object]:
    return spec(trainer={"kind": "delta_vae", **fields})


def stepped(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "laplace", "schedule": {"kind": "steps", "steps": list(steps)}}


@pytest.mark.parametrize(
    ("body", "where", "message"),
    [
        (trainer(spread={"kind": "laplace", "scale": 0.0}), "/spec/trainer/spread/scale", "must"),
        (
            trainer(spread={"kind": "laplace", "scale": float("nan")}),
            "/spec/trainer/spread/scale",
            "must be a finite number",
        ),
        (
            trainer(spread={"kind": "gaussian", "scal": 1.0}),
            "/spec/trainer/spread/scal",
            "unknown key 'scal'; did you mean 'scale'?",
        ),
        (
            trainer(spread={"kind": "uniform", "scale": 0.5}),
            "/spec/trainer/spread",
            "must not be uniform noise, which is no valid spread: its density is not positive",
        ),
        (
            trainer(spread={"kind": "laplacian"}),
            "/spec/trainer/spread/kind",
            "must be one of: gaussian, laplace, logistic, student_t, gaussian_mixture; "
            "did you mean 'laplace'?",
        ),
        (
            trainer(spread={}),
            "/spec/trainer/spread/kind",
            "is required; must be one of: gaussian, laplace",
        ),
        (
            spec(trainer={"kind": "icas"}),
            "/spec/trainer/kind",
            "must be one of: delta_vae, vae, ica, refit_encoder, paper; did you mean 'ica'?",
        ),
        (
            spec(trainer={}),
            "/spec/trainer/kind",
            "is required; must be one of: delta_vae, vae, ica, refit_encoder, paper",
        ),
        (
            spec(trainer={"kind": "ica", "component": 2}),
            "/spec/trainer/component",
            "unknown key 'component'; did you mean 'components'?",
        ),
        (
            spec(trainer={"kind": "ica", "prior": {"kind": "laplac"}}),
            "/spec/trainer/prior/kind",
            "must be one of: auto, laplace, logistic, student_t, bimodal; did you mean 'laplace'?",
        ),
        (
            spec(trainer={"kind": "ica", "start": "given", "mixing": [[1.0], ["a"]]}),
            "/spec/trainer/mixing/1/0",
            "must be",
        ),
        (
            spec(trainer={"kind": "ica"}, checkpoint_every_epochs=3),
            "/spec/checkpoint_every_epochs",
            "unknown key 'checkpoint_every_epochs'; did you mean 'checkpoint_every_iterations'?",
        ),
        (
            trainer(spread=None),
            "/spec/trainer/spread",
            "must be",
        ),
        (
            trainer(spread={"kind": "laplace", "schedule": {"kind": "linear"}}),
            "/spec/trainer/spread/schedule/initial_scale",
            "is required",
        ),
        (
            trainer(spread={"kind": "laplace", "schedule": {"kind": "steps"}}),
            "/spec/trainer/spread/schedule/steps",
            "is required",
        ),
        (
            trainer(spread=stepped({"scale": 1.0, "until_epoch": 0})),
            "/spec/trainer/spread/schedule/steps/0/until_epoch",
            "must be greater than or equal to 1",
        ),
        (
            trainer(spread=stepped(*[{"scale": 1.0, "until_epoch": 3}] * 2)),
            "/spec/trainer/spread/schedule/steps",
            "must have rising until_epoch",
        ),
        (
            trainer(network={"kind": "mlp", "hidden": [4, -1]}),
            "/spec/trainer/network/hidden/1",
            "must be greater than or equal to 1",
        ),
        (
            trainer(optimizer={"schedule": {"kind": "stair"}}),
            "/spec/trainer/optimizer/schedule/kind",
            "must be one of: constant, cosine, staircase; did you mean 'staircase'?",
        ),
        (
            trainer(optimizer={"schedule": {"kind": "cosine", "final_fraction": 2}}),
            "/spec/trainer/optimizer/schedule/final_fraction",
            "must be less than or equal to 1",
        ),
        (spec(dataset={"kind": "rings"}), "/spec/dataset/kind", "must be one of: named, ring"),
        (spec(dataset={"kind": "ring", "samples": 3}), "/spec/dataset/samples", "must be"),
        (
            spec(dataset={"nam": "digits"}),
            "/spec/dataset/nam",
            "unknown key 'nam'; did you mean 'name'?",
        ),
        (spec(dataset={"named": 1}), "/spec/dataset/name", "is required"),
        (spec(trainer={"kind": "gan"}), "/spec/trainer/kind", "must be one of: delta_vae, vae"),
        (spec(trainer={"kind": ["vae"]}), "/spec/trainer/kind", "must be one of: delta_vae, vae"),
        (spec(resources={"workers": 65}), "/spec/resources/workers", "must be"),
        (spec(epochs=3), "/spec/epochs", "unknown key 'epochs'; allowed are: checkpoint_at"),
        ({**spec(), "labels": {"bad key!": "a"}}, "/labels/bad key!", "must match pattern"),
        ({**spec(), "labels": {"a/b~c": 3}}, "/labels/a~1b~0c", "must be a valid string"),
        ({}, "/spec", "is required"),
        ([], "", "must be an object"),
        (None, "", "must be an object"),
    ],
)
def test_an_error_points_at_its_field_and_says_what_is_allowed(
    body: object, where: str, message: str
) -> None:
    found = errors_of(body)
    assert where in found
    assert found[where].startswith(message)


def test_all_wrong_fields_are_named_at_once() -> None:
    body = trainer(epochs=0, batch_size=0, spread={"kind": "laplace", "scale": -1.0})
    assert set(errors_of(body)) == {
        "/spec/trainer/epochs",
        "/spec/trainer/batch_size",
        "/spec/trainer/spread/scale",
    }


def test_a_pointer_never_holds_half_a_surrogate_pair() -> None:
    assert pointer(("labels", "\ud800")) == "/labels/?"
