"""Reconstructions and interpolations over HTTP: what they share, and what each has of its own."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.api.conftest import Quiet, Running
from tests.unit.api.test_problems import problem
from tests.unit.workers.uploading import GREY, npz
from workers.content import data_key, facts_key

BOTH = ("reconstructions", "interpolations")
PARAMETERS = {
    "reconstructions": {"n": "3", "seed": "5"},
    "interpolations": {"n": "2", "seed": "5", "steps": "3", "between": "data", "path": "linear"},
}


def path(running: Running, what: str) -> str:
    return f"/v1/jobs/{running.trained}/{what}"


def arrays(running: Running, what: str, **params: Any) -> dict[str, np.ndarray]:
    answer = running.http.get(path(running, what), params={**params, "format": "npz"})
    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def test_fewer_reconstructions_are_the_first_of_more(running: Running) -> None:
    many, few = (arrays(running, "reconstructions", n=n, seed=7) for n in (64, 16))
    for name in ("x", "y", "z", "g"):
        assert np.array_equal(few[name], many[name][:16])
    assert not np.array_equal(arrays(running, "reconstructions", seed=8)["x"], few["x"])


def test_y_is_x_with_the_noise_of_the_job(running: Running) -> None:
    found = arrays(running, "reconstructions", n=500)
    noise = (found["y"].astype(np.float64) - found["x"]).ravel()
    # Laplace noise of standard deviation 0.5: kurtosis 6, so the sample variance has the standard
    # deviation sigma^2 * sqrt(5 / N); six of these bound it.
    assert abs(noise.var() - 0.25) < 6 * 0.25 * np.sqrt(5 / noise.size)
    body = running.http.get(
        path(running, "reconstructions"), params={"format": "json", "n": 2}
    ).json()
    assert body["noise_scale"] == 0.5
    assert np.array_equal(np.array(body["y"], np.float32), found["y"][:2])
    assert np.array_equal(np.array(body["g"], np.float32), found["g"][:2])
    assert (body["shape"], len(body["z"][0])) == ([2, 8, 8], 4)


def test_paths_begin_and_end_where_samples_and_reconstructions_are(running: Running) -> None:
    drawn = arrays(running, "samples", n=6, seed=3)["samples"].reshape(3, 2, 8, 8)
    prior = arrays(running, "interpolations", n=3, seed=3)
    assert prior["g"].shape == (3, 10, 8, 8)
    np.testing.assert_allclose(prior["g"][:, [0, -1]], drawn, atol=1e-6)
    ends = arrays(running, "reconstructions", n=6, seed=3)
    data = arrays(running, "interpolations", n=3, seed=3, between="data")
    assert data["x"].tobytes() == ends["x"].tobytes()
    assert data["z"][:, [0, -1]].tobytes() == ends["z"].tobytes()
    params = {"format": "json", "n": "3", "seed": "3"}
    body = running.http.get(path(running, "interpolations"), params=params).json()
    assert (body["between"], body["path"], body["x"]) == ("prior", "spherical", None)
    assert np.array_equal(np.array(body["g"], np.float32), prior["g"])


@pytest.mark.parametrize("what", BOTH)
def test_the_same_request_has_the_same_bytes_in_every_form(running: Running, what: str) -> None:
    for form, media_type in (
        ("png", "image/png"),
        ("npz", "application/x-npz"),
        ("json", "application/json"),
    ):
        params = {**PARAMETERS[what], "format": form}
        first, again = (running.http.get(path(running, what), params=params) for _ in range(2))
        assert first.headers["content-type"] == media_type
        assert first.content == again.content
        assert first.headers["etag"] == again.headers["etag"]
        by_accept = running.http.get(
            path(running, what), params=PARAMETERS[what], headers={"Accept": media_type}
        )
        assert by_accept.content == first.content
        assert by_accept.headers["vary"] == "Accept"


@pytest.mark.parametrize("what", BOTH)
def test_a_picture_comes_where_nothing_is_asked_for(running: Running, what: str) -> None:
    answer = running.http.get(path(running, what))
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.format == "PNG"
        assert picture.width > 10 * 56
        assert picture.height > 3 * 56
    head = running.http.head(path(running, what))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == answer.headers["etag"]
    assert head.headers["content-length"] == answer.headers["content-length"]


@pytest.mark.parametrize("what", BOTH)
@pytest.mark.parametrize("choice", ["latest", "best"])
def test_a_moving_name_says_which_checkpoint_it_is_now(
    running: Running, what: str, choice: str
) -> None:
    params = {**PARAMETERS[what], "checkpoint": choice, "format": "json"}
    answer = running.http.get(path(running, what), params=params)
    assert answer.headers["cache-control"] == "no-cache"
    there = running.http.get(answer.headers["content-location"])
    assert there.content == answer.content
    assert there.headers["etag"] == answer.headers["etag"]
    assert there.headers["cache-control"] == "max-age=31536000, immutable"
    assert "content-location" not in there.headers


@pytest.mark.parametrize("what", BOTH)
def test_what_is_known_is_not_sent_again(running: Running, what: str) -> None:
    etag = running.http.get(path(running, what), params=PARAMETERS[what]).headers["etag"]
    known = running.http.get(
        path(running, what), params=PARAMETERS[what], headers={"If-None-Match": etag}
    )
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == etag
    assert known.headers["vary"] == "Accept"
    for changed in ({"seed": "6"}, {"n": "1"}, {"format": "npz"}):
        other = running.http.get(path(running, what), params={**PARAMETERS[what], **changed})
        assert other.headers["etag"] != etag


@pytest.mark.parametrize("what", BOTH)
def test_a_form_that_does_not_exist_is_answered_with_those_that_do(
    running: Running, what: str
) -> None:
    answer = running.http.get(path(running, what), headers={"Accept": "image/jpeg"})
    assert "application/x-npz" in problem(answer, 406, "not-acceptable")["detail"]


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("reconstructions?n=0", "/query/n"),
        ("reconstructions?n=2501&format=npz", "/query/n"),
        ("reconstructions?n=257&format=png", "/query/n"),
        ("reconstructions?n=251&format=json", "/query/n"),
        ("reconstructions?seed=-1", "/query/seed"),
        ("reconstructions?spread=true", "/query/spread"),
        ("reconstructions?format=gif", "/query/format"),
        ("interpolations?n=0", "/query/n"),
        ("interpolations?steps=1", "/query/steps"),
        ("interpolations?steps=65", "/query/steps"),
        ("interpolations?n=103&steps=10", "/query/n"),
        ("interpolations?n=16&steps=64&format=json", "/query/n"),
        ("interpolations?n=1001&steps=10&format=npz", "/query/n"),
        ("interpolations?between=neighbours", "/query/between"),
        ("interpolations?path=scenic", "/query/path"),
    ],
)
def test_a_wrong_parameter_is_a_problem_that_names_it(
    running: Running, query: str, where: str
) -> None:
    answer = running.http.get(path(running, query))
    fields = problem(answer, 422, "invalid-query")["errors"]
    assert [field["pointer"] for field in fields] == [where]


@pytest.mark.parametrize("what", BOTH)
def test_a_job_or_checkpoint_that_is_not_there_is_a_problem(
    running: Running, quiet: Quiet, what: str
) -> None:
    unknown = running.http.get(path(running, what), params={"checkpoint": "nope"})
    problem(unknown, 404, "checkpoint-not-found")
    problem(running.http.get(f"/v1/jobs/job-none/{what}"), 404, "job-not-found")
    early = quiet.http.get(f"/v1/jobs/{quiet.submit()}/{what}")
    assert "after epoch 1" in problem(early, 404, "checkpoint-not-found")["detail"]


def test_a_job_leads_to_both(running: Running) -> None:
    links = running.http.get(f"/v1/jobs/{running.trained}").json()["links"]
    for what in BOTH:
        assert links[what] == path(running, what)
        assert running.http.get(links[what]).status_code == 200


def test_a_job_whose_data_are_gone_says_so(running: Running) -> None:
    values = np.repeat(GREY, 3, 0)
    uploaded = running.http.put("/v1/datasets/passing", content=npz(data=values)).json()
    network = {"kind": "mlp", "hidden": [4], "latent_dim": 2}
    trainer = {"kind": "delta_vae", "network": network, "epochs": 1, "batch_size": 10}
    spec = {"dataset": {"name": "passing"}, "trainer": trainer}
    job = running.http.post("/v1/jobs", json={"spec": spec}).json()["id"]
    events = running.http.get(f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"})
    assert '"state":"succeeded"' in events.text
    root = running.settings.data_dir / "artifacts"
    for key in (data_key(uploaded["digest"]), facts_key(uploaded["digest"])):
        (root / key).unlink()
    answer = running.http.get(f"/v1/jobs/{job}/reconstructions")
    assert "upload it again" in problem(answer, 404, "result-not-found")["detail"]
    query = "interpolations?between=data"
    problem(running.http.get(f"/v1/jobs/{job}/{query}"), 404, "result-not-found")
    assert running.http.get(f"/v1/jobs/{job}/interpolations").status_code == 200
    assert running.http.get(f"/v1/jobs/{job}/samples").status_code == 200
