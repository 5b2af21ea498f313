from collections.abc import Callable
from typing import Any

import pytest

from service.errors import (
    CheckpointNotFound,
    IdempotencyConflict,
    InvalidSpec,
    JobNotFound,
    NotReady,
)
from service.jobs import Job, JobRequest, JobState, Reason
from tests.factories import long_spec, request, tiny_spec
from tests.harness import Service
from workers.artifacts import ArtifactStore, LocalStore
from workers.spec import Start, TrainSpec

PARENT = tiny_spec(epochs=6).model_copy(
    update={"checkpoint_every_epochs": 1, "checkpoint_at_epochs": ()}
)


@pytest.fixture
def parent(service: Service) -> Job:
    return service.run_to_end(service.submit(request(PARENT)))


def changed(parent: Job, **trainer: Any) -> JobRequest:
    content = parent.spec.model_dump()
    content["trainer"] |= trainer
    return request(TrainSpec.model_validate(content))


def fork(
    service: Service,
    parent: Job,
    asked: JobRequest,
    checkpoint: str = "latest",
    start: Start = "train_state",
) -> Job:
    return service.forks.begin(parent.id, checkpoint, start, asked)[0]


def keys(store: ArtifactStore, prefix: str) -> list[str]:
    return [stored.key for stored in store.list(prefix)]


def pointers(error: pytest.ExceptionInfo[InvalidSpec]) -> list[str]:
    return [field.pointer for field in error.value.errors]


def test_a_fork_goes_on_where_its_parent_stands_and_knows_it(service: Service, parent: Job) -> None:
    latest = service.jobs.checkpoints(parent.id)[-1]
    made = fork(service, parent, changed(parent, epochs=8, optimizer={"learning_rate": 1e-5}))
    assert made.parent is not None
    assert (made.parent.job_id, made.parent.checkpoint_id) == (parent.id, latest.id)
    assert (made.parent.digest, made.parent.start) == (latest.digest, "train_state")
    assert service.jobs.forks_of(parent.id) == [made.id]
    ended = service.run_to_end(made)
    assert ended.state is JobState.SUCCEEDED
    [attempt] = service.jobs.attempts(made.id)
    assert attempt.resumed_from_step == latest.step == 24
    assert ended.progress is not None
    assert ended.progress.step == 32
    assert any(checkpoint.is_best for checkpoint in service.jobs.checkpoints(made.id))


def test_a_longer_fork_computes_what_a_longer_parent_would_have(
    service: Service, parent: Job
) -> None:
    longer = changed(parent, epochs=8)
    whole = service.run_to_end(service.submit(longer))
    forked = service.run_to_end(fork(service, parent, longer))
    last = [service.jobs.checkpoints(job.id)[-1].digest for job in (whole, forked)]
    assert last[0] == last[1]


def test_the_digest_of_a_fork_is_no_unforked_jobs(service: Service, parent: Job) -> None:
    asked = changed(parent, epochs=8)
    plain = service.submit(asked)
    same = [fork(service, parent, asked).spec_digest for _ in range(2)]
    anew = fork(service, parent, asked, start="weights").spec_digest
    earlier = fork(service, parent, asked, service.jobs.checkpoints(parent.id)[-2].id).spec_digest
    assert same[0] == same[1]
    assert len({plain.spec_digest, same[0], anew, earlier}) == 4


def test_a_fork_from_weights_begins_at_the_first_step(service: Service, parent: Job) -> None:
    first = service.jobs.checkpoints(parent.id)[0]
    assert not first.has_train_state
    made = fork(service, parent, changed(parent, epochs=1, batch_size=30), first.id, "weights")
    ended = service.run_to_end(made)
    assert ended.state is JobState.SUCCEEDED
    assert ended.progress is not None
    assert ended.progress.step == 3
    assert service.jobs.attempts(made.id)[0].resumed_from_step is None


def test_a_checkpoint_without_train_state_is_refused_with_what_to_do(
    service: Service, parent: Job
) -> None:
    first = service.jobs.checkpoints(parent.id)[0]
    with pytest.raises(InvalidSpec) as refused:
        fork(service, parent, changed(parent, epochs=8), first.id)
    assert pointers(refused) == ["/start"]
    assert "weights" in refused.value.errors[0].message


def test_every_change_that_the_start_does_not_allow_is_pointed_at(
    service: Service, parent: Job
) -> None:
    asked = changed(
        parent, batch_size=30, network={"kind": "mlp", "hidden": [8, 8], "latent_dim": 2}
    )
    with pytest.raises(InvalidSpec) as refused:
        fork(service, parent, asked)
    assert pointers(refused) == [
        "/spec/trainer/network/hidden",
        "/spec/trainer/batch_size",
        "/spec/trainer/epochs",
    ]
    assert service.jobs.forks_of(parent.id) == []


def test_what_is_not_there_cannot_be_forked(service: Service, parent: Job) -> None:
    asked = changed(parent, epochs=8)
    with pytest.raises(JobNotFound):
        service.forks.begin("job-none", "latest", "weights", asked)
    with pytest.raises(CheckpointNotFound):
        fork(service, parent, asked, "00009999")


def test_a_fork_needs_nothing_of_its_parents_files(service: Service, parent: Job) -> None:
    made = fork(service, parent, changed(parent, epochs=8))
    service.artifacts.delete_many(keys(service.artifacts, f"jobs/{parent.id}"))
    assert service.run_to_end(made).state is JobState.SUCCEEDED


def test_a_fork_of_a_running_parent_outlives_its_thinning(service: Service) -> None:
    spec = long_spec().model_copy(update={"checkpoint_every_epochs": 5, "keep_checkpoints": 3})
    running = service.submit(request(spec))
    service.run_until(running, lambda now: len(service.jobs.checkpoints(running.id)) >= 3)
    made = forked_from_latest(service, running)
    assert made.parent is not None
    taken = made.parent.checkpoint_id
    service.run_until(
        running,
        lambda now: (
            taken not in [checkpoint.id for checkpoint in service.jobs.checkpoints(running.id)]
        ),
    )
    service.training.cancel(running.id)
    service.run_to_end(running)
    service.run_until(made, lambda now: now.reason is Reason.TRAINING)
    assert service.jobs.attempts(made.id)[0].resumed_from_step == int(taken)
    service.training.cancel(made.id)
    service.run_to_end(made)


def forked_from_latest(service: Service, running: Job) -> Job:
    """The parent thins without asking: whoever comes too late is told so, and asks again."""
    for _ in range(50):
        try:
            return fork(service, running, changed(running, optimizer={"learning_rate": 1e-5}))
        except (CheckpointNotFound, InvalidSpec):
            service.watcher.round()
    raise AssertionError("never in time")


def test_a_lost_first_attempt_of_a_fork_begins_again_from_the_parent(
    service: Service, parent: Job
) -> None:
    spec = changed(parent, epochs=100_000).spec.model_copy(
        update={"checkpoint_every_epochs": 100_000}
    )
    made = fork(service, parent, request(spec))
    service.run_until(made, lambda now: now.reason is Reason.TRAINING)
    service.training.cancel(made.id)
    service.run_to_end(made)
    own = service.jobs.checkpoints(made.id)[-1]
    service.training.retry(made.id)
    service.run_until(made, lambda now: now.attempt == 2 and now.reason is Reason.TRAINING)
    first, second = service.jobs.attempts(made.id)
    assert (first.resumed_from_step, second.resumed_from_step) == (24, own.step)
    service.training.cancel(made.id)
    service.run_to_end(made)


def test_a_key_makes_one_fork_and_leaves_no_second_copy(service: Service, parent: Job) -> None:
    asked = changed(parent, epochs=8)

    def forked(
        start: Start, changes: Callable[[Job], JobRequest] = lambda _: asked
    ) -> tuple[Job, bool]:
        return service.forks.fork(parent.id, "latest", start, changes, {"start": start}, "key")

    first, is_new = forked("weights")
    again, is_new_again = forked("weights")
    assert (is_new, is_new_again) == (True, False)
    assert again.id == first.id
    copies = [key for key in keys(service.artifacts, "jobs") if "/parent/" in key]
    assert copies == [
        f"jobs/{first.id}/parent/manifest.json",
        f"jobs/{first.id}/parent/weights.safetensors",
    ]
    # Whatever the same changes would make of the parent now.
    assert forked("weights", lambda _: changed(parent, epochs=9)) == (again, False)
    with pytest.raises(IdempotencyConflict):
        forked("train_state")
    with pytest.raises(IdempotencyConflict):
        service.training.submit(asked, "key")


def test_a_checkpoint_that_goes_while_it_is_copied_is_said_to_be_gone(
    service: Service, parent: Job
) -> None:
    store = Thinning(service.artifacts.root)  # type: ignore[attr-defined]
    service.forks._artifacts = store
    with pytest.raises(CheckpointNotFound, match="thinned out meanwhile"):
        fork(service, parent, changed(parent, epochs=8))
    assert service.jobs.forks_of(parent.id) == []


class Thinning(LocalStore):
    """A folder whose file goes between its opening and its copy."""

    def put_file(self, key: str, path: Any) -> None:
        path.unlink()
        super().put_file(key, path)


def test_a_store_that_is_away_makes_no_fork(service: Service, parent: Job) -> None:
    away = service.artifacts.root.rename(service.artifacts.root.with_name("away"))  # type: ignore[attr-defined]
    service.artifacts.root.write_text("no folder")  # type: ignore[attr-defined]
    with pytest.raises((NotReady, CheckpointNotFound)):
        fork(service, parent, changed(parent, epochs=8))
    assert service.jobs.forks_of(parent.id) == []
    service.artifacts.root.unlink()  # type: ignore[attr-defined]
    away.rename(service.artifacts.root)  # type: ignore[attr-defined]
