import contextlib
import gzip
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from api.client import ApiError, Client
from tests.e2e.processes import wait_until
from tests.trials import study_body
from tests.unit.api.conftest import Quiet, Running
from tests.unit.api.test_problems import problem
from tests.unit.workers.uploading import COLOUR, GOOD, GREY, VECTORS, archive, npz, pictures

PATH = "/v1/datasets/ours"
PICTURES, NUMBERS = npz(images=GREY), npz(data=VECTORS)


def put(quiet: Quiet, content: Any, path: str = PATH, **headers: str) -> httpx2.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return quiet.http.put(path, content=content, headers=sent)


def left(folder: Path) -> list[Path]:
    return [path for path in (folder / "incoming").rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", GOOD)
def test_an_upload_becomes_a_data_set(quiet: Quiet, name: str) -> None:
    answer = put(quiet, GOOD[name])
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == PATH
    found = quiet.http.get(PATH)
    assert found.json() == answer.json()
    assert found.headers["etag"] == answer.headers["etag"]
    assert found.json() in quiet.http.get("/v1/datasets").json()["datasets"]
    body = found.json()
    assert (body["name"], body["uploaded"], body["version"]) == ("ours", True, 1)
    assert body["count"] >= 20


@pytest.mark.parametrize(
    "media_type",
    ["application/x-npz", "application/zip", "text/csv; charset=utf-8", "application/gzip"],
)
def test_the_content_tells_the_format_and_not_the_header(quiet: Quiet, media_type: str) -> None:
    assert put(quiet, gzip.compress(GOOD["idx"]), content_type=media_type).status_code == 201


@pytest.mark.parametrize(
    "media_type", ["multipart/form-data; boundary=x", "application/json", "text/html", "nonsense"]
)
def test_a_form_is_no_upload(quiet: Quiet, media_type: str) -> None:
    answer = put(quiet, b"{}", content_type=media_type)
    problem(answer, 415, "not-an-upload")
    assert "application/octet-stream" in answer.headers["accept"]


def test_the_same_content_again_is_the_same(quiet: Quiet) -> None:
    first = put(quiet, PICTURES)
    again = put(quiet, archive(pictures(GREY)))
    assert (again.status_code, again.json()) == (200, first.json())
    # Also for one who repeats a request whose answer was lost.
    repeated = put(quiet, PICTURES, if_match='"0-old"')
    assert repeated.status_code == 200


def test_a_name_moves_with_if_match_alone(quiet: Quiet) -> None:
    first = put(quiet, PICTURES)
    found = problem(put(quiet, NUMBERS), 428, "dataset-exists")
    assert "If-Match" in found["detail"]
    moved = put(quiet, NUMBERS, if_match=first.headers["etag"])
    assert (moved.status_code, moved.json()["version"]) == (200, 2)
    assert moved.json()["shape"] == [3]
    for tag in (first.headers["etag"], "W/" + moved.headers["etag"], "garbage"):
        problem(put(quiet, PICTURES, if_match=tag), 412, "dataset-changed")
    assert put(quiet, PICTURES, if_match="*").json()["version"] == 3


def test_only_new_names_with_if_none_match(quiet: Quiet) -> None:
    assert put(quiet, PICTURES, if_none_match="*").status_code == 201
    problem(put(quiet, PICTURES, if_none_match="*"), 412, "dataset-changed")
    problem(put(quiet, PICTURES, "/v1/datasets/new", if_match="*"), 412, "dataset-changed")


def test_a_data_set_that_has_not_changed_is_not_sent_again(quiet: Quiet) -> None:
    put(quiet, PICTURES)
    for path in (PATH, "/v1/datasets/digits"):
        tag = quiet.http.get(path).headers["etag"]
        again = quiet.http.get(path, headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")


def test_what_is_no_data_set_is_a_problem_with_the_reason(quiet: Quiet, tmp_path: Path) -> None:
    body = problem(put(quiet, b"1,2\n" * 30 + b"3,x\n"), 422, "invalid-dataset")
    assert "line 31, column 2: 'x'" in body["detail"]
    problem(quiet.http.get(PATH), 404, "dataset-not-found")
    assert left(tmp_path) == []
    assert not list(quiet.artifacts.list("datasets"))


def test_names_that_cannot_be_uploaded(quiet: Quiet) -> None:
    for name in ("mnist", "ring"):
        problem(put(quiet, PICTURES, f"/v1/datasets/{name}"), 409, "dataset-built-in")
        problem(quiet.http.delete(f"/v1/datasets/{name}"), 409, "dataset-built-in")
    body = problem(put(quiet, PICTURES, "/v1/datasets/Ours"), 422, "invalid-dataset")
    assert body["errors"][0]["pointer"] == "/path/name"
    problem(put(quiet, PICTURES, "/v1/datasets/a%2Fb"), 404, "no-such-route")
    problem(put(quiet, PICTURES, PATH + "?x=1"), 422, "invalid-query")


def test_a_body_beyond_the_limit_is_refused_as_soon_as_it_is_known(
    quiet: Quiet, tmp_path: Path
) -> None:
    limit = quiet.settings.max_upload_bytes
    declared = quiet.http.put(PATH, content=b"x", headers={"Content-Length": str(limit + 1)})
    problem(declared, 413, "body-too-large")
    assert limit > quiet.settings.max_body_bytes
    assert put(quiet, bytes(quiet.settings.max_body_bytes + 1)).status_code == 422
    assert left(tmp_path) == []


def test_a_used_data_set_is_not_deleted_and_names_its_jobs(quiet: Quiet) -> None:
    first = put(quiet, NUMBERS)
    body = {"spec": {"dataset": {"name": "ours"}, "trainer": {"kind": "vae", "batch_size": 10}}}
    job = quiet.http.post("/v1/jobs", json=body).json()
    assert job["spec"]["dataset"]["digest"] == first.json()["digest"]
    found = problem(quiet.http.delete(PATH), 409, "dataset-in-use")
    assert found["jobs"] == [job["id"]]
    moved = put(quiet, PICTURES, if_match="*")
    tag = {"If-Match": moved.headers["etag"]}
    problem(quiet.http.delete(PATH, headers={"If-Match": '"1-x"'}), 412, "dataset-changed")
    gone = quiet.http.delete(PATH, headers=tag)
    assert (gone.status_code, gone.content) == (204, b"")
    problem(quiet.http.delete(PATH), 404, "dataset-not-found")
    # What the job pins can be submitted again although the name is gone.
    again = quiet.http.get(f"/v1/jobs/{job['id']}/spec").json()
    assert quiet.http.post("/v1/jobs", json=again).status_code == 201


@pytest.mark.parametrize("tuned", ["/trainer/network/latent_dim", "/dataset/split_seed"])
def test_a_study_that_waits_keeps_its_data_set_and_is_named(quiet: Quiet, tuned: str) -> None:
    put(quiet, npz(data=np.ones((400, 3), np.float32)))
    trainer = {"kind": "delta_vae", "batch_size": 10, "quality": {"samples": 100, "components": 2}}
    body = study_body(
        spec={"dataset": {"name": "ours"}, "trainer": trainer},
        space={tuned: {"choice": [1, 2]}},
        override_guard=True,
    )
    study = quiet.http.post("/v1/studies", json=body)
    assert study.status_code == 201, study.text
    found = problem(quiet.http.delete(PATH), 409, "dataset-in-use")
    assert (found["jobs"], found["studies"]) == ([], [study.json()["id"]])
    assert quiet.http.get(PATH).status_code == 200


def test_an_upload_that_breaks_off_leaves_nothing_behind(running: Running, url: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    folder = running.settings.incoming_dir
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"PUT /v1/datasets/half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        )
        connection.sendall(NUMBERS)
        wait_until(lambda: list(folder.glob("*/source")), 60, "the upload to begin")
    wait_until(lambda: not list(folder.glob("*/source")), 60, "the half upload to be removed")
    with Client(url) as client:
        assert "half" not in [info.name for info in client.datasets()]


def test_of_an_endless_upload_no_more_is_kept_than_is_allowed(url: str, running: Running) -> None:
    limit = running.settings.max_upload_bytes
    folder = running.settings.incoming_dir
    sizes = [0]

    def endless() -> Iterator[bytes]:
        for _ in range(16 * limit >> 16):
            with contextlib.suppress(FileNotFoundError):
                sizes.append(sum(path.stat().st_size for path in folder.glob("*/source")))
            yield bytes(1 << 16)

    with httpx2.Client(base_url=url) as http:
        answer = http.put("/v1/datasets/endless", content=endless())
    problem(answer, 413, "body-too-large")
    assert 0 < max(sizes) <= limit
    assert not list(folder.glob("*/source"))


def test_a_job_on_an_upload_from_end_to_end(url: str, tmp_path: Path) -> None:
    file = tmp_path / "faces.zip"
    file.write_bytes(archive(pictures(COLOUR)))
    with Client(url) as client:
        info = client.upload("faces", file)
        assert info.title == "24 pictures, 6×6 colour, uploaded"
        assert client.upload("faces", str(file)) == client.dataset("faces") == info
        spec = {
            "dataset": {"name": "faces"},
            "trainer": {
                "kind": "delta_vae",
                "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2},
                "epochs": 2,
                "batch_size": 8,
            },
        }
        job = client.submit(spec).wait(60)
        assert job.samples(3).shape == (3, 6, 6, 3)
        assert job.filmstrip_png(None, 4, 0).startswith(b"\x89PNG")
        with pytest.raises(ApiError) as refusal:
            client.delete_dataset("faces")
        assert refusal.value.problem.jobs == [job.id]
        file.write_bytes(NUMBERS)
        with pytest.raises(ApiError, match="If-Match"):
            client.upload("faces", file)
        assert client.upload("faces", file, replace=True).version == 2
        client.delete_dataset("faces")
        assert "faces" not in [info.name for info in client.datasets()]
        assert client.upload("faces", file, replace=True).version == 1
        client.delete_dataset("faces")
