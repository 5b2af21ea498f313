"""An ``ica`` job from the Python client and from the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from api.cli import app
from api.client import ApiError, Client, JobHandle, ica
from tests.factories import ica_spec
from tests.unit.api.conftest import Running
from tests.unit.api.test_cli import refused
from tests.unit.workers.uploading import npz

DATA = np.random.default_rng(1).normal(size=(4, 5))


@pytest.fixture(scope="module")
def job(url: str) -> Iterator[JobHandle]:
    with Client(url) as client:
        yield client.submit(ica_spec().model_dump(mode="json")).wait(60)


def run(job: JobHandle, *arguments: str) -> Result:
    runner = CliRunner(env={"SPREADTRAIN_URL": job._connection.url, "COLUMNS": "200"})
    return runner.invoke(app, arguments)


def test_a_spec_becomes_a_mixing_matrix_in_one_line(job: JobHandle) -> None:
    assert (job.state, job.body.reason) == ("succeeded", "converged")
    found = job.ica.mixing()
    assert np.shape(found.mixing) == (5, 2)
    unmixing = np.array(job.ica.unmixing(found.checkpoint).unmixing)
    np.testing.assert_allclose(unmixing @ found.mixing, np.eye(2), atol=1e-12)


def test_lists_and_arrays_have_the_same_sources(job: JobHandle) -> None:
    found = job.ica.sources(DATA)
    assert found == job.ica.sources(DATA.tolist())
    assert np.shape(found.mean) == np.shape(found.variance) == (4, 2)


def test_many_data_are_sent_in_parts_of_one_checkpoint(
    job: JobHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = job.ica.sources(DATA)
    monkeypatch.setattr(ica, "PART_VALUES", 7)  # a row of five at a time
    parts = job.ica.sources(DATA)
    assert parts.rmse == pytest.approx(whole.rmse, rel=1e-12)
    for name in ("mean", "variance"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9)
    assert (parts.n, parts.checkpoint) == (whole.n, whole.checkpoint)


def test_more_data_than_a_body_may_hold_are_sent(job: JobHandle) -> None:
    rows = np.random.default_rng(2).normal(size=(30_000, 5))
    assert job.ica.sources(rows).n == 30_000


def test_a_job_of_another_trainer_says_so(job: JobHandle, running: Running) -> None:
    with Client(job._connection.url) as client:
        other = client.job(running.trained)
        with pytest.raises(ApiError, match="no mixing matrix"):
            other.ica.mixing()


def test_matrices_take_the_form_of_the_files_name(job: JobHandle, tmp_path: Path) -> None:
    for what in ("mixing", "unmixing"):
        text, table, packed = (tmp_path / f"{what}.{form}" for form in ("json", "csv", "npz"))
        for file in (text, table, packed):
            result = run(job, what, job.id, "-o", str(file))
            assert (result.exit_code, result.stdout.strip()) == (0, str(file))
        matrix = json.loads(text.read_text())[what]
        assert np.loadtxt(table, delimiter=",", skiprows=1).tolist() == matrix
        with np.load(packed, allow_pickle=False) as arrays:
            assert arrays[what].tolist() == matrix
    refused(run(job, "mixing", job.id, "-o", "m.png"), "must end in .json, .npz or .csv")


def test_sources_of_a_file_are_those_of_its_data(job: JobHandle, tmp_path: Path) -> None:
    expected = job.ica.sources(DATA)
    files = {form: tmp_path / f"data.{form}" for form in ("csv", "npz", "json")}
    np.savetxt(files["csv"], DATA, delimiter=",", fmt="%.17g")
    files["npz"].write_bytes(npz(data=DATA))
    files["json"].write_text(json.dumps({"data": DATA.tolist()}))
    for file in files.values():
        output = tmp_path / "sources.npz"
        result = run(job, "sources", job.id, str(file), "-o", str(output))
        assert result.exit_code == 0, result.output
        with np.load(output, allow_pickle=False) as arrays:
            assert arrays["mean"].tolist() == expected.mean
    files["npz"].write_bytes(b"none")
    refused(run(job, "sources", job.id, str(files["npz"])), "no npz file")
    files["json"].write_text("[[1.0]]")
    refused(run(job, "sources", job.id, str(files["json"])), "it must hold")
    files["csv"].write_text("a,b\n")
    refused(run(job, "sources", job.id, str(files["csv"])), "could not convert")
    refused(run(job, "sources", job.id, str(tmp_path / "none.csv")), "No such file")
