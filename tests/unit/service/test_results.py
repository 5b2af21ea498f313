import hashlib
from collections.abc import Iterator

import pytest

from service.errors import CheckpointNotFound, InvalidQuery, JobNotFound, ResultNotFound
from service.jobs import JobState, Reason
from service.jobstore import JobStore
from service.results import Results
from tests.contract.jobstore import making
from tests.unit.service.trained import Trained, train, vector_spec
from workers.artifacts import LocalStore


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    trained = train(tmp_path_factory.mktemp("trained"), vector_spec())
    yield trained
    trained.jobs.close()


@pytest.fixture
def waiting(jobs: JobStore, artifacts: LocalStore) -> tuple[Results, JobStore, str]:
    """A job without any result."""
    return Results(jobs, artifacts), jobs, making.running(jobs, of=vector_spec()).id


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def test_every_question_about_an_unknown_job_is_not_found(trained: Trained) -> None:
    results = trained.results
    for ask in (
        lambda: results.events("job-none", 0, 10),
        lambda: results.metrics("job-none", None, 10),
        lambda: results.checkpoints("job-none"),
        lambda: results.checkpoint("job-none", "latest"),
        lambda: results.weights("job-none", "latest"),
        lambda: results.artifacts("job-none"),
        lambda: results.artifact("job-none", "a"),
        lambda: results.grids("job-none"),
    ):
        with pytest.raises(JobNotFound):
            ask()


def test_events_go_on_after_a_number(trained: Trained) -> None:
    events = trained.results.events(trained.job_id, 0, 1000)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert trained.results.events(trained.job_id, events[4].seq, 2) == events[5:7]
    assert trained.results.events(trained.job_id, events[-1].seq, 10) == []


def test_metrics_are_thinned_to_their_ends(trained: Trained) -> None:
    whole = trained.results.metrics(trained.job_id, None, 1000)
    assert {"loss_nats", "held_out_elbo_nats", "noise_entropy_nats"} <= set(whole)
    ends = trained.results.metrics(trained.job_id, ["loss_nats"], 2)
    assert ends == {"loss_nats": [whole["loss_nats"][0], whole["loss_nats"][-1]]}


def test_an_unknown_metric_is_refused_with_the_known_ones(trained: Trained) -> None:
    with pytest.raises(InvalidQuery) as refusal:
        trained.results.metrics(trained.job_id, ["loss_nats", "los"], 10)
    [error] = refusal.value.errors
    assert error.pointer == "/query/name"
    assert "'los'" in error.message
    assert "loss_nats" in error.message


def test_one_point_is_no_curve(trained: Trained) -> None:
    with pytest.raises(InvalidQuery) as refusal:
        trained.results.metrics(trained.job_id, None, 1)
    assert [error.pointer for error in refusal.value.errors] == ["/query/max_points"]


def test_metrics_asked_for_before_there_are_any_are_empty(
    waiting: tuple[Results, JobStore, str],
) -> None:
    results, _, job_id = waiting
    assert results.metrics(job_id, ["loss_nats"], 10) == {"loss_nats": []}
    assert results.metrics(job_id, None, 10) == {}


def test_a_checkpoint_is_chosen_by_latest_best_or_id(trained: Trained) -> None:
    checkpoints = trained.results.checkpoints(trained.job_id)
    assert [checkpoint.epoch for checkpoint in checkpoints] == [1.0, 2.0, 3.0]
    chosen = trained.results.checkpoint(trained.job_id, "latest")
    assert chosen == checkpoints[-1]
    best = trained.results.checkpoint(trained.job_id, "best")
    assert best == [checkpoint for checkpoint in checkpoints if checkpoint.is_best][-1]
    for checkpoint in checkpoints:
        assert trained.results.checkpoint(trained.job_id, checkpoint.id) == checkpoint


def test_an_unknown_checkpoint_is_not_found(trained: Trained) -> None:
    with pytest.raises(CheckpointNotFound, match="'00009999'"):
        trained.results.checkpoint(trained.job_id, "00009999")


def test_before_the_first_checkpoint_it_is_said_when_it_is_due(
    waiting: tuple[Results, JobStore, str],
) -> None:
    results, jobs, job_id = waiting
    for choice in ("latest", "best", "00000001"):
        with pytest.raises(CheckpointNotFound, match=r"due after epoch 1 \(the job is running\)"):
            results.checkpoint(job_id, choice)
    jobs.settle(jobs.get(job_id), JobState.FAILED, Reason.DIVERGED, "diverged")
    with pytest.raises(CheckpointNotFound, match=r"ended \(failed\) before its first checkpoint"):
        results.checkpoint(job_id, "latest")


def test_without_an_evaluation_no_checkpoint_is_the_best(
    waiting: tuple[Results, JobStore, str],
) -> None:
    results, jobs, job_id = waiting
    jobs.ingest(job_id, 1, 0, [making.checkpoint(5)])
    with pytest.raises(CheckpointNotFound, match="checkpoint=latest"):
        results.checkpoint(job_id, "best")


def test_weights_are_streamed_whole_and_in_part(trained: Trained) -> None:
    file = trained.results.weights(trained.job_id, "latest")
    content = b"".join(file.open(0, None))
    assert (len(content), digest(content)) == (file.size_bytes, file.digest)
    assert b"".join(file.open(10, 30)) == content[10:30]
    assert file.info_name.endswith(".safetensors")


def test_grids_are_listed_by_step_and_can_be_fetched(trained: Trained) -> None:
    grids = trained.results.grids(trained.job_id)
    steps = [grid.step for grid in grids]
    assert steps == [3, 6, 9]
    file = trained.results.artifact(trained.job_id, grids[0].name)
    content = b"".join(file.open(0, None))
    assert file.media_type == "image/png"
    assert content.startswith(b"\x89PNG")
    assert digest(content) == file.digest == grids[0].digest


def test_an_unknown_artifact_is_not_found(trained: Trained) -> None:
    with pytest.raises(ResultNotFound, match=r"'grids/none\.png'"):
        trained.results.artifact(trained.job_id, "grids/none.png")


def test_a_file_that_is_gone_is_said_before_anything_is_sent(
    waiting: tuple[Results, JobStore, str],
) -> None:
    results, jobs, job_id = waiting
    jobs.ingest(job_id, 1, 0, [making.artifact("a", key="jobs/j/attempts/1/files/a")])
    file = results.artifact(job_id, "a")
    with pytest.raises(ResultNotFound, match="gone from the store"):
        file.open(0, None)
