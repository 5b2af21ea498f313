import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.api.conftest import Quiet, Running
from tests.unit.api.test_problems import problem


def path(running: Running) -> str:
    return f"/v1/jobs/{running.trained}/samples"


def arrays(running: Running, **params: Any) -> np.ndarray[Any, Any]:
    answer = running.http.get(path(running), params={**params, "format": "npz"})
    assert answer.status_code == 200, answer.text
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as found:
        samples: np.ndarray[Any, Any] = found["samples"]
    return samples


def test_fewer_samples_are_the_first_of_more(running: Running) -> None:
    many = arrays(running, n=150, seed=7)
    assert many.shape == (150, 8, 8)
    assert many.dtype == np.float32
    assert np.array_equal(arrays(running, n=16, seed=7), many[:16])
    assert not np.array_equal(arrays(running, n=16, seed=8), many[:16])


def test_the_same_request_has_the_same_bytes(running: Running) -> None:
    for form in ("png", "npz", "json"):
        first, again = (
            running.http.get(path(running), params={"n": 5, "format": form}) for _ in range(2)
        )
        assert first.content == again.content
        assert first.headers["etag"] == again.headers["etag"]


def test_json_holds_the_same_numbers_as_the_array(running: Running) -> None:
    body = running.http.get(path(running), params={"n": 3, "format": "json", "seed": 4}).json()
    array = arrays(running, n=3, seed=4)
    assert body["shape"] == [3, 8, 8]
    assert (body["n"], body["seed"], body["spread"]) == (3, 4, False)
    assert np.array_equal(np.array(body["samples"], dtype=np.float32), array)
    latest = running.http.get(f"/v1/jobs/{running.trained}/checkpoints").json()["checkpoints"][-1]
    assert (body["checkpoint"], body["step"]) == (latest["id"], latest["step"])


def test_spread_adds_noise_to_the_same_samples(running: Running) -> None:
    clean, spread = arrays(running, n=100), arrays(running, n=100, spread="true")
    noise = (spread - clean).ravel()
    # Laplace noise of standard deviation 0.5: kurtosis 6, so the sample variance has the standard
    # deviation sigma^2 * sqrt(5 / N); six of these bound it.
    assert abs(noise.var() - 0.25) < 6 * 0.25 * np.sqrt(5 / noise.size)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "image/png"),
        ("*/*", "image/png"),
        ("application/json", "application/json"),
        ("application/x-npz", "application/x-npz"),
        ("application/json;q=0.5, application/x-npz;q=0.6", "application/x-npz"),
    ],
)
def test_the_form_follows_accept(running: Running, accept: str | None, media_type: str) -> None:
    headers = {"Accept": accept} if accept else {}
    answer = running.http.get(path(running), params={"n": 2}, headers=headers)
    assert answer.headers["content-type"] == media_type
    assert answer.headers["vary"] == "Accept"


def test_format_overrides_accept(running: Running) -> None:
    answer = running.http.get(
        path(running), params={"n": 2, "format": "json"}, headers={"Accept": "image/png"}
    )
    assert answer.headers["content-type"] == "application/json"


def test_a_form_that_does_not_exist_is_answered_with_those_that_do(running: Running) -> None:
    answer = running.http.get(path(running), headers={"Accept": "image/jpeg"})
    assert "application/x-npz" in problem(answer, 406, "not-acceptable")["detail"]
    assert answer.headers["vary"] == "Accept"


def test_a_png_is_a_grid_of_all_samples(running: Running) -> None:
    small, large = (
        Image.open(io.BytesIO(running.http.get(path(running), params={"n": n}).content))
        for n in (4, 16)
    )
    assert small.format == "PNG"
    assert large.width > small.width
    assert large.height > small.height


def test_samples_of_a_named_checkpoint_never_change(running: Running) -> None:
    found = running.http.get(f"/v1/jobs/{running.trained}/checkpoints").json()["checkpoints"]
    tags = set()
    for checkpoint in found:
        answer = running.http.get(path(running), params={"n": 2, "checkpoint": checkpoint["id"]})
        assert answer.headers["cache-control"] == "max-age=31536000, immutable"
        assert "content-location" not in answer.headers
        tags.add(answer.headers["etag"])
    assert len(tags) == len(found)


@pytest.mark.parametrize("choice", ["latest", "best"])
def test_a_moving_name_says_which_checkpoint_it_is_now(running: Running, choice: str) -> None:
    params = {"n": "3", "seed": "5", "checkpoint": choice, "spread": "true"}
    answer = running.http.get(path(running), params=params)
    assert answer.headers["cache-control"] == "no-cache"
    there = running.http.get(answer.headers["content-location"])
    assert there.content == answer.content
    assert there.headers["etag"] == answer.headers["etag"]
    assert "immutable" in there.headers["cache-control"]


def test_samples_that_are_known_are_not_sent_again(running: Running) -> None:
    params = {"n": 3, "seed": 11}
    etag = running.http.get(path(running), params=params).headers["etag"]
    known = running.http.get(path(running), params=params, headers={"If-None-Match": etag})
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"] == etag
    assert known.headers["vary"] == "Accept"
    assert known.headers["cache-control"] == "no-cache"
    assert "content-location" in known.headers


def test_every_parameter_that_changes_the_bytes_changes_the_tag(running: Running) -> None:
    requests: tuple[dict[str, Any], ...] = (
        {},
        {"n": 3},
        {"seed": 1},
        {"spread": "true"},
        {"format": "npz"},
    )
    tags = {running.http.get(path(running), params=p).headers["etag"] for p in requests}
    assert len(tags) == len(requests)


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("n=0", "/query/n"),
        ("n=10001&format=npz", "/query/n"),
        ("n=1025&format=png", "/query/n"),
        ("n=1001&format=json", "/query/n"),
        ("n=1e3", "/query/n"),
        ("seed=-1", "/query/seed"),
        (f"seed={2**53}", "/query/seed"),
        ("spread=perhaps", "/query/spread"),
        ("format=gif", "/query/format"),
        ("count=3", "/query/count"),
    ],
)
def test_a_wrong_parameter_is_a_problem_that_names_it(
    running: Running, query: str, where: str
) -> None:
    answer = running.http.get(f"{path(running)}?{query}")
    fields = problem(answer, 422, "invalid-query")["errors"]
    assert [field["pointer"] for field in fields] == [where]


def test_an_unknown_checkpoint_is_a_problem(running: Running) -> None:
    answer = running.http.get(path(running), params={"checkpoint": "nope"})
    problem(answer, 404, "checkpoint-not-found")


def test_a_job_without_a_checkpoint_says_when_the_first_is_due(quiet: Quiet) -> None:
    answer = quiet.http.get(f"/v1/jobs/{quiet.submit()}/samples")
    assert "after epoch 1" in problem(answer, 404, "checkpoint-not-found")["detail"]


def test_a_film_strip_has_a_row_for_each_epoch_and_one_of_data(running: Running) -> None:
    strip = f"/v1/jobs/{running.trained}/filmstrip"

    def size(**params: Any) -> tuple[int, int]:
        answer = running.http.get(strip, params=params)
        assert answer.headers["content-type"] == "image/png"
        return Image.open(io.BytesIO(answer.content)).size

    rows = {count: size(epochs=",".join("123"[:count]), n=4)[1] for count in (1, 2, 3)}
    assert rows[3] - rows[2] == rows[2] - rows[1] > 0
    assert size(n=4) == size(epochs="1,2,3", n=4)
    assert size(n=8)[0] > size(n=4)[0]


@pytest.mark.parametrize(
    "query", ["epochs=7", "epochs=1;2", "epochs=", "epochs=-1", "n=0", "n=65", "seed=x"]
)
def test_a_wrong_film_strip_is_a_problem(running: Running, query: str) -> None:
    answer = running.http.get(f"/v1/jobs/{running.trained}/filmstrip?{query}")
    assert answer.status_code == 422
    [field] = problem(answer, 422, "invalid-query")["errors"]
    assert field["pointer"] == f"/query/{query.split('=')[0]}"
