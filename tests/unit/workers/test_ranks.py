"""One attempt by several workers, each a thread of this process."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.factories import long_spec, tiny_spec
from tests.unit.workers.test_celeba import draw
from tests.unit.workers.test_run import records_of, run_of, weights_of
from workers.artifacts import (
    LocalStore,
    chunk_key,
    failure_key,
    log_end_key,
    log_key,
    outcome_key,
)
from workers.checkpoint import Versions
from workers.errors import PeerLost
from workers.events import LogRecord, MetricsRecord, Outcome, OutcomeReason, StartedRecord
from workers.failures import Ending
from workers.logs import decode_chunk, local_log_path
from workers.parallel import LOOPBACK, Seat
from workers.ranks import cause_of_loss, failures, leave_failure
from workers.run import Run, StopFlag, execute, follow
from workers.spec import Resources, TrainSpec


@dataclass
class Crew:
    """Workers at one run, and the outcome that worker 0 returns."""

    stops: list[StopFlag]
    outcomes: list[Outcome] = field(default_factory=list)


@contextmanager
def crew(folder: Path, runs: Mapping[int, Run], size: int = 2) -> Iterator[Crew]:
    """Workers with these ranks, which have all ended after the block."""
    made = Crew([StopFlag() for _ in range(size)])

    def work(rank: int) -> None:
        seat = Seat.of(Resources(workers=size), rank, f"file://{folder}/meeting", LOOPBACK)
        if rank == 0:
            made.outcomes.append(execute(runs[rank], made.stops[rank], seat))
        else:
            follow(runs[rank], made.stops[rank], seat)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in runs]
    for thread in threads:
        thread.start()
    yield made
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def outcome_of(folder: Path, *runs: Run) -> Outcome:
    with crew(folder, dict(enumerate(runs)), len(runs)) as made:
        pass
    return made.outcomes[0]


def of(workers: int, spec: TrainSpec) -> TrainSpec:
    return spec.model_copy(update={"resources": Resources(workers=workers)})


def wait_for(store: LocalStore, key: str) -> None:
    give_up_at = time.monotonic() + 30
    while not store.exists(key):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_worker_0_publishes_and_the_others_only_their_logs(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    run = run_of(artifacts, tmp_path, of(3, tiny_spec()))
    outcome = outcome_of(tmp_path, run, run, run)
    assert (outcome.reason, outcome.step) == ("completed", 12)
    records = records_of(artifacts, run, outcome)
    assert sum(isinstance(record, StartedRecord) for record in records) == 1
    steps = [record.step for record in records if isinstance(record, MetricsRecord)]
    assert len(steps) == len(set(steps))
    keys = [stored.key for stored in artifacts.list(run.prefix)]
    assert not [key for key in keys if "failures" in key]
    assert {key.split("/")[5] for key in keys if "/logs/" in key} == {"0", "1", "2"}


def test_each_worker_has_a_log_of_its_own_and_worker_0_announces_it(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    run = run_of(artifacts, tmp_path, of(3, tiny_spec()))
    outcome = outcome_of(tmp_path, run, run, run)
    records = records_of(artifacts, run, outcome)
    for rank in range(3):
        told = [each for each in records if isinstance(each, LogRecord) and each.rank == rank]
        assert [record.chunk for record in told] == list(range(len(told)))
        chunks = [artifacts.get(log_key(run.prefix, rank, each.chunk)) for each in told]
        lines = [line.text for chunk in chunks for line in decode_chunk(chunk)]
        assert sum(record.lines for record in told) == len(lines)
        assert lines[0].startswith("job-1 attempt 1 on ")
        assert lines[1].startswith("data loaded: ")
        assert any("epoch 3" in line for line in lines) == (rank == 0)
        assert artifacts.exists(log_end_key(run.prefix, rank)) == (rank > 0)
        assert not local_log_path(tmp_path, "job-1", 1, rank).exists()


def test_a_resumed_crew_ends_with_the_same_bits_as_an_undisturbed_one(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    spec = of(2, tiny_spec(epochs=40))
    folders = [tmp_path / name for name in ("whole", "first", "second")]
    for folder in folders:
        folder.mkdir()
    whole = run_of(artifacts, tmp_path, spec)
    end = outcome_of(folders[0], whole, whole).step
    first = run_of(artifacts, tmp_path, spec, attempt=2)
    with crew(folders[1], {0: first, 1: first}) as made:
        wait_for(artifacts, chunk_key(first.prefix, 0))
        made.stops[0].request("interrupted")
    outcome = made.outcomes[0]
    assert outcome.reason == "interrupted"
    assert 0 < outcome.step < end
    second = run_of(
        artifacts,
        tmp_path,
        spec,
        attempt=3,
        resume_from=f"{first.prefix}/checkpoints/{outcome.step:08d}",
    )
    assert outcome_of(folders[2], second, second).reason == "completed"
    assert weights_of(artifacts, second, end) == weights_of(artifacts, whole, end)


def test_a_time_limit_ends_all_workers(artifacts: LocalStore, tmp_path: Path) -> None:
    run = run_of(artifacts, tmp_path, of(2, long_spec()), wall_s=0.3)
    outcome = outcome_of(tmp_path, run, run)
    assert outcome.reason == "time_limit"
    assert weights_of(artifacts, run, outcome.step)


def test_the_reason_of_a_worker_that_fails_before_the_meeting_is_the_outcome(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    run = run_of(artifacts, tmp_path, of(2, tiny_spec()))
    other = run.model_copy(update={"versions": Versions(spreadtrain="0.0.1")})
    outcome = outcome_of(tmp_path, run, other)
    assert outcome.reason == "version_mismatch"
    assert outcome.message.startswith("Worker 1: ")
    assert "0.0.1" in outcome.message


def test_data_that_one_worker_lacks_are_said_with_its_number(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    draw(tmp_path / "celeba")
    spec = TrainSpec.model_validate(
        {
            "dataset": {"name": "celeba"},
            "trainer": {
                "kind": "vae",
                "batch_size": 4,
                "epochs": 1,
                "network": {"kind": "conv", "channels": [2, 2], "latent_dim": 1},
            },
        }
    )
    run = run_of(artifacts, tmp_path, of(3, spec))
    outcome = outcome_of(tmp_path, run, run, run.model_copy(update={"cache_dir": tmp_path / "no"}))
    assert outcome.reason == "data_unavailable"
    assert outcome.message.startswith("Worker 2: ")
    assert "celeba is not on this machine" in outcome.message


def test_a_failure_of_worker_0_ends_the_others(artifacts: LocalStore, tmp_path: Path) -> None:
    run = run_of(artifacts, tmp_path, of(2, tiny_spec()))
    other = run.model_copy(update={"versions": Versions(spreadtrain="0.0.1")})
    assert outcome_of(tmp_path, other, run).reason == "version_mismatch"


def test_divergence_on_several_workers_is_divergence(artifacts: LocalStore, tmp_path: Path) -> None:
    spec = tiny_spec(
        epochs=400,
        network={"kind": "mlp", "hidden": [64, 64, 64], "latent_dim": 2},
        optimizer={"learning_rate": 10.0, "clip_norm": None},
        spread={"kind": "gaussian", "scale": 1e-4},
    )
    run = run_of(artifacts, tmp_path, of(2, spec))
    outcome = outcome_of(tmp_path, run, run)
    assert outcome.reason == "diverged"
    assert outcome.step > 0


def test_a_stop_reaches_a_worker_that_waits_for_the_others(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    run = run_of(artifacts, tmp_path, of(2, long_spec()))
    with crew(tmp_path, {0: run}) as made:
        made.stops[0].request("cancelled")
    assert made.outcomes[0].reason == "cancelled"


def test_a_worker_whose_attempt_was_given_up_leaves_without_a_word(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    run = run_of(artifacts, tmp_path, of(2, long_spec()))
    with crew(tmp_path, {1: run}):
        lost = Outcome.model_validate_json(
            '{"reason": "worker_lost", "message": "given up", "at": "2026-01-01T00:00:00Z"}'
        )
        artifacts.put(outcome_key(run.prefix), lost.model_dump_json().encode())
    assert [stored.key for stored in artifacts.list("jobs")] == [outcome_key(run.prefix)]


@pytest.mark.parametrize(
    ("told", "reason", "words"),
    [
        ({1: "out_of_memory", 2: "worker_lost"}, "out_of_memory", "Worker 1: because"),
        ({1: "worker_lost"}, "worker_lost", "Of 3 workers, worker 2 was lost"),
        ({1: "worker_lost", 2: "worker_lost"}, "worker_lost", "connections between them"),
    ],
)
def test_who_stays_silent_is_the_one_that_was_killed(
    artifacts: LocalStore, told: dict[int, OutcomeReason], reason: str, words: str
) -> None:
    prefix = "jobs/job-1/attempts/1"
    for rank, why in told.items():
        leave_failure(artifacts, prefix, rank, Ending(why, "because", 7))
    ending = cause_of_loss(artifacts, prefix, 3, PeerLost())
    assert ending.reason == reason
    assert words in ending.message


def test_a_failure_is_written_once_and_not_after_the_outcome(artifacts: LocalStore) -> None:
    prefix = "jobs/job-1/attempts/1"
    leave_failure(artifacts, prefix, 1, Ending("internal_error", "first"))
    leave_failure(artifacts, prefix, 1, Ending("internal_error", "second"))
    assert failures(artifacts, prefix)[1].message == "first"
    artifacts.put(outcome_key(prefix), b"{}")
    leave_failure(artifacts, prefix, 2, Ending("internal_error", "late"))
    assert not artifacts.exists(failure_key(prefix, 2))
