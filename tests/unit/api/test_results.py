import csv
import hashlib
import io
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from safetensors.torch import load

from api import bodies, render
from service.jobs import MetricPoint
from tests.unit.api.conftest import Running
from tests.unit.api.test_problems import problem


def path(running: Running, below: str = "") -> str:
    return f"/v1/jobs/{running.trained}/{below}"


def checkpoints(running: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = running.http.get(path(running, "checkpoints")).json()[
        "checkpoints"
    ]
    return found


def test_metrics_come_by_name_in_the_order_of_steps(running: Running) -> None:
    metrics = running.http.get(path(running, "metrics")).json()["metrics"]
    assert {"loss_nats", "reconstruction_nats", "kl_nats", "held_out_elbo_nats"} <= set(metrics)
    for points in metrics.values():
        steps = [point["step"] for point in points]
        assert steps == sorted(steps)
    only = running.http.get(
        path(running, "metrics"), params={"name": ["loss_nats", "kl_nats"]}
    ).json()["metrics"]
    assert only == {name: metrics[name] for name in ("loss_nats", "kl_nats")}


def test_thinned_metrics_keep_their_ends(running: Running) -> None:
    whole = running.http.get(path(running, "metrics")).json()["metrics"]["loss_nats"]
    thin = running.http.get(path(running, "metrics"), params={"max_points": 2}).json()
    assert len(whole) > 2
    assert thin["metrics"]["loss_nats"] == [whole[0], whole[-1]]


@pytest.mark.parametrize("by", ["accept", "format"])
def test_metrics_as_csv_hold_the_same_numbers(running: Running, by: str) -> None:
    params = {"name": "loss_nats"} | ({"format": "csv"} if by == "format" else {})
    headers = {"Accept": "text/csv"} if by == "accept" else {}
    answer = running.http.get(path(running, "metrics"), params=params, headers=headers)
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["vary"] == "Accept"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    points = running.http.get(path(running, "metrics"), params={"name": "loss_nats"}).json()
    expected = [(p["step"], p["value"]) for p in points["metrics"]["loss_nats"]]
    assert [(int(row["step"]), float(row["value"])) for row in rows] == expected
    assert {row["metric"] for row in rows} == {"loss_nats"}


def test_an_unknown_metric_is_answered_with_those_that_exist(running: Running) -> None:
    answer = running.http.get(path(running, "metrics"), params={"name": "los_nats"})
    [field] = problem(answer, 422, "invalid-query")["errors"]
    assert field["pointer"] == "/query/name"
    assert "loss_nats" in field["message"]


def test_metrics_in_another_form_do_not_exist(running: Running) -> None:
    answer = running.http.get(path(running, "metrics"), headers={"Accept": "image/png"})
    assert "text/csv" in problem(answer, 406, "not-acceptable")["detail"]


def test_checkpoints_are_listed_by_step_with_their_addresses(running: Running) -> None:
    found = checkpoints(running)
    assert [checkpoint["epoch"] for checkpoint in found] == [1.0, 2.0, 3.0]
    steps = [checkpoint["step"] for checkpoint in found]
    assert steps == sorted(steps)
    for checkpoint in found:
        weights = running.http.get(checkpoint["links"]["weights"])
        assert weights.status_code == 200
        assert len(weights.content) == checkpoint["size_bytes"]
        digest = "sha256:" + hashlib.sha256(weights.content).hexdigest()
        assert digest == checkpoint["digest"]
        assert weights.headers["etag"] == f'"{digest}"'
        assert load(weights.content)
        assert running.http.get(checkpoint["links"]["samples"]).status_code == 200


def test_latest_and_best_name_checkpoints(running: Running) -> None:
    found = checkpoints(running)
    by_choice = {
        choice: running.http.get(path(running, f"checkpoints/{choice}/weights")).headers["etag"]
        for choice in ("latest", "best")
    }
    assert by_choice["latest"] == f'"{found[-1]["digest"]}"'
    assert by_choice["best"] == f'"{[c for c in found if c["is_best"]][-1]["digest"]}"'


def test_weights_are_fetched_in_ranges(running: Running) -> None:
    address = path(running, "checkpoints/latest/weights")
    whole = running.http.get(address)
    size = len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-length"] == str(size)
    joined = b""
    for start in range(0, size, 1000):
        part = running.http.get(address, headers={"Range": f"bytes={start}-{start + 999}"})
        assert part.status_code == 206
        stop = min(start + 1000, size)
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert part.headers["content-length"] == str(len(part.content))
        joined += part.content
    assert joined == whole.content
    tail = running.http.get(address, headers={"Range": "bytes=-7"})
    assert tail.content == whole.content[-7:]


def test_a_range_beyond_the_weights_is_refused_with_their_size(running: Running) -> None:
    address = path(running, "checkpoints/latest/weights")
    size = len(running.http.get(address).content)
    answer = running.http.get(address, headers={"Range": f"bytes={size}-"})
    problem(answer, 416, "range-not-satisfiable")
    assert answer.headers["content-range"] == f"bytes */{size}"


def test_weights_that_are_known_are_not_sent_again(running: Running) -> None:
    address = path(running, "checkpoints/latest/weights")
    etag = running.http.get(address).headers["etag"]
    known = running.http.get(address, headers={"If-None-Match": etag, "Range": "bytes=0-1"})
    assert (known.status_code, known.content) == (304, b"")
    stale = running.http.get(address, headers={"If-Range": '"old"', "Range": "bytes=0-1"})
    assert stale.status_code == 200


def test_a_file_is_sent_only_as_the_one_that_is_expected(running: Running) -> None:
    address = path(running, "checkpoints/latest/weights")
    etag = running.http.get(address).headers["etag"]
    for given in (etag, "*", f'"other", {etag}'):
        assert running.http.get(address, headers={"If-Match": given}).status_code == 200
    for given in ('"other"', f"W/{etag}"):
        answer = running.http.get(address, headers={"If-Match": given, "If-None-Match": etag})
        problem(answer, 412, "content-changed")
        assert answer.headers["etag"] == etag


def test_the_head_of_a_file_has_no_range(running: Running) -> None:
    address = path(running, "checkpoints/latest/weights")
    whole = running.http.head(address)
    for given in ("bytes=0-1", f"bytes={10**9}-"):
        head = running.http.head(address, headers={"Range": given})
        assert head.status_code == 200
        assert head.headers["content-length"] == whole.headers["content-length"]


def test_an_unknown_checkpoint_is_a_problem(running: Running) -> None:
    answer = running.http.get(path(running, "checkpoints/nope/weights"))
    problem(answer, 404, "checkpoint-not-found")


def test_grids_are_pictures_in_the_order_of_steps(running: Running) -> None:
    grids = running.http.get(path(running, "grids")).json()["grids"]
    assert [grid["epoch"] for grid in grids] == [1.0, 2.0, 3.0]
    for grid in grids:
        picture = running.http.get(grid["links"]["content"])
        assert picture.headers["content-type"] == "image/png"
        assert picture.headers["x-content-type-options"] == "nosniff"
        assert picture.content.startswith(b"\x89PNG")
        assert "sha256:" + hashlib.sha256(picture.content).hexdigest() == grid["digest"]


def test_artifacts_are_listed_by_name_and_fetched_in_ranges(running: Running) -> None:
    found = running.http.get(path(running, "artifacts")).json()["artifacts"]
    names = [artifact["name"] for artifact in found]
    assert names == sorted(names)
    address = found[0]["links"]["content"]
    part = running.http.get(address, headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")


def test_a_redirect_that_the_store_does_not_offer_is_the_file_itself(running: Running) -> None:
    for address in ("checkpoints/latest/weights", "artifacts/grids/00000027.png"):
        plain = running.http.get(path(running, address))
        redirected = running.http.get(path(running, f"{address}?redirect=true"))
        assert redirected.status_code == plain.status_code == 200
        assert redirected.content == plain.content
    wrong = running.http.get(path(running, "checkpoints/latest/weights?redirect=maybe"))
    problem(wrong, 422, "invalid-query")


@pytest.mark.parametrize(
    "name",
    ["nope.png", "../outcome.json", "grids/../../outcome.json", "%2e%2e/outcome.json", "a//b"],
)
def test_a_file_that_is_no_artifact_cannot_be_fetched(running: Running, name: str) -> None:
    answer = running.http.get(path(running, f"artifacts/{name}"))
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_many_points_are_written_as_the_model_of_the_answer_would_write_them() -> None:
    at = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
    points = [
        MetricPoint(step, epoch, value, at)
        for step, epoch, value in ((1, 0.1, 1e-9), (2, 1.0, math.nan), (3, 1e22, -math.inf))
    ]
    written = render.metrics_json({"loss_nats": points, "none": []})
    body = bodies.MetricsBody.model_validate_json(written)
    assert body.model_dump_json().encode() == written
    assert [point.value for point in body.metrics["loss_nats"]] == [1e-9, None, None]
