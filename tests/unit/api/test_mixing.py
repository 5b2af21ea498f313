"""What an ``ica`` job has found, over HTTP."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.factories import ica_spec
from tests.unit.api.conftest import Running
from tests.unit.api.test_problems import problem
from tests.unit.workers.uploading import npz, npz_of_shape
from workers.data import load
from workers.generate import Generator

SPEC = ica_spec(samples=2000, noise_variance=0.04)
NOTHING = "/v1/jobs/job-0000000000000000"


@pytest.fixture(scope="module")
def job(running: Running) -> str:
    """The path of a fit that has succeeded."""
    answer = running.http.post("/v1/jobs", json={"spec": SPEC.model_dump(mode="json")})
    assert answer.status_code == 201, answer.text
    path = answer.headers["Location"]
    events = running.http.get(f"{path}/events", headers={"Accept": "text/event-stream"}).text
    assert '"reason":"converged"' in events
    return str(path)


def arrays_of(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def body_of(running: Running, path: str, **params: Any) -> dict[str, Any]:
    answer = running.http.get(path, params=params)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def rows() -> np.ndarray:
    return load(SPEC.dataset, Path("unused")).held_out.numpy()[:7].astype(np.float64)


def test_the_mixing_matrix_comes_with_fastica_and_the_truth(running: Running, job: str) -> None:
    body = body_of(running, f"{job}/mixing")
    assert np.shape(body["mixing"]) == np.shape(body["fastica_mixing"]) == (5, 2)
    truth = load(SPEC.dataset, Path("unused")).mixing
    assert truth is not None
    assert body["true_mixing"] == truth.tolist()
    assert body["errors"]["angle_degrees"] < 5
    assert body["fastica_errors"]["angle_degrees"] < 5
    assert body["noise_variance"] == 0.04
    assert [prior["kind"] for prior in body["priors"]] == ["laplace", "laplace"]
    assert body["held_out_log_evidence_nats"] == pytest.approx(body["log_evidence_nats"], abs=0.5)


def test_the_matrices_agree_in_every_form(running: Running, job: str) -> None:
    mixing, unmixing = (body_of(running, f"{job}/{what}") for what in ("mixing", "unmixing"))
    np.testing.assert_allclose(
        np.array(unmixing["unmixing"]) @ mixing["mixing"], np.eye(2), atol=1e-12
    )
    for what, body in (("mixing", mixing), ("unmixing", unmixing)):
        answer = running.http.get(f"{job}/{what}", headers={"Accept": "application/x-npz"})
        assert answer.headers["content-type"] == "application/x-npz"
        found = arrays_of(answer.content)
        assert found[what].tolist() == body[what]
        assert float(found["noise_variance"]) == 0.04
        header, *lines = csv.reader(running.http.get(f"{job}/{what}?format=csv").text.splitlines())
        assert header[0] == ("z0" if what == "mixing" else "x0")
        assert [[float(value) for value in line] for line in lines] == body[what]


def test_a_checkpoint_by_its_id_answers_for_ever_and_is_not_sent_again(
    running: Running, job: str
) -> None:
    latest = running.http.get(f"{job}/mixing")
    assert latest.headers["Cache-Control"] == "no-cache"
    same = running.http.get(latest.headers["Content-Location"])
    assert "immutable" in same.headers["Cache-Control"]
    assert (same.content, same.headers["ETag"]) == (latest.content, latest.headers["ETag"])
    tag = {"If-None-Match": latest.headers["ETag"]}
    assert running.http.get(f"{job}/mixing", headers=tag).status_code == 304
    assert running.http.get(f"{job}/unmixing", headers=tag).status_code == 200
    assert running.http.get(f"{job}/mixing?format=csv", headers=tag).status_code == 200
    first = running.http.get(f"{job}/checkpoints").json()["checkpoints"][0]["id"]
    assert body_of(running, f"{job}/mixing", checkpoint=first)["checkpoint"] == first
    assert body_of(running, f"{job}/mixing", checkpoint="best")["step"] == latest.json()["step"]


def test_sources_of_posted_data_are_those_that_made_them(running: Running, job: str) -> None:
    data = rows()
    answer = running.http.post(f"{job}/sources", json={"data": data.tolist()})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    mixing = body_of(running, f"{job}/mixing")
    mean = np.array(body["mean"])
    left = data - mean @ np.array(mixing["mixing"]).T - mixing["mean"]
    assert body["rmse"] == pytest.approx(np.sqrt((left**2).mean()))
    assert body["rmse"] < 0.4  # the noise has 0.2
    assert (body["n"], np.shape(body["variance"])) == (7, (7, 2))
    assert 0 < np.array(body["variance"]).max() < 0.04
    sent = npz(rows=data)
    headers = {"Content-Type": "application/x-npz", "Accept": "application/x-npz"}
    found = arrays_of(running.http.post(f"{job}/sources", content=sent, headers=headers).content)
    assert found["mean"].tolist() == body["mean"]
    assert found["variance"].tolist() == body["variance"]


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        ([], "/data"),
        ([[1.0] * 4], "/data/0"),
        ([[1.0] * 5, [1.0] * 4], "/data/1"),
        ([[1.0] * 5, [1.0, "a", 1.0, 1.0, 1.0]], "/data/1/1"),
        ([[1e300] * 5], "/data/0/0"),
        (None, "/data"),
    ],
)
def test_data_that_cannot_be_used_are_refused_where_they_are_wrong(
    running: Running, job: str, data: object, pointer: str
) -> None:
    answer = running.http.post(f"{job}/sources", json={"data": data})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        npz(a=np.zeros((2, 5)), b=np.zeros((2, 5))),
        npz(a=np.zeros(5)),
        npz(a=np.zeros((2, 5), complex)),
        npz(a=np.full((2, 5), np.nan)),
        npz(a=np.zeros((0, 5))),
        npz(a=np.zeros((1 << 16, 5), np.uint8)),
        npz(a=np.zeros((3, 5)))[:-30],
        npz(a=np.array([["a"]])),
        npz_of_shape(f"({'9' * 4000}, {'9' * 4000})"),
    ],
    ids=range(11),
)
def test_an_archive_that_holds_no_data_is_refused(
    running: Running, job: str, content: bytes
) -> None:
    headers = {"Content-Type": "application/x-npz"}
    answer = running.http.post(f"{job}/sources", content=content, headers=headers)
    assert problem(answer, 422, "invalid-data")


def test_data_of_another_type_are_refused(running: Running, job: str) -> None:
    answer = running.http.post(f"{job}/sources", content=b"1", headers={"Content-Type": CSV_TYPE})
    assert problem(answer, 415, "unsupported-media-type")
    answer = running.http.post(f"{job}/sources", content=b"{", headers={"Content-Type": JSON_TYPE})
    assert problem(answer, 400, "malformed-body")


CSV_TYPE, JSON_TYPE = "text/csv", "application/json"


@pytest.mark.parametrize("what", ["grids", "filmstrip", "interpolations"])
def test_what_a_linear_model_has_not_is_not_found(running: Running, job: str, what: str) -> None:
    assert "ica" in problem(running.http.get(f"{job}/{what}"), 404, "other-trainer")["detail"]


@pytest.mark.parametrize("what", ["mixing", "unmixing"])
def test_a_network_has_no_mixing_matrix(running: Running, what: str) -> None:
    answer = running.http.get(f"/v1/jobs/{running.trained}/{what}")
    assert "delta_vae" in problem(answer, 404, "other-trainer")["detail"]
    answer = running.http.post(f"/v1/jobs/{running.trained}/sources", json={"data": [[1.0]]})
    assert problem(answer, 404, "other-trainer")
    assert problem(running.http.get(f"{NOTHING}/{what}"), 404, "job-not-found")


def test_a_job_links_to_what_its_trainer_has(running: Running, job: str) -> None:
    links = body_of(running, job)["links"]
    assert {"mixing", "unmixing", "sources", "samples", "reconstructions"} <= set(links)
    assert not {"grids", "filmstrip", "interpolations"} & set(links)
    for name in ("mixing", "unmixing", "samples", "reconstructions", "artifacts"):
        assert running.http.get(links[name]).status_code == 200, name


def test_samples_are_mixtures_and_with_the_noise_as_wide_as_the_data(
    running: Running, job: str
) -> None:
    model = body_of(running, f"{job}/mixing")
    get = running.http.get
    clean, noisy, few = (
        arrays_of(get(f"{job}/samples", params={"format": "npz", **more}).content)["samples"]
        for more in ({"n": "4000"}, {"n": "4000", "spread": "true"}, {"n": "16"})
    )
    assert np.array_equal(few, clean[:16])
    basis = np.array(model["mixing"])
    outside = (clean - model["mean"]) @ (np.eye(5) - basis @ np.linalg.pinv(basis))
    assert np.abs(outside).max() < 1e-5
    noise = (noisy - clean).astype(np.float64)
    # A normal sample variance has the standard deviation v·√(2/N); six of these bound it.
    assert abs(noise.var() - 0.04) < 6 * 0.04 * np.sqrt(2 / noise.size)


def test_reconstructions_are_the_mixtures_of_posterior_means(running: Running, job: str) -> None:
    params = {"format": "json", "n": "5"}
    body = running.http.get(f"{job}/reconstructions", params=params).json()
    assert body["x"] == body["y"]
    assert body["noise_scale"] == 0
    posted = running.http.post(f"{job}/sources", json={"data": body["x"]}).json()
    np.testing.assert_allclose(body["z"], posted["mean"], atol=1e-5)
    assert body["rmse"] == pytest.approx(posted["rmse"], rel=1e-4)
    assert running.http.get(f"{job}/reconstructions").headers["content-type"] == "image/png"


def test_the_weights_alone_draw_what_the_service_draws(
    running: Running, job: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(running.http.get(f"{job}/checkpoints/latest/weights").content)
    generator = Generator.load(path)
    answer = running.http.get(f"{job}/samples", params={"format": "npz", "n": 9, "seed": 3})
    assert np.array_equal(generator.sample(9, seed=3), arrays_of(answer.content)["samples"])
    assert generator.ica is not None
    assert generator.ica.mixing.tolist() == body_of(running, f"{job}/mixing")["mixing"]
