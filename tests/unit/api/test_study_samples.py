"""The best trials' samples side by side, and a job that goes on from one of them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from service.jobs import JobState, Reason
from service.studies.ledger import Study, Trial
from tests.trials import (
    KIND,
    SCALE,
    add_trial,
    confirm,
    ended,
    running_study,
    trained_trial,
)
from tests.unit.api.conftest import Quiet
from tests.unit.api.test_problems import problem

TRAINER = {
    "kind": "delta_vae",
    "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2, "output": "sigmoid"},
    "epochs": 2,
    "batch_size": 400,
}
DIGITS = {"dataset": {"name": "digits"}, "trainer": TRAINER}
MOONS = {
    "dataset": {"kind": "two-moons", "samples": 300},
    "trainer": {
        **TRAINER,
        "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2, "output": "identity"},
        "batch_size": 100,
    },
}
SCALES = (0.1, 0.3, 0.5)
KIDS = (0.3, 0.1, 0.2)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def at(scale: float) -> dict[str, Any]:
    return {KIND: "laplace", SCALE: scale}


def trained(quiet: Quiet, folder: Path, spec: dict[str, Any]) -> tuple[Study, list[Trial]]:
    study = running_study(quiet.jobs, spec=spec)
    trials = [
        trained_trial(quiet.jobs, quiet.artifacts, folder, study, n, at(scale), {"kid_pca": kid})
        for n, (scale, kid) in enumerate(zip(SCALES, KIDS, strict=True))
    ]
    return study, trials


@pytest.fixture
def digits(quiet: Quiet, tmp_path: Path) -> tuple[Study, list[Trial]]:
    return trained(quiet, tmp_path, DIGITS)


def test_the_best_trials_show_the_same_latents_in_a_row_each(
    quiet: Quiet, digits: tuple[Study, list[Trial]]
) -> None:
    study, trials = digits
    path = f"/v1/studies/{study.id}/samples?n=3&seed=5&k=2"
    body = quiet.http.get(f"{path}&format=json").json()
    assert [row["configuration"] for row in body["rows"]] == [1, 2]
    assert body["rows"][0]["label"] == "1: kid_pca 0.1  kind laplace, scale 0.3"
    assert body["shape"] == [3, 8, 8]
    # A row is what the trial's job answers by itself.
    own = quiet.http.get(f"/v1/jobs/{trials[1].job_id}/samples?n=3&seed=5&format=json").json()
    assert body["rows"][0]["samples"] == own["samples"]
    assert body["rows"][0]["checkpoint"] == own["checkpoint"]
    archive = np.load(io.BytesIO(quiet.http.get(f"{path}&format=npz").content))
    assert archive["samples"].shape == (2, 3, 8, 8)
    assert archive["trials"].tolist() == [2, 3]
    assert archive["configurations"].tolist() == [1, 2]
    picture = quiet.http.get(path, headers={"Accept": "image/png"})
    tall = Image.open(io.BytesIO(picture.content)).height
    one = quiet.http.get(path.replace("k=2", "k=1"), headers={"Accept": "image/png"})
    assert tall == 2 * Image.open(io.BytesIO(one.content)).height
    tag = {"If-None-Match": picture.headers["ETag"], "Accept": "image/png"}
    assert quiet.http.get(path, headers=tag).status_code == 304
    assert quiet.http.get(path, headers={"Accept": "image/png"}).content == picture.content


def test_confirmed_configurations_come_in_the_order_of_fresh_seeds(
    quiet: Quiet, digits: tuple[Study, list[Trial]]
) -> None:
    study, _ = digits
    # The trials on fresh seeds have no checkpoints here: the search's stand in for them.
    confirm(quiet.jobs, study, 1, at(0.3), kid_pca=[0.9] * 5)
    confirm(quiet.jobs, study, 2, at(0.5), kid_pca=[0.4] * 5)
    ended(quiet.jobs, study)
    body = quiet.http.get(f"/v1/studies/{study.id}/samples?k=9&n=1&format=json").json()
    assert [row["configuration"] for row in body["rows"]] == [2, 1, 0]


def test_vectors_become_scatter_plots_and_nothing_to_draw_is_said(
    quiet: Quiet, tmp_path: Path
) -> None:
    study, _ = trained(quiet, tmp_path, MOONS)
    answer = quiet.http.get(f"/v1/studies/{study.id}/samples", headers={"Accept": "image/png"})
    assert answer.content.startswith(b"\x89PNG")
    empty = running_study(quiet.jobs)
    add_trial(quiet.jobs, empty, 0, at(0.1), results={9: {"kid_pca": 0.1}})
    path = f"/v1/studies/{empty.id}/samples"
    problem(quiet.http.get(path), 404, "no-answer-yet")
    problem(quiet.http.get(f"{path}?k=17"), 422, "invalid-query")
    problem(quiet.http.get("/v1/studies/study-none/samples"), 404, "study-not-found")
    accept = {"Accept": "text/html"}
    problem(quiet.http.get(path, headers=accept), 406, "not-acceptable")


def test_the_confirmed_best_goes_on_as_a_job_of_its_own(
    quiet: Quiet, digits: tuple[Study, list[Trial]]
) -> None:
    study, trials = digits
    path = f"/v1/studies/{study.id}/promote"
    early = problem(quiet.http.post(path, json={"epochs": 5}), 404, "no-answer-yet")
    assert "name a configuration, such as 1" in early["detail"]
    confirm(quiet.jobs, study, 1, at(0.3), kid_pca=[0.9] * 5)
    confirm(quiet.jobs, study, 2, at(0.5), kid_pca=[0.4] * 5)
    ended(quiet.jobs, study)
    # The trials on fresh seeds have no checkpoints here, so that the search's goes on.
    answer = quiet.http.post(path, json={"epochs": 5})
    assert answer.status_code == 202, answer.text
    job = answer.json()["job"]
    assert job["parent"]["job"] == trials[2].job_id
    assert job["name"] == "which noise: 2"


def test_a_named_configuration_is_promoted_once_for_a_key(
    quiet: Quiet, digits: tuple[Study, list[Trial]]
) -> None:
    study, trials = digits
    path = f"/v1/studies/{study.id}/promote"
    key = {"Idempotency-Key": "once"}
    asked = {"configuration": 1, "epochs": 5, "name": "the best noise"}
    answer = quiet.http.post(path, json=asked, headers=key)
    assert answer.status_code == 202, answer.text
    job = answer.json()["job"]
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert (job["name"], job["labels"]) == ("the best noise", {"study": study.id})
    assert (job["study"], job["state"]) == (None, "queued")
    assert job["parent"]["job"] == trials[1].job_id
    assert job["parent"]["start"] == "train_state"
    assert job["spec"]["trainer"]["epochs"] == 5
    assert job["spec"]["trainer"]["spread"]["scale"] == 0.3
    again = quiet.http.post(path, json=asked, headers=key)
    assert again.json()["job"]["id"] == job["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    other = quiet.http.post(path, json={**asked, "epochs": 6}, headers=key)
    problem(other, 422, "idempotency-conflict")
    # What was promoted stays when the study goes.
    ended(quiet.jobs, study)
    assert quiet.http.delete(f"/v1/studies/{study.id}").status_code == 204
    assert quiet.http.get(f"/v1/jobs/{job['id']}").status_code == 200


def test_what_cannot_be_promoted_says_why(quiet: Quiet, digits: tuple[Study, list[Trial]]) -> None:
    study, _ = digits
    path = f"/v1/studies/{study.id}/promote"
    own = problem(quiet.http.post(path, json={"configuration": 1}), 422, "invalid-spec")
    assert own["errors"][0]["pointer"] == "/epochs"
    assert own["detail"] == (
        "/epochs is left out, and so the trial's own 2: it must be more than 2, where the "
        'checkpoint stands, or begin with start "weights".'
    )
    for body, pointer in (
        ({"configuration": 1, "epochs": 1}, "/epochs"),
        ({"configuration": 1, "epochs": 0}, "/epochs"),
        ({"configuration": 99}, "/configuration"),
        ({"configurations": 1}, "/configurations"),
    ):
        answer = quiet.http.post(path, json=body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer
    add_trial(quiet.jobs, study, 7, at(0.9), state=JobState.FAILED, reason=Reason.DIVERGED)
    failed = quiet.http.post(path, json={"configuration": 7, "epochs": 9})
    problem(failed, 404, "no-answer-yet")
    problem(quiet.http.post("/v1/studies/study-none/promote"), 404, "study-not-found")
