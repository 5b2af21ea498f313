from typing import Any

import pytest

from service.errors import (
    ExceedsCapacity,
    IdempotencyConflict,
    Invalid,
    InvalidSpec,
    OutOfStorage,
    StateConflict,
)
from service.jobs import JobFilter
from tests.factories import request, tiny_spec
from tests.harness import Service
from workers.artifacts import LocalStore
from workers.spec import TrainSpec


def spec_with(**changes: Any) -> TrainSpec:
    return TrainSpec.model_validate({**tiny_spec().model_dump(), **changes})


def pointers(error: Invalid) -> list[str]:
    return [field.pointer for field in error.errors]


def test_a_job_pins_its_data_at_submission(service: Service) -> None:
    job = service.submit(request())
    assert job.spec.data_digest is not None
    assert isinstance(job.spec, TrainSpec)
    assert job.spec.trainer.network.output == "identity"


def test_resubmitting_a_stored_spec_gives_the_same_spec(service: Service) -> None:
    first = service.submit(request())
    second = service.submit(request(first.spec))
    assert second.spec == first.spec
    assert second.spec_digest == first.spec_digest


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"dataset": {"name": "no-such-data"}}, "/spec/dataset/name"),
        ({"trainer": {"kind": "vae", "batch_size": 5000}}, "/spec/trainer/batch_size"),
        (
            {
                "trainer": {
                    "kind": "vae",
                    "batch_size": 10,
                    "network": {"kind": "linear", "output": "sigmoid"},
                }
            },
            "/spec/trainer/network/output",
        ),
        (
            {"trainer": {"kind": "vae", "batch_size": 1}, "resources": {"workers": 2}},
            "/spec/trainer/batch_size",
        ),
    ],
)
def test_a_spec_that_does_not_fit_its_data_is_refused_at_its_field(
    service: Service, changes: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        service.submit(request(spec_with(**changes)))
    assert pointers(caught.value) == [pointer]
    assert service.training.list(JobFilter(), None, 10).jobs == ()


def test_data_that_changed_since_it_was_pinned_is_refused(service: Service) -> None:
    spec = spec_with(dataset={"kind": "line", "samples": 100, "digest": "sha256:" + "0" * 64})
    with pytest.raises(InvalidSpec):
        service.submit(request(spec))


def test_more_than_the_ceiling_is_refused_with_the_numbers(service: Service) -> None:
    spec = spec_with(resources={"cpus_per_worker": 3, "gpus_per_worker": 1})
    with pytest.raises(ExceedsCapacity) as caught:
        service.submit(request(spec))
    assert pointers(caught.value) == [
        "/spec/resources/cpus_per_worker",
        "/spec/resources/gpus_per_worker",
    ]
    assert "3 cores of 1" in caught.value.errors[0].message


def test_more_workers_than_fit_are_refused_with_the_numbers(service: Service) -> None:
    with pytest.raises(ExceedsCapacity) as caught:
        service.submit(request(spec_with(resources={"workers": 2})))
    assert pointers(caught.value) == ["/spec/resources/workers"]
    assert "asks for 2 workers with 1 core(s)" in caught.value.errors[0].message
    assert "1 of them fit at once" in caught.value.errors[0].message


def test_more_memory_than_a_node_has_is_refused_with_the_numbers(service: Service) -> None:
    trainer = {
        "kind": "delta_vae",
        "batch_size": 9000,
        "noise_samples": 64,
        "importance_samples": 128,
    }
    spec = spec_with(dataset={"name": "mnist-10k"}, trainer=trainer)
    with pytest.raises(ExceedsCapacity) as caught:
        service.submit(request(spec))
    assert pointers(caught.value) == ["/spec/trainer"]
    assert "GB" in caught.value.errors[0].message


def test_a_run_that_would_fill_the_disk_is_refused(service: Service) -> None:
    spec = spec_with(
        dataset={"name": "mnist-10k"},
        trainer={
            "kind": "vae",
            "epochs": 1000,
            "network": {"kind": "mlp", "hidden": [4096] * 2, "latent_dim": 1024},
        },
        checkpoint_every_epochs=1,
        keep_checkpoints=1000,
    )
    with pytest.raises(OutOfStorage, match="keep_checkpoints"):
        service.submit(request(spec))


def test_a_key_replays_its_job_and_refuses_another_body(service: Service) -> None:
    first, created = service.training.submit(request(name="a"), "key")
    again, created_again = service.training.submit(request(name="a"), "key")
    assert (created, created_again) == (True, False)
    assert again.id == first.id
    with pytest.raises(IdempotencyConflict):
        service.training.submit(request(name="b"), "key")


def test_a_dry_run_says_what_it_would_cost_and_stores_nothing(service: Service) -> None:
    plan = service.training.dry_run(request())
    assert plan.steps == 12
    assert plan.parameters > 0
    assert plan.storage_bytes > 0
    assert plan.duration_s is None
    assert "at once" in plan.waits_for
    assert service.training.list(JobFilter(), None, 10).jobs == ()


def test_a_dry_run_knows_the_pace_of_an_earlier_job(service: Service) -> None:
    service.run_to_end(service.submit(request()))
    duration_s = service.training.dry_run(request()).duration_s
    assert duration_s is not None
    assert 0 < duration_s < 60


def test_a_job_that_has_ended_cannot_be_cancelled(service: Service) -> None:
    job = service.run_to_end(service.submit(request()))
    with pytest.raises(StateConflict) as caught:
        service.training.cancel(job.id)
    assert caught.value.state == "succeeded"


def test_a_replayed_key_is_answered_even_if_the_job_could_not_be_taken_any_more(
    service: Service, artifacts: LocalStore
) -> None:
    first, _ = service.training.submit(request(labels={"a": "1", "b": "2"}), "key")
    service.training._artifacts = FullStore(artifacts.root)
    with pytest.raises(OutOfStorage):
        service.training.submit(request(), "another key")
    again, created = service.training.submit(request(labels={"b": "2", "a": "1"}), "key")
    assert (again.id, created) == (first.id, False)


class FullStore(LocalStore):
    """A folder on a full disk."""

    def free_bytes(self) -> int:
        return 0
