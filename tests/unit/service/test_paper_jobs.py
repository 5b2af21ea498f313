"""Jobs of the trainer ``paper``: they take no data, and end in files."""

from pathlib import Path
from typing import Any

import pytest

from service.errors import InvalidSpec, OtherTrainer
from service.jobs import Job, JobFilter, JobState, Reason
from service.mixing import Mixing
from service.results import Results
from service.sampling import Sampling
from tests.factories import paper_spec, request, tiny_spec
from tests.harness import Service
from tests.unit.service.explaining_of import explaining_of
from workers.spec import JOB_SPEC

FILES = ("figure.csv", "figure.json", "figure.png")


@pytest.fixture
def done(service: Service) -> Job:
    return service.run_to_end(service.submit(request(paper_spec())))


def contents(service: Service, job: Job) -> dict[str, bytes]:
    return {
        artifact.name: service.artifacts.get(artifact.key)
        for artifact in service.jobs.artifacts(job.id)
    }


def test_a_figure_succeeds_with_its_files_and_its_verdicts(service: Service, done: Job) -> None:
    assert (done.state, done.reason) == (JobState.SUCCEEDED, Reason.COMPLETED)
    assert done.message.startswith("Appendix E: 3 of 3 claims hold.")
    assert done.progress is not None
    assert (done.progress.step, done.progress.total_steps) == (10, 10)
    assert tuple(sorted(contents(service, done))) == FILES
    notices = [e.data["message"] for e in service.jobs.events(done.id, 0, 1000, ["notice"])]
    assert len(notices) == 3
    assert all(message in done.message for message in notices)
    explained = explaining_of(service).explain(done.id)
    assert explained.rule.name == "completed"
    assert "3 of 3 claims hold" in explained.headline


def test_a_figure_has_no_data_and_is_found_by_its_trainer(service: Service, done: Job) -> None:
    assert done.spec.dataset is None
    assert JOB_SPEC.validate_json(done.spec.model_dump_json()) == done.spec
    of_it = service.jobs.list(JobFilter(trainer="paper"), None, 10)
    assert [job.id for job in of_it.jobs] == [done.id]
    assert not service.jobs.list(JobFilter(dataset="mixture"), None, 10).jobs


def test_a_plan_has_the_measured_seconds_of_its_parts_and_advice(service: Service) -> None:
    plan = service.training.dry_run(request(paper_spec("4a", scale="paper")))
    assert plan.duration_s is not None
    assert plan.duration_s > 4 * 24 * 3600
    assert plan.steps == 120
    assert plan.parameters == 0
    [told] = plan.advice
    assert "first_repetition 0 to 9" in told
    short = service.training.dry_run(request(paper_spec("4b")))
    assert short.duration_s is not None
    assert short.duration_s < 600
    assert short.advice == ()


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"resources": {"workers": 2}}, "/spec/resources/workers"),
        ({"resources": {"gpus_per_worker": 1}}, "/spec/resources/gpus_per_worker"),
        ({"dataset": {"name": "digits"}}, "/spec/dataset"),
        ({"trainer": {"kind": "paper", "figure": "6"}}, "/spec/dataset"),
    ],
)
def test_what_a_figure_does_not_take_is_refused(
    service: Service, changes: dict[str, Any], pointer: str
) -> None:
    spec = JOB_SPEC.validate_python({**paper_spec().model_dump(), **changes})
    with pytest.raises(InvalidSpec) as caught:
        service.submit(request(spec))
    assert [error.pointer for error in caught.value.errors] == [pointer]


def test_no_figure_is_forked_and_none_begins_from_another_job(service: Service, done: Job) -> None:
    trained = service.run_to_end(service.submit(request(tiny_spec())))
    for parent, spec in ((done, paper_spec()), (trained, paper_spec()), (done, tiny_spec())):
        with pytest.raises(InvalidSpec, match="as a new job") as caught:
            service.forks.begin(parent.id, "latest", "weights", request(spec))
        assert [error.pointer for error in caught.value.errors] == ["/spec/trainer/kind"]


def test_what_needs_a_model_is_refused_and_the_files_are_named(service: Service, done: Job) -> None:
    results = Results(service.jobs, service.artifacts)
    sampling = Sampling(results, service.artifacts, Path("unused"))
    mixing = Mixing(results, sampling)
    for ask in (
        lambda: sampling.checkpoint(done.id, "latest"),
        lambda: sampling.source(done.id, "latest"),
        lambda: sampling.path_source(done.id, "latest"),
        lambda: sampling.filmstrip(done.id, None, 2, 0),
        lambda: mixing.checkpoint(done.id, "latest"),
        lambda: results.grids(done.id),
    ):
        with pytest.raises(OtherTrainer, match=r"artifacts/figure\.png"):
            ask()
