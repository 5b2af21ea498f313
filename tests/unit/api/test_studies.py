"""Studies over HTTP: submit, dry run, read, list, extend, the verbs, delete."""

from typing import Any

import pytest

from service.jobs import Attempt, JobState, Reason
from service.studies.ledger import StudyReason
from tests.contract.jobstore import making
from tests.trials import (
    KIND,
    NOON,
    SCALE,
    SPEC,
    add_trial,
    ended,
    running_study,
    study_body,
)
from tests.unit.api.conftest import Quiet
from tests.unit.api.test_problems import problem
from workers.spec import TrainSpec

LAPLACE = {KIND: "laplace", SCALE: 0.5}


def submit(quiet: Quiet, **fields: Any) -> dict[str, Any]:
    answer = quiet.http.post("/v1/studies", json=study_body(**fields))
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def refused(quiet: Quiet, status: int, name: str, **fields: Any) -> dict[str, Any]:
    answer = quiet.http.post("/v1/studies", json=study_body(**fields))
    return problem(answer, status, name)


def pointers(found: dict[str, Any]) -> list[str]:
    return [error["pointer"] for error in found["errors"]]


def test_a_submitted_study_is_stored_queued_and_whole(quiet: Quiet) -> None:
    answer = quiet.http.post("/v1/studies", json=study_body(seeds=[3]))
    assert answer.status_code == 201
    body = answer.json()
    path = answer.headers["Location"]
    assert path == f"/v1/studies/{body['id']}" == body["links"]["self"]
    assert (body["state"], body["reason"], body["driver"]) == ("queued", "submitted", 0)
    assert body["objective"] == {"metric": "kid_pca", "mode": "min"}
    assert body["tuned"] == [KIND, SCALE]
    # The seeds that confirm are resolved when it is submitted, and the data are pinned.
    assert body["request"]["confirmation"]["seeds"] == [1, 2, 4, 5, 6]
    assert body["request"]["spec"]["dataset"]["digest"].startswith("sha256:")
    assert body["progress"]["trials_left"] == 8
    assert body["best_so_far"] is None
    found = quiet.http.get(path)
    assert found.json() == body
    assert found.headers["ETag"] == answer.headers["ETag"] == '"1"'
    unchanged = quiet.http.get(path, headers={"If-None-Match": '"1"'})
    assert unchanged.status_code == 304
    # What is answered can be posted again, and is the same study.
    again = quiet.http.post("/v1/studies", json=body["request"]).json()
    assert again["request"] == body["request"]


def test_a_key_makes_one_study(quiet: Quiet) -> None:
    key = {"Idempotency-Key": "once"}
    first = quiet.http.post("/v1/studies", json=study_body(), headers=key)
    again = quiet.http.post("/v1/studies", json=study_body(), headers=key)
    assert first.json() == again.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    other = quiet.http.post("/v1/studies", json=study_body(name="other"), headers=key)
    problem(other, 422, "idempotency-conflict")
    assert len(quiet.http.get("/v1/studies").json()["studies"]) == 1


def test_a_dry_run_tells_what_it_would_cost_and_stores_nothing(quiet: Quiet) -> None:
    grid = {SCALE: {"grid": [0.1, 0.3, 0.5]}}
    asked = study_body(
        space=grid,
        search={"kind": "grid"},
        seeds=[0, 1],
        budget={"trials": 99, "max_epochs": 40},
        confirmation={"top": 2, "seeds": [7, 8, 9]},
        scheduler={"kind": "asha", "grace_epochs": 1},
    )
    answer = quiet.http.post("/v1/studies?dry_run=true", json=asked)
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert (plan["configurations"], plan["trials"], plan["confirmation_trials"]) == (3, 6, 6)
    assert plan["epochs"] == 40 + 6 * 9  # six runs of nine epochs, and a limit of the search
    assert (plan["searcher"], plan["scheduler"]) == ("grid", "asha")
    assert (plan["duration_s"], plan["core_s"]) == (None, None)
    assert "no time is known" in plan["basis"]
    assert plan["storage_bytes"] > 12 * 1000
    assert "frechet_pca" in plan["metrics"]
    assert "held_out_elbo_nats" not in plan["metrics"]
    # Quality is measured with checkpoints, as the scheduler compares before the end.
    assert plan["request"]["spec"]["trainer"]["quality"]["at"] == "checkpoints"
    early, reference, limit = plan["cautions"]
    assert reference["pointer"] == "/spec/trainer/quality/samples"
    assert "compare with 100 held-out data" in reference["message"]
    assert early["pointer"] == "/scheduler/grace_epochs"
    assert "epoch 3, a third" in early["message"]
    assert limit["pointer"] == "/budget/max_epochs"
    assert "up to 6 trial(s) on fresh seeds of at most 9 epochs each" in limit["message"]
    assert quiet.http.get("/v1/studies").json()["studies"] == []


def test_time_and_core_seconds_follow_from_the_measured_pace(quiet: Quiet) -> None:
    # A job like a trial made 4 epochs of 5 steps, 10 steps a second from its first one on.
    spec = TrainSpec.model_validate(SPEC)
    job_id = quiet.submit(spec=spec)
    attempt = Attempt(job_id, 1, "executor", "session", NOON)
    quiet.jobs.start_attempt(quiet.jobs.get(job_id), attempt, Reason.STARTING, "starting")
    records = (making.started(at_s=1, total=45), making.first_step(2.0), making.metrics(21, 4.0))
    quiet.jobs.ingest(job_id, 1, 0, records)
    asked = study_body(budget={"trials": 5}, confirmation={"top": 1})
    plan = quiet.http.post("/v1/studies?dry_run=true", json=asked).json()
    trial_s = 2.0 + 45 / 10
    # Five trials, one at a time, and then the best of them on five fresh seeds.
    assert plan["duration_s"] == pytest.approx((5 + 5) * trial_s)
    assert plan["core_s"] == pytest.approx((5 + 5) * trial_s)
    assert "the pace of 1 attempt(s)" in plan["basis"]
    bounded = {**asked, "budget": {"trials": 5, "max_wall_s": 7.0}}
    plan = quiet.http.post("/v1/studies?dry_run=true", json=bounded).json()
    assert plan["duration_s"] == pytest.approx(7.0 + 5 * trial_s)


GUARDED = [
    ("held_out_elbo_nats", "max"),
    ("held_out_excess_nats", "min"),
    ("held_out_kl_nats", "min"),
    ("held_out_reconstruction_nats", "max"),
    ("held_out_loss_nats", "min"),
    ("loss_nats", "min"),
    ("gradient_norm", "min"),
    ("active_units", "max"),
]


@pytest.mark.parametrize(("metric", "mode"), GUARDED)
def test_an_objective_that_depends_on_the_noise_is_refused_with_those_that_do_not(
    quiet: Quiet, metric: str, mode: str
) -> None:
    objective = {"metric": metric, "mode": mode}
    found = refused(quiet, 422, "objective-depends-on-tuned-parameter", objective=objective)
    assert pointers(found) == ["/objective/metric"]
    assert {"kid_pca", "frechet_pca", "precision_pca"} <= set(found["metrics"])
    assert metric not in found["metrics"]
    overridden = submit(quiet, objective=objective, override_guard=True)
    assert overridden["is_overridden"] is True
    assert [one["pointer"] for one in overridden["objections"]] == ["/objective/metric"]


def test_an_objective_that_may_rank_is_not_marked(quiet: Quiet) -> None:
    body = submit(quiet, override_guard=True)
    assert (body["is_overridden"], body["objections"]) == (False, [])


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"space": {"/trainer/spread/scal": {"grid": [0.1]}}}, "/space/~1trainer~1spread~1scal"),
        ({"space": {"/nowhere/at/all": {"grid": [0.1]}}}, "/space/~1nowhere~1at~1all"),
        ({"space": {SCALE: {"choice": []}}}, "/space/~1trainer~1spread~1scale/choice"),
        ({"space": {SCALE: {"uniform": [1.0, 0.5]}}}, "/space/~1trainer~1spread~1scale/uniform"),
        (
            {"space": {SCALE: {"loguniform": [0.5, 0.5]}}},
            "/space/~1trainer~1spread~1scale/loguniform",
        ),
        (
            {"space": {SCALE: {"choice": [0.5, "wide"]}}},
            "/space/~1trainer~1spread~1scale/choice/1",
        ),
        (
            {"space": {"/trainer/epochs": {"uniform": [1.5, 3.5]}}},
            "/space/~1trainer~1epochs/uniform/0",
        ),
        (
            {"space": {SCALE: {"uniform": [-1.0, 1.0]}}},
            "/space/~1trainer~1spread~1scale/uniform/0",
        ),
        ({"space": {"/seed": {"grid": [1, 2]}}}, "/space/~1seed"),
        ({"space": {}}, "/space"),
        ({"objective": {"metric": "kidd", "mode": "min"}}, "/objective/metric"),
        ({"objective": {"metric": "kid", "mode": "least"}}, "/objective/mode"),
        ({"budget": {"trials": 0}}, "/budget/trials"),
        ({"confirmation": {"seeds": [0]}}, "/confirmation/seeds/0"),
        # Only the data tell that this does not fit: digits has 1,618 training data.
        (
            {"space": {"/trainer/batch_size": {"choice": [100, 100_000]}}},
            "/space/~1trainer~1batch_size/choice/1",
        ),
    ],
)
def test_a_study_that_cannot_be_carried_out_is_422_at_the_field(
    quiet: Quiet, fields: dict[str, Any], pointer: str
) -> None:
    answer = quiet.http.post("/v1/studies", json=study_body(**fields))
    name = answer.json()["type"].rpartition("/")[2]
    assert name in ("invalid-study", "invalid-body")
    found = pointers(problem(answer, 422, name))
    assert any(at == pointer or at.startswith(f"{pointer}/") for at in found), found
    assert quiet.http.get("/v1/studies").json()["studies"] == []


def test_a_study_that_would_wait_for_ever_is_refused(quiet: Quiet) -> None:
    found = refused(quiet, 422, "exceeds-capacity", concurrency=1000)
    assert pointers(found) == ["/concurrency"]


def test_the_list_has_the_newest_first_page_by_page(quiet: Quiet) -> None:
    made = [submit(quiet, name=f"study {number}")["id"] for number in range(5)]
    page = quiet.http.get("/v1/studies?limit=2").json()
    listed = [study["id"] for study in page["studies"]]
    while page["next_cursor"]:
        page = quiet.http.get(f"/v1/studies?limit=2&cursor={page['next_cursor']}").json()
        listed += [study["id"] for study in page["studies"]]
    assert listed == made[::-1]
    quiet.http.post(f"/v1/studies/{made[2]}/pause")
    paused = quiet.http.get("/v1/studies?state=paused").json()["studies"]
    assert [study["id"] for study in paused] == [made[2]]
    problem(quiet.http.get("/v1/studies?cursor=none"), 422, "invalid-query")


def test_verbs_are_wishes_that_may_be_asked_for_twice(quiet: Quiet) -> None:
    path = f"/v1/studies/{submit(quiet)['id']}"
    for verb, intent, state, then in (
        ("pause", "paused", "paused", "resume lets it go on."),
        ("resume", "running", "queued", "as soon as there is room for its trials."),
        ("cancel", "cancelled", "cancelled", "retry lets it go on."),
        ("retry", "running", "queued", "as soon as there is room for its trials."),
    ):
        for _ in range(2):
            answer = quiet.http.post(f"{path}/{verb}")
            assert answer.status_code == 202, answer.text
            assert (answer.json()["intent"], answer.json()["study"]["state"]) == (intent, state)
            assert answer.json()["study"]["message"].endswith(then)
    running = running_study(quiet.jobs)
    answer = quiet.http.post(f"/v1/studies/{running.id}/pause").json()["study"]
    assert (answer["state"], answer["pause_requested"]) == ("running", True)


def test_what_a_studys_state_forbids_is_said_of_the_study(quiet: Quiet) -> None:
    done = ended(quiet.jobs, running_study(quiet.jobs))
    for verb in ("cancel", "pause", "resume", "retry"):
        answer = quiet.http.post(f"/v1/studies/{done.id}/{verb}")
        found = problem(answer, 409, "study-state-conflict")
        assert (found["title"], found["state"]) == ("The study's state forbids it", "succeeded")
    for verb in ("cancel", "pause", "resume", "retry"):
        problem(quiet.http.post(f"/v1/studies/study-none/{verb}"), 404, "study-not-found")


def test_a_budget_is_raised_and_a_finished_study_goes_on(quiet: Quiet) -> None:
    done = ended(quiet.jobs, running_study(quiet.jobs, budget={"trials": 4, "max_epochs": 50}))
    path, tag = f"/v1/studies/{done.id}", f'"{done.version}"'
    more = {"budget": {"trials": 9}}
    stale = quiet.http.patch(path, json=more, headers={"If-Match": '"1"'})
    assert problem(stale, 412, "study-changed")["title"] == "The study has changed"
    answer = quiet.http.patch(path, json=more, headers={"If-Match": tag})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    # What is not named stays.
    assert body["request"]["budget"] == {"trials": 9, "max_wall_s": None, "max_epochs": 50}
    assert (body["state"], body["reason"]) == ("queued", "extended")
    assert body["message"].startswith("Its budget was raised; it goes on from all that it knows")
    assert answer.headers["ETag"] != tag
    lower = problem(quiet.http.patch(path, json={"budget": {"trials": 3}}), 422, "invalid-study")
    assert pointers(lower) == ["/budget/trials"]
    unlimited = quiet.http.patch(path, json={"budget": {"max_epochs": None}}).json()
    assert unlimited["request"]["budget"]["max_epochs"] is None
    empty = problem(quiet.http.patch(path, json={"budget": {}}), 422, "invalid-body")
    assert pointers(empty) == ["/budget"]
    wrong = problem(quiet.http.patch(path, json={"budget": {"trials": 0}}), 422, "invalid-body")
    assert pointers(wrong) == ["/budget/trials"]
    cancelled = quiet.http.post(f"{path}/cancel").json()["study"]
    assert cancelled["state"] == "cancelled"
    problem(quiet.http.patch(path, json={"budget": {"trials": 99}}), 409, "study-state-conflict")


def test_how_far_a_study_is_and_its_candidate_are_told(quiet: Quiet) -> None:
    study = running_study(quiet.jobs, budget={"trials": 5, "max_epochs": 40})
    jobs = quiet.jobs
    add_trial(jobs, study, 0, {**LAPLACE, SCALE: 0.1}, results={9: {"kid_pca": 0.3}})
    add_trial(jobs, study, 1, LAPLACE, results={3: {"kid_pca": 0.9}, 9: {"kid_pca": 0.2}})
    stopped = Reason.STOPPED_BY_STUDY
    add_trial(jobs, study, 2, LAPLACE, results={3: {"kid_pca": 0.8}}, reason=stopped)
    wide = {**LAPLACE, SCALE: 0.9}
    add_trial(jobs, study, 3, wide, state=JobState.FAILED, reason=Reason.NOT_A_NUMBER)
    add_trial(jobs, study, 4, {**LAPLACE, SCALE: 0.4}, state=JobState.RUNNING)
    body = quiet.http.get(f"/v1/studies/{study.id}").json()
    progress = body["progress"]
    assert progress["search"] == {
        **{"queued": 0, "running": 1, "paused": 0},
        **{"succeeded": 3, "failed": 1, "cancelled": 0},
    }
    assert (progress["configurations"], progress["results"], progress["epochs"]) == (5, 4, 21)
    assert (progress["trials_left"], progress["epochs_left"]) == (0, 19)
    assert progress["searched_s"] > 0
    assert progress["wall_left_s"] is None
    assert body["best_so_far"] == {
        "configuration": 1,
        "values": LAPLACE,
        "value": 0.2,
        "confirmed": False,
    }


def test_the_jobs_of_a_study_are_listed_and_name_it(quiet: Quiet) -> None:
    study = running_study(quiet.jobs)
    trials = [add_trial(quiet.jobs, study, n, {**LAPLACE, SCALE: 0.1 + n}) for n in range(2)]
    quiet.submit()
    listed = quiet.http.get(f"/v1/jobs?study={study.id}").json()["jobs"]
    assert [job["id"] for job in listed] == [trial.job_id for trial in trials[::-1]]
    assert {job["study"] for job in listed} == {study.id}
    assert listed[0]["links"]["study"] == f"/v1/studies/{study.id}"
    assert quiet.http.get("/v1/jobs").json()["jobs"][0]["study"] is None


def test_an_ended_study_is_deleted_with_its_trials(quiet: Quiet) -> None:
    study = running_study(quiet.jobs)
    trials = [
        add_trial(quiet.jobs, study, n, {**LAPLACE, SCALE: 0.1 + n}, results={9: {"kid_pca": 1.0}})
        for n in range(2)
    ]
    path = f"/v1/studies/{study.id}"
    found = problem(quiet.http.delete(path), 409, "study-state-conflict")
    assert "cancel it first" in found["detail"]
    # A trial is kept as long as its study.
    problem(quiet.http.delete(f"/v1/jobs/{trials[0].job_id}"), 409, "state-conflict")
    done = ended(quiet.jobs, study)
    stale = quiet.http.delete(path, headers={"If-Match": '"1"'})
    problem(stale, 412, "study-changed")
    assert quiet.http.delete(path, headers={"If-Match": f'"{done.version}"'}).status_code == 204
    problem(quiet.http.get(path), 404, "study-not-found")
    problem(quiet.http.delete(path), 404, "study-not-found")
    assert quiet.http.get("/v1/studies").json()["studies"] == []
    for trial in trials:
        problem(quiet.http.get(f"/v1/jobs/{trial.job_id}"), 404, "job-not-found")


def test_a_study_without_trials_is_deleted_at_once_and_its_key_is_free(quiet: Quiet) -> None:
    key = {"Idempotency-Key": "once"}
    first = quiet.http.post("/v1/studies", json=study_body(), headers=key).json()
    path = f"/v1/studies/{first['id']}"
    quiet.http.post(f"{path}/cancel")
    assert quiet.http.delete(path).status_code == 204
    again = quiet.http.post("/v1/studies", json=study_body(), headers=key)
    assert again.status_code == 201
    assert again.json()["id"] != first["id"]


def test_a_study_whose_trial_still_runs_is_not_deleted(quiet: Quiet) -> None:
    study = running_study(quiet.jobs)
    add_trial(quiet.jobs, study, 0, LAPLACE, state=JobState.RUNNING)
    ended(quiet.jobs, study, JobState.FAILED, StudyReason.DRIVER_LOST)
    found = problem(quiet.http.delete(f"/v1/studies/{study.id}"), 409, "study-state-conflict")
    assert "still run" in found["detail"]
