"""Figures of the paper over HTTP, from the Python client and from the command line."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from api.cli import app
from api.client import ApiError, Client, JobHandle
from api.client.figure import FILES
from tests.factories import paper_spec
from tests.unit.api.conftest import Running
from tests.unit.api.test_cli import refused
from tests.unit.api.test_problems import problem
from workers.paper import results
from workers.spec import JOB_SPEC

SPEC = {"trainer": {"kind": "paper", "figure": "mixture"}}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def job(url: str) -> Iterator[JobHandle]:
    with Client(url) as client:
        yield client.submit(SPEC).wait(90)


def run(job: JobHandle, *arguments: str) -> Result:
    runner = CliRunner(env={"SPREADTRAIN_URL": job._connection.url, "COLUMNS": "200"})
    return runner.invoke(app, arguments)


def test_a_figure_is_three_files_and_its_verdicts(job: JobHandle, tmp_path: Path) -> None:
    numbers = job.figure.numbers()
    assert (numbers.figure, numbers.source) == ("mixture", "Appendix E")
    assert [verdict.holds for verdict in numbers.verdicts] == [True] * 3
    assert str(numbers.verdicts[0]).startswith("holds: Noise mixed in gives no slope")
    assert all(verdict.text in job.body.message for verdict in numbers.verdicts)
    assert job.figure.png().startswith(PNG)
    rows = job.figure.rows()
    assert {row["kl"] for row in rows if row["noise"] == "mixed"} == {"0.0", "inf"}
    files = job.figure.download(tmp_path / "new" / "folder")
    assert [file.name for file in files] == list(FILES)
    assert files[0].read_bytes() == job.figure.png()


def test_the_files_have_the_names_that_the_worker_gives_them() -> None:
    assert (results.PICTURE, results.TABLE, results.NUMBERS) == FILES


def test_a_job_says_that_it_has_no_data_and_links_to_what_there_is(
    running: Running, job: JobHandle
) -> None:
    body = running.http.get(f"/v1/jobs/{job.id}").json()
    assert body["dataset"] is None
    assert body["spec"]["dataset"] is None
    assert {"artifacts", "metrics", "checkpoints", "retry"} <= body["links"].keys()
    assert not {"samples", "reconstructions", "grids", "mixing", "fork"} & body["links"].keys()
    for name in ("artifacts", "metrics", "checkpoints", "spec", "explain", "logs"):
        assert running.http.get(body["links"][name]).status_code == 200
    [first, *_] = running.http.get(body["links"]["checkpoints"]).json()["checkpoints"]
    assert first["links"].keys() == {"weights"}
    assert running.http.get(first["links"]["weights"]).status_code == 200
    listed = running.http.get("/v1/jobs", params={"trainer": "paper"}).json()["jobs"]
    assert job.id in [found["id"] for found in listed]
    assert running.http.get("/v1/jobs", params={"dataset": "none"}).json()["jobs"] == []


def test_a_spec_can_be_posted_again(running: Running, job: JobHandle) -> None:
    again = running.http.get(f"/v1/jobs/{job.id}/spec").json()
    assert JOB_SPEC.validate_python(again["spec"]) == paper_spec()
    answer = running.http.post("/v1/jobs", json=again, params={"dry_run": True})
    assert answer.status_code == 200
    assert answer.json()["spec"] == again["spec"]


@pytest.mark.parametrize(
    "path",
    [
        *("samples", "reconstructions", "interpolations", "filmstrip", "grids"),
        *("mixing", "unmixing"),
    ],
)
def test_what_a_figure_has_not_is_answered_with_what_it_has(
    running: Running, job: JobHandle, path: str
) -> None:
    body = problem(running.http.get(f"/v1/jobs/{job.id}/{path}"), 404, "other-trainer")
    assert "computes figure mixture and fits no model" in body["detail"]
    assert "artifacts/figure.png" in body["detail"]


def test_posted_data_have_no_sources_in_a_figure(running: Running, job: JobHandle) -> None:
    answer = running.http.post(f"/v1/jobs/{job.id}/sources", json={"data": [[1.0]]})
    problem(answer, 404, "other-trainer")


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({"trainer": {"kind": "paper"}}, "/spec/trainer/figure"),
        ({"trainer": {"kind": "paper", "figure": "9"}}, "/spec/trainer/figure"),
        ({"trainer": {"kind": "paper", "figure": "2", "scale": "x"}}, "/spec/trainer/scale"),
        ({**SPEC, "dataset": {"name": 3}}, "/spec/dataset/name"),
        ({**SPEC, "dataset": {"kind": "cone"}}, "/spec/dataset/kind"),
        ({**SPEC, "checkpoint_every_epochs": 3}, "/spec/checkpoint_every_epochs"),
        ({"trainer": {"kind": "vae"}}, "/spec/dataset"),
        ({"trainer": {"kind": "vae"}, "dataset": None}, "/spec/dataset"),
    ],
)
def test_a_body_is_refused_where_it_is_wrong(
    running: Running, spec: dict[str, Any], pointer: str
) -> None:
    body = problem(running.http.post("/v1/jobs", json={"spec": spec}), 422, "invalid-body")
    assert [error["pointer"] for error in body["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"resources": {"workers": 2}}, "/spec/resources/workers"),
        ({"resources": {"gpus_per_worker": 1}}, "/spec/resources/gpus_per_worker"),
        ({"dataset": {"name": "digits"}}, "/spec/dataset"),
    ],
)
def test_what_a_figure_does_not_take_is_refused(
    running: Running, changes: dict[str, Any], pointer: str
) -> None:
    answer = running.http.post("/v1/jobs", json={"spec": {**SPEC, **changes}})
    body = problem(answer, 422, "invalid-spec")
    assert [error["pointer"] for error in body["errors"]] == [pointer]


def test_a_figure_is_no_fork_and_has_none(running: Running, job: JobHandle) -> None:
    to_figure = {"spec": {"trainer": {"kind": "paper", "figure": "2"}}}
    for parent, change in (
        (job.id, {}),
        (job.id, {"spec": {"seed": 1, "dataset": {"name": "digits"}}}),
        (running.trained, to_figure),
    ):
        answer = running.http.post(f"/v1/jobs/{parent}/fork", json=change)
        body = problem(answer, 422, "invalid-spec")
        assert [error["pointer"] for error in body["errors"]] == ["/spec/trainer/kind"]
        assert "as a new job" in body["detail"]


def test_the_trainer_is_listed_with_a_schema_that_needs_no_data(running: Running) -> None:
    names = [found["name"] for found in running.http.get("/v1/trainers").json()["trainers"]]
    assert "paper" in names
    schema = running.http.get("/v1/trainers/paper/schema").json()
    assert "dataset" not in schema.get("required", [])


def test_one_command_computes_a_figure_and_fetches_its_files(
    job: JobHandle, tmp_path: Path
) -> None:
    result = run(job, "paper", "mixture", "-o", str(tmp_path / "fig"), "--label", "a=b")
    assert result.exit_code == 0, result.output
    numbers = json.loads((tmp_path / "fig" / "figure.json").read_text())
    lines = [line.strip() for line in result.stdout.splitlines()]
    for verdict in numbers["verdicts"]:
        assert lines.count(f"holds: {verdict['text']}") == 1
    for name in FILES:
        assert str(tmp_path / "fig" / name) in lines
    # The same spec gives the same numbers.
    assert (tmp_path / "fig" / "figure.png").read_bytes() == job.figure.png()
    table = (tmp_path / "fig" / "figure.csv").read_text()
    assert list(csv.DictReader(table.splitlines())) == job.figure.rows()


def test_the_files_of_a_job_are_fetched_later_each_once(
    job: JobHandle, running: Running, tmp_path: Path
) -> None:
    def fetched() -> float:
        shown = running.http.get("/metrics").text
        what = "spreadtrain_http_requests_total"
        name = 'route="/v1/jobs/{job_id}/artifacts/{name:path}",status="200"} '
        return sum(
            float(line.split()[-1])
            for line in shown.splitlines()
            if line.startswith(what) and name in line
        )

    before = fetched()
    result = run(job, "figure", job.id, "-o", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert fetched() == before + len(FILES)
    assert (tmp_path / "figure.png").read_bytes() == job.figure.png()


def test_a_dry_run_of_a_figure_of_many_days_says_how_it_is_shared(job: JobHandle) -> None:
    result = run(job, "paper", "4a", "--scale", "paper", "--dry-run")
    assert result.exit_code == 0
    plan = json.loads(result.stdout)
    assert plan["duration_s"] > 4 * 24 * 3600
    assert "days of one thread" in plan["advice"][0]
    flags = ("--repetitions", "2", "--first-repetition", "4", "--seed", "3")
    share = json.loads(run(job, "paper", "4a", "--scale", "paper", "--dry-run", *flags).stdout)
    assert share["spec"]["seed"] == 3
    assert share["spec"]["trainer"]["first_repetition"] == 4
    assert share["steps"] == plan["steps"] / 5
    assert share["duration_s"] == pytest.approx(plan["duration_s"] / 5)


def test_a_command_that_asks_for_what_there_is_not_says_so(
    job: JobHandle, running: Running
) -> None:
    refused(run(job, "paper", "9"), "figure")
    refused(run(job, "paper", "2", "--dataset", "digits"), "draws its own data")
    refused(run(job, "figure", running.trained), "computes no figure: its trainer is delta_vae")
    with (
        Client(job._connection.url) as client,
        pytest.raises(ApiError, match=r"no artifact 'figure\.png'"),
    ):
        client.job(running.trained).figure.png()


def test_shares_of_a_figure_are_joined_without_a_service(job: JobHandle, tmp_path: Path) -> None:
    header = "gamma,samples,repetition,method,relative_error"
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        cells = [
            f"0.2,{samples},{number},{method},{(number + 1) / samples}"
            for samples in (100, 1000)
            for method in ("spread_em", "ep", "fastica")
        ]
        (folder / "figure.csv").write_text("\n".join([header, *cells, ""]))
        asked = {"scale": "quick", "seed": 0, "first_repetition": number, "repetitions": 1}
        (folder / "figure.json").write_text(json.dumps({"figure": "4b", "asked": asked}))
    whole, folders = tmp_path / "whole", [str(tmp_path / "0"), str(tmp_path / "1")]
    result = run(job, "join-figure", *folders, "-o", str(whole))
    assert result.exit_code == 0, result.output
    assert "holds: Spread EM's error falls as N grows: 0.015 at N = 100" in result.stdout
    assert (whole / "figure.png").read_bytes().startswith(PNG)
    found = json.loads((whole / "figure.json").read_text())
    assert [share["first_repetition"] for share in found["asked"]["shares"]] == [0, 1]
    assert len((whole / "figure.csv").read_text().splitlines()) == 13
    refused(run(job, "join-figure", folders[0], folders[0], "-o", str(whole)), "both have")
    refused(run(job, "join-figure", str(tmp_path), "-o", str(whole)), "figure.json")
