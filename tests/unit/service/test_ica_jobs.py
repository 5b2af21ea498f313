"""Jobs of the trainer ``ica``: what is refused, what becomes of them, and what may follow."""

from typing import Any

import numpy as np
import pytest

from service.errors import InvalidSpec
from service.jobs import Job, JobState, Reason
from tests.factories import ica_spec, request, tiny_spec
from tests.harness import Service
from tests.unit.service.explaining_of import explaining_of
from tests.unit.service.test_datasets import send
from tests.unit.workers.uploading import npz
from workers.kinds import AnySpec
from workers.spec import IcaSpec

RNG = np.random.default_rng(3)
MIXED = (RNG.laplace(size=(200, 2)) @ RNG.normal(size=(2, 4))).astype(np.float32)


def on(name: str, **trainer: Any) -> IcaSpec:
    return IcaSpec.model_validate(
        {"dataset": {"name": name}, "trainer": {"kind": "ica", **trainer}}
    )


def pointers_of(service: Service, spec: AnySpec) -> list[str]:
    with pytest.raises(InvalidSpec) as caught:
        service.submit(request(spec))
    return [error.pointer for error in caught.value.errors]


def test_a_fit_succeeds_because_it_has_converged(service: Service) -> None:
    job = service.run_to_end(service.submit(request(ica_spec())))
    assert (job.state, job.reason) == (JobState.SUCCEEDED, Reason.CONVERGED)
    assert job.message.startswith("Converged: after ")
    assert job.progress is not None
    assert job.progress.step == job.progress.total_steps
    assert {artifact.name for artifact in service.jobs.artifacts(job.id)} == {
        "plots/columns.png",
        "plots/convergence.png",
        "plots/sources.png",
    }
    latest = service.jobs.checkpoints(job.id)[-1]
    assert latest.is_best
    assert latest.metrics["angle_degrees"] < 10
    assert latest.metrics["fastica_angle_degrees"] < 10
    explained = explaining_of(service).explain(job.id)
    assert explained.rule.name == "converged"
    assert explained.changes == ()


def test_a_plan_says_what_a_fit_costs(service: Service) -> None:
    plan = service.training.dry_run(request(ica_spec()))
    assert plan.parameters == 5 * 2 + 5 + 1
    assert plan.memory_bytes > 300 << 20
    assert plan.steps > 300
    assert plan.duration_s is None


def test_a_plan_expects_as_many_steps_as_its_like_took(service: Service) -> None:
    job = service.run_to_end(service.submit(request(ica_spec())))
    like = service.training._queueing.paces.of_its_like(job.spec)
    assert like is not None
    assert job.progress is not None
    assert like.steps_per_epoch == job.progress.step
    plan = service.training.dry_run(request(ica_spec()))
    assert plan.duration_s == pytest.approx(job.progress.step / like.steps_per_s)


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        (on("digits"), "/spec/dataset"),
        (ica_spec(components=6), "/spec/trainer/components"),
        (ica_spec(start="given"), "/spec/trainer/mixing"),
        (ica_spec(mixing=[[1.0, 0.0]]), "/spec/trainer/mixing"),
        (ica_spec(start="given", mixing=[[1.0, 0.0]] * 4), "/spec/trainer/mixing"),
        (ica_spec(start="given", mixing=[[1.0]] * 5), "/spec/trainer/mixing"),
        (ica_spec(start="given", mixing=[[1.0]] * 5, components=None), "/spec/trainer/components"),
        (ica_spec(method="paper"), "/spec/trainer/noise_variance"),
        (
            ica_spec(method="paper", noise_variance=0.1, prior={"kind": "logistic"}),
            "/spec/trainer/prior/kind",
        ),
        (
            ica_spec(method="paper", noise_variance=0.1, components=None),
            "/spec/trainer/components",
        ),
    ],
)
def test_a_spec_that_does_not_fit_its_data_is_refused_where_it_is_wrong(
    service: Service, spec: IcaSpec, pointer: str
) -> None:
    assert pointers_of(service, spec) == [pointer]


@pytest.mark.parametrize(
    ("dataset", "pointer"),
    [
        ({"dimensions": 3, "components": 4}, "/spec/dataset/components"),
        ({"dimensions": 256, "samples": 1_000_000}, "/spec/dataset/samples"),
    ],
)
def test_data_that_cannot_be_drawn_are_refused(
    service: Service, dataset: dict[str, int], pointer: str
) -> None:
    spec = IcaSpec.model_validate(
        {"dataset": {"kind": "laplace-ica", **dataset}, "trainer": {"kind": "ica"}}
    )
    assert pointers_of(service, spec) == [pointer]


def test_other_trainers_learn_from_drawn_mixtures_too(service: Service) -> None:
    spec = tiny_spec().model_copy(update={"dataset": ica_spec(samples=100).dataset})
    assert service.run_to_end(service.submit(request(spec))).state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("rows", "trainer", "reason", "said"),
    [
        (np.c_[MIXED, np.ones(200)], {"components": 2}, "constant_columns", "Columns [4]"),
        (MIXED, {"components": 3}, "rank_deficient", "at most 2 components"),
        (MIXED[:25], {"components": 4}, "rank_deficient", "at most 2 components"),
        (np.tile(MIXED[:1], (40, 1)), {"components": 1}, "constant_columns", "are constant"),
    ],
    ids=["constant", "rank", "few", "one"],
)
def test_data_without_such_a_decomposition_fail_with_the_name_of_why(
    service: Service, rows: np.ndarray, trainer: dict[str, Any], reason: str, said: str
) -> None:
    send(service.datasets, "ours", npz(data=rows.astype(np.float32)))
    job = service.run_to_end(service.submit(request(on("ours", **trainer))))
    assert (job.state, job.reason.value) == (JobState.FAILED, reason)
    assert said in job.message
    explained = explaining_of(service).explain(job.id)
    assert explained.rule.name == "not_repeated"
    assert explained.changes[-1].action == "spec"


@pytest.fixture
def unfinished(service: Service) -> Job:
    """A fit that its limit of iterations has ended."""
    return service.run_to_end(service.submit(request(ica_spec(max_iterations=1, tolerance=1e-9))))


def changed(parent: Job, **trainer: Any) -> IcaSpec:
    content = parent.spec.model_dump()
    content["trainer"] |= trainer
    return IcaSpec.model_validate(content)


def test_what_is_offered_to_a_fit_that_has_not_converged_lets_it_converge(
    service: Service, unfinished: Job
) -> None:
    assert unfinished.reason is Reason.ITERATION_LIMIT
    assert "Not converged" in unfinished.message
    explained = explaining_of(service).explain(unfinished.id)
    (change,) = explained.changes
    assert change.action == "fork"
    most = change.body["spec"]["trainer"]["max_iterations"]
    spec = changed(unfinished, max_iterations=50 * most)
    made, _ = service.forks.begin(unfinished.id, "latest", "train_state", request(spec))
    ended = service.run_to_end(made)
    assert ended.reason is Reason.CONVERGED
    last = service.jobs.checkpoints(unfinished.id)[-1]
    assert service.jobs.checkpoints(made.id)[0].step >= last.step


def test_a_fork_from_the_weights_begins_at_their_matrix(service: Service, unfinished: Job) -> None:
    spec = changed(unfinished, prior={"kind": "logistic"}, max_iterations=None)
    made, _ = service.forks.begin(unfinished.id, "latest", "weights", request(spec))
    assert service.run_to_end(made).reason is Reason.CONVERGED
    assert service.jobs.checkpoints(made.id)[0].step == 1


@pytest.mark.parametrize(
    ("change", "start", "pointer"),
    [
        ({"prior": {"kind": "laplace"}}, "train_state", "/spec/trainer/prior"),
        ({"components": 1}, "weights", "/spec/trainer/components"),
        ({"method": "em"}, "train_state", "/spec/trainer/method"),
    ],
)
def test_a_fork_that_would_change_what_its_state_means_is_refused(
    service: Service, unfinished: Job, change: dict[str, Any], start: Any, pointer: str
) -> None:
    spec = changed(unfinished, **change)
    with pytest.raises(InvalidSpec) as caught:
        service.forks.begin(unfinished.id, "latest", start, request(spec))
    assert [error.pointer for error in caught.value.errors] == [pointer]


def test_no_trainer_begins_from_what_another_has_left(service: Service, unfinished: Job) -> None:
    spec = tiny_spec().model_copy(update={"dataset": unfinished.spec.dataset})
    with pytest.raises(InvalidSpec) as caught:
        service.forks.begin(unfinished.id, "latest", "weights", request(spec))
    assert [error.pointer for error in caught.value.errors] == ["/spec/trainer/kind"]
