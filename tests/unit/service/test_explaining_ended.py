"""How a job that has ended is explained: the chain of causes, the rule, what to do next."""

import logging
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.cluster.memory import oom_kills
from service.explaining import Explanation
from service.explaining.explaining import without_tracebacks
from service.jobs import FINAL_STATES, Attempt, Job, JobState, Reason
from service.jobstore import JobStore
from service.verdicts import ENDS
from tests.factories import long_spec, request, tiny_spec
from tests.harness import Service, make_service
from tests.unit.service.explaining_of import Elsewhere, explaining_of
from tests.unit.service.test_exits import NAMED
from workers.artifacts import LocalStore, attempt_prefix, log_key, outcome_key
from workers.events import Outcome
from workers.spec import TrainSpec


def explain(service: Service, job: Job) -> Explanation:
    return explaining_of(service).explain(job.id)


def lose(service: Service, job: Job) -> None:
    """The attempt's end is written as the watcher would write that of a lost one."""
    lost = Outcome(reason="worker_lost", message="Lost.", at=datetime.now(UTC))
    key = outcome_key(attempt_prefix(job.id, job.attempt))
    service.artifacts.put(key, lost.model_dump_json().encode())


def test_a_success_says_so_and_asks_for_nothing(service: Service) -> None:
    job = service.run_to_end(service.submit(request()))
    said = explain(service, job)
    assert said.rule.name == "completed"
    assert "succeeded after 12 steps" in said.headline
    assert said.changes == ()
    assert said.claims is None
    (link,) = said.chain
    assert (link.counts, link.attempt.last_step) == (False, 12)
    assert link.attempt.peak_rss_bytes is not None
    assert link.attempt.peak_rss_bytes > 50 << 20  # torch alone has more
    assert link.followed_by == "It was the last one; the job is succeeded."


def test_early_stopping_is_a_rule_of_its_own(service: Service) -> None:
    patience = {"metric": "loss_nats", "patience": 1, "min_delta": 1e6}
    job = service.run_to_end(service.submit(request(tiny_spec(early_stopping=patience, epochs=50))))
    said = explain(service, job)
    assert said.rule.name == "early_stopping"
    assert [change.action for change in said.changes] == ["fork"]


def test_a_cancelled_job_can_be_retried(service: Service) -> None:
    job = service.submit(request(long_spec()))
    service.run_until(job, lambda now: now.reason is Reason.TRAINING)
    service.training.cancel(job.id)
    said = explain(service, service.run_to_end(job))
    assert said.rule.name == "wish"
    assert [change.action for change in said.changes] == ["retry"]


def test_the_chain_says_how_the_job_went_on_after_each_loss(service: Service) -> None:
    spec = long_spec().model_copy(update={"checkpoint_every_epochs": 20})
    job = service.submit(request(spec, limits={"max_attempts": 2}))
    job = service.run_until(job, lambda now: len(service.jobs.checkpoints(job.id)) >= 2)
    lose(service, job)
    job = service.run_until(job, lambda now: now.attempt == 2 and now.reason is Reason.TRAINING)
    assert explain(service, job).chain[1].followed_by == "It is the present attempt."
    lose(service, job)
    said = explain(service, service.run_until(job, lambda now: now.state in FINAL_STATES))
    assert said.rule.name == "max_attempts"
    assert "(2) were lost" in said.rule.sentence
    first, second = said.chain
    resumed = second.attempt.resumed_from_step
    assert resumed is not None
    assert first.counts
    assert second.counts
    assert first.followed_by.startswith(f"Attempt 2 went on from step {resumed}")
    assert second.followed_by == "It was the last one; the job is failed."
    assert "in attempt 2 (worker_lost)" in said.headline
    assert "retry" in [change.action for change in said.changes]


def test_a_run_that_diverges_is_not_repeated_and_a_lower_rate_is_offered(service: Service) -> None:
    job = service.submit(request(long_spec()))
    job = service.run_until(job, lambda now: bool(service.jobs.checkpoints(job.id)))
    end = Outcome(reason="diverged", message="loss became nan.", at=datetime.now(UTC))
    key = outcome_key(attempt_prefix(job.id, 1))
    service.artifacts.put(key, end.model_dump_json().encode())
    said = explain(service, service.run_to_end(job))
    assert said.rule.name == "not_repeated"
    lower = said.changes[0]
    assert (lower.action, lower.body["checkpoint"]) == ("fork", "best")
    assert isinstance(job.spec, TrainSpec)
    rate = job.spec.trainer.optimizer.learning_rate
    assert lower.body["spec"]["trainer"]["optimizer"]["learning_rate"] == pytest.approx(rate / 10)


def test_a_job_out_of_time_is_offered_more(service: Service) -> None:
    job = service.submit(request(long_spec(), limits={"max_wall_s": 0.4}))
    said = explain(service, service.run_to_end(job))
    assert said.rule.name == "time_limit"
    assert "(0.4)" in said.rule.sentence
    (change,) = said.changes
    assert (change.action, change.body) == ("retry", {"limits": {"max_wall_s": 0.8}})
    assert any("ended: time_limit" in line for line in said.last_lines)


def test_an_explanation_does_without_a_log_that_the_store_does_not_give(
    service: Service, artifacts: LocalStore
) -> None:
    job = service.submit(request(long_spec(), limits={"max_wall_s": 0.4}))
    service.run_to_end(job)
    for chunk in (artifacts.root / log_key(attempt_prefix(job.id, 1), 0, 0)).parent.iterdir():
        chunk.unlink()
        chunk.symlink_to(chunk)  # a circle, which no read gets through
    said = explain(service, job)
    assert said.rule.name == "time_limit"
    (line,) = said.last_lines
    assert "artifact store" in line
    assert str(artifacts.root) not in line


def test_a_process_that_was_killed_is_told_with_its_signal_after_a_restart_too(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    before = oom_kills() or 0
    with subprocess.Popen(["sleep", "100"]) as process, closing(Elsewhere()) as cluster:
        cluster.pid = process.pid
        service = make_service(jobs, artifacts, tmp_path, cluster)
        job = service.submit(request(limits={"max_attempts": 1}))
        service.watcher.round()
        service.watcher.round()
        process.kill()
        process.wait()
        cluster.is_gone = True
        service.run_until(job, lambda now: now.state is JobState.FAILED)
    with closing(Elsewhere()) as another:  # nothing of it was in the memory of the first
        said = explain(make_service(jobs, artifacts, tmp_path, another), job)
    (link,) = said.chain
    assert link.attempt.exit is not None
    assert link.attempt.exit.signal == NAMED
    assert link.attempt.exit.detail == "its process was killed or crashed"
    # The count is the whole machine's, where others may have lost processes too.
    kills = link.attempt.exit.oom_kills
    assert kills in range((oom_kills() or 0) - before + 1)
    assert ("SIGKILL ended its process" in said.headline) == (NAMED is not None)
    assert f"the kernel ended {kills} process(es) for want of memory" in said.headline


def test_a_defect_is_named_by_its_place_in_the_services_log(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    job = service.submit(request(long_spec()))
    job = service.run_until(job, lambda now: now.reason is Reason.TRAINING)
    trace = 'Traceback (most recent call last):\n  File "/secret/place.py", line 1\nKeyError: 1'
    said_by_it = Outcome(
        reason="internal_error", message="A defect.", at=datetime.now(UTC), detail=trace
    )
    key = outcome_key(attempt_prefix(job.id, 1))
    service.artifacts.put(key, said_by_it.model_dump_json().encode())
    with caplog.at_level(logging.ERROR):
        said = explain(service, service.run_until(job, lambda now: now.state is JobState.FAILED))
    assert said.rule.name == "not_repeated"
    place = f"{job.id} attempt 1"
    assert place in said.changes[0].sentence
    assert any(place in record.getMessage() for record in caplog.records)
    assert "place.py" not in repr(said)


@pytest.mark.parametrize("reason", [reason for reason, to in ENDS.items() if to != "succeeded"])
def test_every_reason_for_a_failure_has_a_rule_and_something_to_do(
    service: Service, reason: str
) -> None:
    job = service.submit(request())
    attempt = Attempt(job.id, 1, "executor-1", service.cluster.session, datetime.now(UTC))
    job = service.jobs.start_attempt(job, attempt, Reason.STARTING, "starting")
    job = service.jobs.settle(job, JobState.FAILED, Reason(reason), "It went wrong.")
    said = explain(service, job)
    assert reason in said.headline
    assert "It went wrong." in said.headline
    assert said.rule.sentence
    assert said.changes


def test_tracebacks_are_left_to_the_log() -> None:
    lines = [
        "epoch 3",
        "Traceback (most recent call last):",
        '  File "/a/b.py", line 3, in f',
        "    g()",
        "torch.cuda.OutOfMemoryError: no room in /a/b",
        "ended: internal_error",
    ]
    assert without_tracebacks(lines) == (
        "epoch 3",
        "(a traceback; the log has it)",
        "ended: internal_error",
    )
    # One that began before the lines that were read.
    assert without_tracebacks(lines[2:]) == without_tracebacks(lines[1:])
