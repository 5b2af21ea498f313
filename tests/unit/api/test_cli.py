import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from api.cli import app
from api.demo import run_demo
from api.terminal import TOYS
from tests.factories import long_spec, tiny_spec
from tests.unit.api.conftest import Running
from workers.generate import Generator
from workers.spec import ToyDataset

ROOT = Path(__file__).parents[3]
Run = Callable[..., Result]


@pytest.fixture
def run(url: str) -> Run:
    """Runs a command against the running service."""
    runner = CliRunner(env={"SPREADTRAIN_URL": url, "COLUMNS": "200"})

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return runner.invoke(app, arguments, input=stdin)

    return run


def id_in(result: Result) -> str:
    assert result.exit_code == 0, result.output
    found = re.search(r"job-[0-9a-f]+", result.stdout)
    assert found
    return found[0]


def refused(result: Result, says: str) -> None:
    """One red line and exit code 1, never a traceback."""
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


def test_the_toys_of_the_command_line_are_those_of_the_spec() -> None:
    assert get_args(ToyDataset.model_fields["kind"].annotation) == TOYS


def test_flags_become_a_spec(run: Run) -> None:
    flags = (
        *("--dataset", "digits", "--spread", "gaussian", "--scale", "0.3", "--epochs", "1"),
        *("--seed", "9", "--hidden", "8,4", "--latent-dim", "3", "--learning-rate", "0.01"),
        *("--name", "from flags", "--label", "team=a", "--label", "stage=x=y"),
    )
    job = json.loads(run("show", id_in(run("submit", *flags))).stdout)
    assert (job["name"], job["labels"]) == ("from flags", {"team": "a", "stage": "x=y"})
    assert job["spec"]["seed"] == 9
    assert job["spec"]["dataset"]["name"] == "digits"
    trainer = job["spec"]["trainer"]
    assert trainer["spread"]["kind"] == "gaussian"
    assert trainer["spread"]["scale"] == 0.3
    assert trainer["network"]["hidden"] == [8, 4]
    assert trainer["network"]["latent_dim"] == 3
    assert trainer["optimizer"]["learning_rate"] == 0.01
    assert trainer["epochs"] == 1


def test_a_spec_is_read_from_a_file_and_from_standard_input(run: Run, tmp_path: Path) -> None:
    spec = tiny_spec().model_dump_json()
    file = tmp_path / "spec.json"
    file.write_text(spec)
    from_file = json.loads(run("show", id_in(run("submit", str(file)))).stdout)
    from_stdin = json.loads(run("show", id_in(run("submit", "-", stdin=spec))).stdout)
    assert from_file["spec_digest"] == from_stdin["spec_digest"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", '"\\ud800"', "[" * 100_000])
def test_a_file_of_what_is_no_json_is_refused(run: Run, tmp_path: Path, value: str) -> None:
    file = tmp_path / "spec.json"
    file.write_text(f'{{"spec": {{"seed": {value}}}}}')
    refused(run("submit", str(file)), f"{file} ")


def test_weights_go_into_a_file_that_there_can_be(
    run: Run, running: Running, tmp_path: Path
) -> None:
    for target in (".", "/", str(tmp_path)):
        refused(run("weights", running.trained, "-o", target), "is a folder; name a file")
    refused(run("weights", running.trained, "-o", str(tmp_path / "a" / "w")), "there is no folder")


def test_a_dry_run_refuses_a_name_and_labels_as_a_submission_does(run: Run) -> None:
    for dry_run in ((), ("--dry-run",)):
        flags = ("submit", "--dataset", "ring", "--name", "x" * 201, *dry_run)
        refused(run(*flags), "/name")
        refused(run("paper", "2", "--label", "a b=c", *dry_run), "/labels")


def test_a_dry_run_shows_the_plan(run: Run) -> None:
    result = run("submit", "--dataset", "ring", "--epochs", "2", "--dry-run")
    assert result.exit_code == 0
    plan = json.loads(result.stdout)
    assert plan["spec"]["dataset"]["kind"] == "ring"
    assert plan["steps"] == 180


def test_a_submission_can_be_watched_to_its_end(run: Run) -> None:
    result = run("submit", "-", "--watch", stdin=tiny_spec().model_dump_json())
    assert id_in(result)
    assert "succeeded: Trained for 3 epochs." in result.stdout


def test_a_watch_shows_where_the_job_ended(run: Run, running: Running) -> None:
    result = run("watch", running.trained)
    assert result.exit_code == 0
    assert "succeeded" in result.stdout


def test_a_cancelled_job_ends_its_watch_with_an_error(run: Run) -> None:
    job = id_in(run("submit", "-", stdin=long_spec().model_dump_json()))
    assert "cancel requested" in run("cancel", job).stdout
    refused(run("watch", job), "cancelled")


def test_jobs_are_listed_newest_first(run: Run) -> None:
    spec = tiny_spec().model_dump_json()
    jobs = [id_in(run("submit", "-", "--label", "cli=list", stdin=spec)) for _ in range(3)]
    found = run("list", "--label", "cli=list").stdout
    assert re.findall(r"job-[0-9a-f]+", found) == jobs[::-1]
    two = run("list", "--label", "cli=list", "--limit", "2").stdout
    assert re.findall(r"job-[0-9a-f]+", two) == jobs[:0:-1]


def test_samples_take_the_form_of_the_files_name(
    run: Run, running: Running, tmp_path: Path
) -> None:
    png, npz, text = (tmp_path / f"s.{suffix}" for suffix in ("png", "npz", "json"))
    for file in (png, npz, text):
        result = run("samples", running.trained, "-o", str(file), "-n", "4", "--seed", "2")
        assert (result.exit_code, result.stdout.strip()) == (0, str(file))
    assert png.read_bytes().startswith(b"\x89PNG")
    with np.load(npz, allow_pickle=False) as arrays:
        assert arrays["samples"].shape == (4, 8, 8)
    assert json.loads(text.read_text())["n"] == 4
    refused(run("samples", running.trained, "-o", "s.gif"), ".npz")


def test_reconstructions_and_interpolations_take_the_form_of_the_files_name(
    run: Run, running: Running, tmp_path: Path
) -> None:
    png, npz, text = (tmp_path / f"r.{suffix}" for suffix in ("png", "npz", "json"))
    for file in (png, npz, text):
        result = run("reconstructions", running.trained, "-o", str(file), "-n", "4", "--seed", "2")
        assert (result.exit_code, result.stdout.strip()) == (0, str(file))
    assert png.read_bytes().startswith(b"\x89PNG")
    with np.load(npz, allow_pickle=False) as arrays:
        assert arrays["g"].shape == (4, 8, 8)
    assert json.loads(text.read_text())["n"] == 4
    flags = ("--steps", "5", "--between", "data", "--path", "linear", "-n", "2")
    assert run("interpolations", running.trained, "-o", str(npz), *flags).exit_code == 0
    with np.load(npz, allow_pickle=False) as arrays:
        assert arrays["g"].shape == (2, 5, 8, 8)
        assert arrays["x"].shape == (2, 2, 8, 8)
    refused(run("reconstructions", running.trained, "-o", "r.gif"), ".npz")
    refused(run("interpolations", running.trained, "--steps", "1"), "steps")
    assert run("interpolations", running.trained, "--path", "scenic").exit_code == 2


def test_film_strip_and_weights_are_fetched(run: Run, running: Running, tmp_path: Path) -> None:
    strip, weights = tmp_path / "strip.png", tmp_path / "weights.safetensors"
    result = run("filmstrip", running.trained, "-o", str(strip), "--epochs", "1,3", "-n", "2")
    assert result.exit_code == 0
    assert strip.read_bytes().startswith(b"\x89PNG")
    assert run("weights", running.trained, "-o", str(weights)).exit_code == 0
    assert run("weights", running.trained, "-o", str(weights), "--redirect").exit_code == 0
    assert Generator.load(weights).sample(1).shape == (1, 8, 8)


def test_what_can_be_named_is_listed(run: Run) -> None:
    assert "mnist-10k" in run("datasets").stdout
    assert "delta_vae" in run("trainers").stdout


def test_a_file_is_uploaded_listed_replaced_and_deleted(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("x,y\n" + "1,2\n" * 25)
    assert "points: 25 vectors of 2 numbers" in run("upload", "points", str(file)).stdout
    assert "25 vectors of 2 numbers, uploaded" in run("datasets").stdout
    file.write_text("1,2\n" * 30)
    refused(run("upload", "points", str(file)), "If-Match")
    assert "30 vectors" in run("upload", "points", str(file), "--replace").stdout
    assert "points is deleted" in run("delete-dataset", "points").stdout
    refused(run("delete-dataset", "points"), "no uploaded data set 'points'")
    refused(run("upload", "points", str(tmp_path / "nothing")), "No such file")
    file.write_text("no data")
    refused(run("upload", "points", str(file)), "read as CSV")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "job-none"), "no job"),
        (("submit", "--scale", "-1"), "/spec/trainer/spread/scale"),
        (("submit", "--spread", "cauchy"), "gaussian, laplace"),
        (("submit", "--dataset", "nope"), "nope"),
        (("submit", "--label", "team"), "key=value"),
        (("submit", "--hidden", "a,b"), "whole numbers"),
        (("submit", "missing.json"), "missing.json"),
        (("submit", "missing.json", "--epochs", "3"), "not both"),
        (("samples", "job-none"), "no job"),
        (("samples", "job-none", "-o", "no/such/folder/s.png"), "no job"),
        (("list", "--url", "http://127.0.0.1:1"), "spreadtrain serve"),
    ],
)
def test_an_error_is_one_line(run: Run, arguments: tuple[str, ...], says: str) -> None:
    refused(run(*arguments), says)


@pytest.mark.parametrize("content", ["[]", "3", "{", ""])
def test_a_file_that_is_no_object_is_refused(run: Run, content: str) -> None:
    refused(run("submit", "-", stdin=content), "JSON")


def test_a_folder_that_is_not_there_is_named(run: Run, running: Running) -> None:
    refused(run("samples", running.trained, "-o", "no/such/folder/s.png"), "no/such/folder")


def test_a_service_with_wrong_settings_does_not_start(tmp_path: Path) -> None:
    runner = CliRunner()
    no_host = ["serve", "--host", "train.example", "--data-dir", str(tmp_path)]
    refused(runner.invoke(app, no_host), "no IP address")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["serve", "--port", port, "--data-dir", str(tmp_path)]
        refused(runner.invoke(app, arguments), port)


def test_a_demonstration_whose_service_cannot_start_says_why_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    monkeypatch.setenv("SPREADTRAIN_PORT", "of the shell's, which the demonstration does not read")
    with pytest.raises(RuntimeError, match=r"did not start.*data.*service\.log"):
        run_demo(tmp_path, 1, Console(quiet=True))
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(tmp_path) not in listed.stdout


def test_the_command_line_is_a_module_too() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "api.cli", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("serve", "submit", "watch", "samples", "demo"):
        assert command in found.stdout


def test_check_prints_a_table_and_fails_with_what_is_wrong(tmp_path: Path) -> None:
    runner = CliRunner(env={"COLUMNS": "200", "SPREADTRAIN_DATA_DIR": str(tmp_path / "data")})
    sound = runner.invoke(app, ["check", "--no-ray"])
    assert sound.exit_code == 0, sound.output
    for part in ("data folder", "database", "storage: conditional put"):
        assert re.search(rf"{part} +ok", sound.stdout)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    broken = runner.invoke(
        app, ["check", "--no-ray"], env={"SPREADTRAIN_ARTIFACTS_URI": in_the_way.as_uri()}
    )
    assert broken.exit_code == 1
    assert re.search(r"storage +wrong +.*folder cannot be made", broken.stdout)
    assert re.search(r"database +ok", broken.stdout)
    refused(
        runner.invoke(app, ["check", "--no-ray"], env={"SPREADTRAIN_PORT": "x"}), "SPREADTRAIN_PORT"
    )


def test_a_job_is_paused_resumed_cancelled_and_retried(run: Run) -> None:
    job = id_in(run("submit", "-", stdin=long_spec().model_dump_json()))
    assert "pause requested" in run("pause", job).stdout
    # Its attempt may be about to end, or have done so: either way it goes on.
    assert re.search(r": (queued|running);", run("resume", job).stdout)
    run("cancel", job)
    refused(run("watch", job), "cancelled")
    refused(run("pause", job), "nothing left to pause")
    assert "queued" in run("retry", job, "--max-wall-s", "60").stdout
    assert json.loads(run("show", job).stdout)["limits"]["max_wall_s"] == 60
    run("cancel", job)
    refused(run("watch", job), "cancelled")


def test_a_fork_is_made_from_flags_or_from_a_file(
    run: Run, running: Running, tmp_path: Path
) -> None:
    flags = ("--epochs", "4", "--learning-rate", "1e-5", "--name", "cooler", "--label", "a=b")
    made = json.loads(run("show", id_in(run("fork", running.trained, *flags))).stdout)
    assert made["parent"]["job"] == running.trained
    assert (made["name"], made["labels"]) == ("cooler", {"a": "b"})
    assert made["spec"]["trainer"]["optimizer"]["learning_rate"] == 1e-5
    file = tmp_path / "patch.json"
    file.write_text('{"trainer": {"epochs": 1, "batch_size": 100}}')
    anew = ("--start", "weights", "--checkpoint", "best", "--watch")
    result = run("fork", running.trained, str(file), *anew)
    assert "succeeded" in result.stdout
    refused(run("fork", running.trained, str(file), "--seed", "1"), "not both")
    refused(run("fork", running.trained, "--epochs", "2"), "/spec/trainer/epochs")


def test_a_job_is_deleted_once_it_has_ended(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(long_spec().model_dump_json())
    job = id_in(run("submit", str(file)))
    refused(run("delete", job), "cancel it first")
    assert run("cancel", job).exit_code == 0
    run("watch", job)
    assert f"{job} is deleted" in run("delete", job).stdout
    refused(run("delete", job), "no job")


def test_a_sweep_says_what_it_would_remove(run: Run) -> None:
    swept = run("sweep", "--dry-run")
    assert swept.exit_code == 0, swept.output
    assert "would be removed" in swept.stdout
    assert "0 objects with 0 bytes removed" in run("sweep").stdout
