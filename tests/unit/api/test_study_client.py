"""Studies by the Python client and on the command line."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from api.bodies import Problem
from api.cli import app
from api.client import ApiError, Client, StudyFailed, StudyHandle, Unreachable
from service.jobs import JobState, Reason
from service.studies.ledger import Study, StudyReason
from tests.trials import (
    KIND,
    SCALE,
    add_trial,
    confirm,
    ended,
    running_study,
    study_body,
    trained_trial,
)
from tests.unit.api.conftest import Quiet

Run = Callable[..., Result]


@pytest.fixture
def client(quiet_url: str) -> Iterator[Client]:
    with Client(quiet_url) as client:
        yield client


@pytest.fixture
def run(quiet_url: str) -> Run:
    runner = CliRunner(env={"SPREADTRAIN_URL": quiet_url, "COLUMNS": "200"})

    def run(*arguments: str, stdin: str | None = None) -> Result:
        return runner.invoke(app, ("study", *arguments), input=stdin)

    return run


def said(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result: Result, says: str) -> None:
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert says in result.stderr


def at(scale: float) -> dict[str, object]:
    return {KIND: "laplace", SCALE: scale}


def confirmed(quiet: Quiet) -> Study:
    """A study that has succeeded, whose second configuration is the best and like the third."""
    jobs, study = quiet.jobs, running_study(quiet.jobs)
    for number in range(12):
        kid = 0.1 if number in (1, 2) else 1.0 + number / 100
        results = {9: {"kid_pca": kid, "recall_pca": number / 100}}
        add_trial(jobs, study, number, at(round(0.1 + number / 20, 2)), results=results)
    confirm(jobs, study, 1, at(0.15), kid_pca=[0.20, 0.21, 0.19, 0.22, 0.20])
    confirm(jobs, study, 2, at(0.2), kid_pca=[0.21, 0.20, 0.20, 0.21, 0.22])
    return ended(jobs, study)


def test_a_study_is_submitted_changed_and_deleted_by_the_client(client: Client) -> None:
    plan = client.studies.plan(study_body())
    assert (plan.configurations, plan.confirmation_trials) == (8, 15)
    study = client.submit_study(study_body(), idempotency_key="once")
    assert client.submit_study(study_body(), idempotency_key="once").id == study.id
    assert repr(study) == f"<StudyHandle {study.id} queued>"
    assert client.studies.get(study.id).body == study.body
    assert study.pause().state == "paused"
    assert study.resume().state == "queued"
    assert study.extend(trials=20).body.request["budget"]["trials"] == 20
    assert study.cancel().state == "cancelled"
    assert study.retry().state == "queued"
    stale = client.studies.get(study.id)
    study.extend(trials=30)
    with pytest.raises(ApiError, match="has changed since it was read"):
        stale.extend(trials=40)
    other = client.submit_study(study_body(name="other"))
    assert [one.id for one in client.studies.list(page_size=1)] == [other.id, study.id]
    assert list(client.studies.list(state="paused")) == []
    study.cancel().delete()
    with pytest.raises(ApiError, match="there is no study"):
        study.refresh()


def test_a_study_is_waited_for(quiet: Quiet, client: Client) -> None:
    running = running_study(quiet.jobs)
    study = client.studies.get(running.id)
    with pytest.raises(TimeoutError, match="is running after 0 s"):
        study.wait(timeout_s=0, poll_s=0)
    seen = study.watch(poll_s=0)
    assert next(seen).state == "running"
    ended(quiet.jobs, running)
    assert [body.state for body in seen] == ["succeeded"]
    assert study.wait(poll_s=0).state == "succeeded"
    failed = running_study(quiet.jobs)
    ended(quiet.jobs, failed, JobState.FAILED, StudyReason.NO_RESULT)
    with pytest.raises(StudyFailed, match="no_result") as caught:
        client.studies.get(failed.id).wait()
    assert (caught.value.study_id, caught.value.reason) == (failed.id, "no_result")


def test_a_study_is_watched_over_times_without_an_answer(quiet: Quiet, client: Client) -> None:
    done = confirmed(quiet)
    busy = Problem(type="about:blank", title="", status=503, detail="", retryable=True)
    failures = [Unreachable("http://localhost", "refused"), ApiError(busy, 0.0)]

    class Restarting(StudyHandle):
        """Does not answer at first, in two ways."""

        def refresh(self) -> StudyHandle:
            if failures:
                raise failures.pop()
            return super().refresh()

    told: list[str] = []
    study = Restarting(client.connection, client.studies.get(done.id).body)
    states = [body.state for body in study.watch(told=lambda: told.append("waiting"))]
    assert (states, told) == (["succeeded"], ["waiting"])
    failures.append(ApiError(busy.model_copy(update={"retryable": False})))
    with pytest.raises(ApiError):
        study.wait()


def test_all_that_a_study_shows_is_read_by_the_client(quiet: Quiet, client: Client) -> None:
    study = client.studies.get(confirmed(quiet).id)
    trials = list(study.trials())
    assert len(trials) == 22
    assert len(list(study.trials(phase="confirmation", configuration=2))) == 5
    assert study.job(trials[0]).body.study == study.id
    assert [job.id for job in client.jobs(study=study.id)][-1] == trials[0].job
    assert study.trials_csv().count("\r\n") == 23
    best = study.best()
    assert (best.stage, best.configuration) == ("confirmed", 1)
    assert [one.configuration for one in best.indistinguishable] == [1, 2]
    curve = study.curve(SCALE)
    assert curve.processes[0].along == [SCALE]
    assert study.curve(SCALE, metric="recall").metric == "recall_pca"
    assert study.curve_bytes("png", SCALE).startswith(b"\x89PNG")
    assert study.curve_bytes("csv", SCALE).startswith(b"what,")
    assert study.pareto("recall").front[0] == 2
    assert study.pareto_bytes("png", "recall").startswith(b"\x89PNG")
    assert study.importance().shares[0].pointer == SCALE
    assert study.importance_bytes("png").startswith(b"\x89PNG")
    assert len(study.parallel().lines) == 22
    assert study.parallel_bytes("png").startswith(b"\x89PNG")
    with pytest.raises(ApiError, match="no trial that has ended has a checkpoint"):
        study.samples()


def test_the_best_trials_are_drawn_and_promoted_by_client_and_command(
    quiet: Quiet, client: Client, run: Run, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    spec = {
        "dataset": {"name": "digits"},
        "trainer": {
            "kind": "delta_vae",
            "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2, "output": "sigmoid"},
            "epochs": 2,
            "batch_size": 400,
        },
    }
    stored = running_study(quiet.jobs, spec=spec)
    trial = trained_trial(
        quiet.jobs, quiet.artifacts, tmp_path, stored, 0, at(0.3), {"kid_pca": 0.1}
    )
    study = client.studies.get(stored.id)
    samples = study.samples(n=4, seed=1)
    assert samples.shape == (1, 4, 8, 8)
    own = study.job(next(study.trials())).samples(4, seed=1)
    assert np.array_equal(samples[0], own)
    said(run("samples", study.id, "-n", "4", "-k", "2", "-o", str(tmp_path / "s.png")))
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    job = study.promote(0, epochs=3, name="on and on", idempotency_key="once")
    assert study.promote(0, epochs=3, name="on and on", idempotency_key="once").id == job.id
    assert job.body.parent is not None
    assert job.body.parent.job == trial.job_id
    printed = said(run("promote", study.id, "--configuration", "0", "--epochs", "4"))
    assert client.job(printed.strip()).body.spec["trainer"]["epochs"] == 4
    refused(run("promote", study.id, "--epochs", "4"), "nothing is confirmed")


def test_a_file_is_planned_submitted_and_listed(run: Run, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    file.write_text(json.dumps(study_body(scheduler={"kind": "asha", "grace_epochs": 1})))
    plan = json.loads(said(run("submit", str(file), "--dry-run", "--trials", "5")))
    assert plan["configurations"] == 5
    result = run("submit", str(file), "--name", "by hand", "--concurrency", "1")
    found = re.search(r"study-[0-9a-f]{16}", said(result))
    assert found
    assert "/scheduler/grace_epochs compares trials at epoch 1" in result.stderr
    study = client.studies.get(found[0])
    assert study.body.name == "by hand"
    listed = said(run("list"))
    assert study.id in listed
    assert "min kid_pca" in listed
    assert study.id not in said(run("list", "--state", "paused"))
    assert json.loads(said(run("show", study.id)))["id"] == study.id
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(study_body(objective={"metric": "loss_nats", "mode": "min"})))
    refused(run("submit", str(wrong)), "Valid are: ")


def test_a_studys_life_is_led_from_the_command_line(run: Run, client: Client) -> None:
    study: StudyHandle = client.submit_study(study_body())
    assert "its state is paused" in said(run("pause", study.id))
    assert "queued" in said(run("resume", study.id))
    assert "queued" in said(run("extend", study.id, "--trials", "9"))
    refused(run("extend", study.id), "give a limit to raise")
    refused(run("extend", study.id, "--max-epochs", "9"), "must stay unlimited")
    assert "its state is cancelled" in said(run("cancel", study.id))
    assert "queued; Retried; it goes on" in said(run("retry", study.id))
    run("cancel", study.id)
    assert "deleted" in said(run("delete", study.id))
    refused(run("show", study.id), "there is no study")


def test_a_study_is_watched_to_its_end(quiet: Quiet, run: Run) -> None:
    done = confirmed(quiet)
    line = said(run("watch", done.id))
    assert "succeeded (completed): 12 trials done" in line
    assert "on fresh seeds 10 done" in line
    assert "candidate" not in line
    assert "confirmed: The best by kid_pca on fresh seeds" in line
    best = quiet.http.get(f"/v1/studies/{done.id}/best").json()["configuration"]
    assert f"best {best}:" in line
    failed = running_study(quiet.jobs)
    ended(quiet.jobs, failed, JobState.FAILED, StudyReason.NO_RESULT)
    refused(run("watch", failed.id), "no_result")


def test_what_came_of_a_study_is_told_and_drawn(quiet: Quiet, run: Run, tmp_path: Path) -> None:
    study = confirmed(quiet)
    table = said(run("trials", study.id, "--limit", "3"))
    assert table.count("completed") == 3
    assert "scale=0.1" in table
    said(run("trials", study.id, "-o", str(tmp_path / "trials.csv")))
    assert (tmp_path / "trials.csv").read_text().startswith("number,")
    told = said(run("best", study.id))
    assert "best 1: kind=laplace, scale=0.15" in told
    assert "on 5 fresh seeds, 95% interval" in told
    assert "too good to be true" in told
    assert "as good, maybe: 2" in told
    assert json.loads(said(run("best", study.id, "--json")))["configuration"] == 1
    for command, endings in (
        (("curve", study.id, SCALE), (".png", ".csv", ".json")),
        (("pareto", study.id, "--second", "recall"), (".png", ".json")),
        (("importance", study.id), (".png", ".json")),
        (("parallel", study.id), (".png", ".json")),
    ):
        for ending in endings:
            file = tmp_path / f"{command[0]}{ending}"
            said(run(*command, "-o", str(file)))
            assert file.stat().st_size > 100
    refused(run("curve", study.id, SCALE, "-o", "curve.pdf"), "must end in")
    candidate = running_study(quiet.jobs)
    add_trial(quiet.jobs, candidate, 0, at(0.1), results={9: {"kid_pca": 0.1}})
    assert "candidate 0: " in said(run("best", candidate.id))
    nothing = running_study(quiet.jobs)
    assert "no result yet" in said(run("best", nothing.id))


def test_a_guard_that_was_overridden_shows_in_the_list(run: Run, client: Client) -> None:
    objective = {"metric": "held_out_elbo_nats", "mode": "max"}
    client.submit_study(study_body(objective=objective, override_guard=True))
    assert "(guard overridden)" in said(run("list"))


def test_presets_are_listed_printed_planned_and_submitted(run: Run, client: Client) -> None:
    listed = said(run("preset"))
    assert "spread-scale" in listed
    assert "ica-sigma" in listed
    options = ("--dataset", "digits", "--epochs", "6", "--hidden", "8", "--latent-dim", "2")
    body = json.loads(said(run("preset", "spread-scale", *options)))
    assert body["spec"]["trainer"]["epochs"] == 6
    assert client.studies.plan(body).configurations == 27
    plan = run("preset", "spread-scale", *options, "--no-learned", "--trials", "4", "--dry-run")
    assert json.loads(said(plan))["configurations"] == 4
    assert "note: No trial is stopped before epoch 2" in plan.stderr
    sent = run("preset", "ica-sigma", "--trials", "3", "--submit")
    study = client.studies.get(said(sent).strip())
    assert study.body.objective.metric == "error_relative"
    (shown,) = re.findall("^  spreadtrain study (.*)$", sent.stderr, re.MULTILINE)
    refused(run(*shlex.split(shown)), "a curve needs trials that ran to their end")
    assert "/trainer/noise_variance -o noise_variance.png" in shown
    sent = run("preset", "spread-scale", *options, "--submit")
    assert sent.stderr.count(f"study curve {said(sent).strip()} {SCALE} /trainer/") == 2
    refused(run("preset", "spread-scale", "--dataset", "nothing"), "nothing")
    refused(run("preset", "no-such"), "There is nothing at this address")


def test_a_stopped_trial_is_told_with_its_reason(quiet: Quiet, run: Run) -> None:
    study = running_study(quiet.jobs)
    stopped = Reason.STOPPED_BY_STUDY
    add_trial(quiet.jobs, study, 0, at(0.1), results={3: {"kid_pca": 0.5}}, reason=stopped)
    assert "stopped_by_study" in said(run("trials", study.id))


def test_the_trials_of_a_study_are_among_the_jobs(quiet: Quiet, quiet_url: str) -> None:
    study = running_study(quiet.jobs)
    trial = add_trial(quiet.jobs, study, 0, at(0.1))
    other = quiet.submit()
    result = CliRunner(env={"SPREADTRAIN_URL": quiet_url}).invoke(
        app, ("list", "--study", study.id)
    )
    assert trial.job_id in said(result)
    assert other not in result.stdout
