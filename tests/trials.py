"""Studies with trials, stored as a driver would store them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from service.jobs import Attempt, Job, JobState, Limits, Reason
from service.jobstore import JobStore
from service.studies.checking import is_overridden, require
from service.studies.configuring import spec_of
from service.studies.ledger import NewTrial, Phase, Study, StudyReason, Trial
from service.studies.request import StudyRequest
from workers.artifacts import LocalStore, chunk_key
from workers.events import RECORD, MetricsRecord, ProgressRecord, StartedRecord
from workers.run import Run, StopFlag, execute

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KIND, SCALE = "/trainer/spread/kind", "/trainer/spread/scale"
_numbers = count()

SPEC: Mapping[str, Any] = {
    "dataset": {"name": "digits"},
    "trainer": {
        "kind": "delta_vae",
        "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2},
        "epochs": 9,
        "batch_size": 400,
        "quality": {"samples": 100, "components": 4},
    },
}


def study_body(**fields: Any) -> dict[str, Any]:
    """A request that can be carried out: the kind and scale of the noise, by KID."""
    return {
        "name": "which noise",
        "spec": SPEC,
        "space": {
            KIND: {"choice": ["gaussian", "laplace"]},
            SCALE: {"loguniform": [0.05, 1.0]},
        },
        "objective": {"metric": "kid", "mode": "min"},
        "budget": {"trials": 8},
        **fields,
    }


def new_study(**fields: Any) -> Study:
    """A study that is not stored yet."""
    request = require(StudyRequest.model_validate(study_body(**fields)))
    number = next(_numbers)
    at = NOON + timedelta(seconds=number)
    return Study(
        id=f"study-{number:016x}",
        request=request,
        is_overridden=is_overridden(request),
        state=JobState.QUEUED,
        reason=StudyReason.SUBMITTED,
        message="submitted",
        version=1,
        created_at=at,
        updated_at=at,
    )


def running_study(jobs: JobStore, **fields: Any) -> Study:
    """A stored study with a driver."""
    return jobs.ledger.start(jobs.ledger.add(new_study(**fields)), "starting")


def job_of(study: Study, values: Mapping[str, Any], seed: int) -> Job:
    """The job of a trial."""
    number = next(_numbers)
    spec = spec_of(study.request.spec, values, seed)
    at = NOON + timedelta(seconds=number)
    return Job(
        id=f"job-{number:016x}",
        name="a trial",
        labels={},
        priority=0,
        limits=Limits(),
        spec=spec,
        spec_digest=spec.digest(),
        state=JobState.QUEUED,
        reason=Reason.SUBMITTED,
        message="submitted",
        version=1,
        created_at=at,
        updated_at=at,
        study_id=study.id,
    )


def add_trial(
    jobs: JobStore,
    study: Study,
    configuration: int,
    values: Mapping[str, Any],
    *,
    seed: int = 0,
    phase: Phase = Phase.SEARCH,
    results: Mapping[int, Mapping[str, float]] | None = None,
    state: JobState = JobState.SUCCEEDED,
    reason: Reason = Reason.COMPLETED,
    measured_until: int = 0,
) -> Trial:
    """A trial of a running study with its results by epoch, in a state.

    Its job has measured its objective at ``measured_until``, where that is no result any more.
    """
    new = NewTrial(configuration, values, seed, phase)
    trial, _ = jobs.ledger.add_trial(study, new, job_of(study, values, seed))
    if state is JobState.QUEUED:
        return trial
    job = jobs.get(trial.job_id)
    attempt = Attempt(job.id, 1, "executor", "session", NOON)
    job = jobs.start_attempt(job, attempt, Reason.TRAINING, "training")
    for epoch, metrics in (results or {}).items():
        jobs.ledger.add_results(study, [(trial.number, epoch, metrics)], NOON)
    if results:
        epoch = max(results)
        started = StartedRecord(at=NOON, pid=1, host="here", total_steps=45, steps_per_epoch=5)
        progress = ProgressRecord(at=NOON, step=5 * epoch, epoch=float(epoch))
        jobs.ingest(job.id, 1, 0, [started, progress])
    if measured_until:
        measured = {study.request.objective.metric: 0.0}
        step = 5 * measured_until
        point = MetricsRecord(at=NOON, step=step, epoch=float(measured_until), values=measured)
        jobs.ingest(job.id, 1, 1 if results else 0, [point])
    if state is not JobState.RUNNING:
        jobs.settle(jobs.get(job.id), state, reason, "ended")
    return next(one for one in jobs.ledger.trials(study.id) if one.number == trial.number)


def confirm(
    jobs: JobStore, study: Study, configuration: int, values: Mapping[str, Any], **metrics: Any
) -> None:
    """Trials of a configuration on all fresh seeds; a metric is a sequence over them."""
    for place, seed in enumerate(study.request.confirmation.seeds):
        found = {name: float(of_seed[place]) for name, of_seed in metrics.items()}
        add_trial(
            jobs,
            study,
            configuration,
            values,
            seed=seed,
            phase=Phase.CONFIRMATION,
            results={9: found},
        )


def ended(
    jobs: JobStore,
    study: Study,
    state: JobState = JobState.SUCCEEDED,
    reason: StudyReason = StudyReason.COMPLETED,
) -> Study:
    """The study once it has ended."""
    return jobs.ledger.settle(jobs.ledger.get(study.id), state, reason, "ended")


def trained_trial(
    jobs: JobStore,
    artifacts: LocalStore,
    folder: Path,
    study: Study,
    configuration: int,
    values: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> Trial:
    """A trial of the search that was really trained, so that it has checkpoints."""
    new = NewTrial(configuration, values, study.request.seeds[0], Phase.SEARCH)
    trial, _ = jobs.ledger.add_trial(study, new, job_of(study, values, new.seed))
    job = jobs.get(trial.job_id)
    attempt = Attempt(job.id, 1, "executor", "session", NOON)
    job = jobs.start_attempt(job, attempt, Reason.TRAINING, "training")
    run = Run(
        job_id=job.id,
        attempt=1,
        spec=job.spec,
        artifacts_uri=artifacts.uri,
        cache_dir=folder / "data",
    )
    outcome = execute(run, StopFlag())
    assert (outcome.reason, outcome.detail) == ("completed", None)
    for chunk in range(outcome.chunks or 0):
        lines = artifacts.get(chunk_key(run.prefix, chunk)).splitlines()
        jobs.ingest(job.id, 1, chunk, [RECORD.validate_json(line) for line in lines])
    jobs.ledger.add_results(study, [(trial.number, 2, metrics)], NOON)
    jobs.settle(jobs.get(job.id), JobState.SUCCEEDED, Reason.COMPLETED, outcome.message)
    return next(one for one in jobs.ledger.trials(study.id) if one.number == trial.number)
