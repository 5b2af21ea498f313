"""Why a job waits for a study, and why a trial of one waits; what is advised does help."""

from datetime import UTC, datetime, timedelta

from service.explaining import Explanation
from service.jobs import Job, JobState, Reason
from service.studies.ledger import Study, Trial
from tests.factories import request
from tests.studying import Studied, new_study, study_spec
from tests.trials import add_trial
from tests.unit.service.explaining_of import explaining_of


def explain(studied: Studied, job: Job | Trial) -> Explanation:
    return explaining_of(studied.service).explain(job.id if isinstance(job, Job) else job.job_id)


def running(studied: Studied) -> Study:
    """A study that has its places; the test's rounds, if any, start its driver."""
    ledger = studied.service.jobs.ledger
    return ledger.start(ledger.add(new_study(spec=study_spec(epochs=100_000))), "starting")


def pausing(study: Study) -> str:
    """What advice to pause a study names."""
    return f"POST /v1/studies/{study.id}/pause"


def test_a_job_without_room_names_the_study_and_starts_when_that_is_paused(
    studied: Studied,
) -> None:
    study = running(studied)
    job = studied.service.submit(request())
    said = explain(studied, job)
    assert said.rule.name == "capacity"
    assert "0 of 2 core(s) are free" in said.headline
    holds = f"{study.id} holds 2 workers with 1 core(s) each for its trials"
    assert f"{holds} (ends, nobody can tell when)" in said.headline
    assert said.claims is not None
    assert [(held.study_id, held.left_s) for held in said.claims.holders] == [(study.id, None)]
    first = said.changes[0]
    assert first.sentence.startswith(f"Pause {study.id}, which goes on later: {pausing(study)}")
    assert (first.action, first.job_id) == ("none", "")  # jobs' verbs are not for studies
    studied.service.jobs.ledger.request_pause(study.id)
    said = explain(studied, job)
    assert f"{holds} (is about to end)" in said.headline
    assert study.id not in "".join(change.sentence for change in said.changes)
    studied.wait(study, lambda now: now.state is JobState.PAUSED)
    assert studied.service.run_to_end(job).state is JobState.SUCCEEDED


def test_a_job_behind_studies_and_jobs_counts_and_names_them(studied: Studied) -> None:
    running(studied)
    earlier = studied.service.submit(request())
    study = studied.add()
    job = studied.service.submit(request())
    said = explain(studied, job)
    assert said.rule.name == "priority_order"
    both = f"1 study(s) and 1 job(s) start before it ({study.id}, {earlier.id})"
    assert both in said.headline
    assert said.standing is not None
    assert said.standing.ahead == 2
    for_study, for_job = said.changes[:2]
    assert pausing(study) in for_study.sentence
    assert (for_study.action, for_study.job_id) == ("none", "")
    assert (for_job.action, for_job.job_id) == ("pause", earlier.id)
    studied.service.training.pause(earlier.id)
    assert f"1 study(s) start before it ({study.id})" in explain(studied, job).headline
    studied.service.jobs.ledger.request_pause(study.id)
    assert explain(studied, job).rule.name == "capacity"


def test_a_trial_waits_for_its_study_alone(studied: Studied) -> None:
    jobs, study = studied.service.jobs, running(studied)
    waits = add_trial(jobs, study, 0, {}, state=JobState.QUEUED)
    paused = add_trial(jobs, study, 1, {}, state=JobState.PAUSED, reason=Reason.PAUSED)
    lost = add_trial(jobs, study, 2, {}, state=JobState.RUNNING)
    jobs.settle(
        jobs.get(lost.job_id),
        JobState.QUEUED,
        Reason.STORE_UNREACHABLE,
        "Attempt 1 was lost.",
        not_before=datetime.now(UTC) + timedelta(seconds=3600),
    )
    said = explain(studied, waits)
    assert said.headline == (
        f"It is a trial of {study.id}, which starts it when one of its places is free."
    )
    assert [(change.action, change.job_id) for change in said.changes] == [("cancel", waits.job_id)]
    assert said.standing is None  # it is the study that has a turn
    assert f"paused by its study, {study.id}," in explain(studied, paused).headline
    assert not explain(studied, paused).changes
    assert "It waits 60 min more. Attempt 1 was lost." in explain(studied, lost).headline
    found = {explain(studied, trial).rule.name for trial in (waits, paused, lost)}
    assert found == {"trial_of_study"}
