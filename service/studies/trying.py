"""A configuration as trials: for each seed the job that it is."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from service.datasets import Datasets, is_upload
from service.errors import CheckpointNotFound
from service.forking import copy_checkpoint, fork_digest, parent_of
from service.jobs import Job, JobState, Limits, Reason
from service.jobstore import JobStore
from service.studies.channel import Takeover
from service.studies.configuring import spec_of
from service.studies.ledger import NewTrial, Phase, Study, Trial
from service.studies.population import taken_over
from workers.artifacts import ArtifactStore
from workers.checkpoint import parse_manifest
from workers.errors import DataError, SpecMismatch
from workers.kinds import AnySpec, estimate, resolve


class Trying:
    """Stores trials, each with its job; what is there already is given and not repeated."""

    def __init__(self, jobs: JobStore, datasets: Datasets, artifacts: ArtifactStore) -> None:
        self._jobs = jobs
        self._artifacts = artifacts
        self._datasets = datasets

    def store(
        self,
        study: Study,
        configuration: int,
        values: Mapping[str, Any],
        seeds: Sequence[int],
        phase: Phase,
    ) -> list[Trial]:
        """The trials of a configuration with these seeds; raises StateConflict as the ledger."""
        found = []
        for seed in seeds:
            new = NewTrial(configuration, values, seed, phase)
            found.append(self._added(study, new, self._job(study, new)))
        return found

    def take_over(
        self, study: Study, takeover: Takeover, epoch: int, others: Sequence[Trial]
    ) -> list[Trial]:
        """The trials of a configuration that goes on from those of another one after an epoch:
        forks, each with its own copy of the checkpoint of the other's with its seed.

        Raises StateConflict as the ledger, StoreError, and CheckpointNotFound.
        """
        stored = {
            trial.seed: trial
            for trial in self._jobs.ledger.trials(study.id)
            if trial.configuration == takeover.configuration
        }
        found = []
        for other in others:
            values = taken_over(other.values, takeover.values, epoch)
            new = NewTrial(takeover.configuration, values, other.seed, Phase.SEARCH)
            job = self._job(study, new)
            if other.seed not in stored:
                job = self._forked(job, other, epoch)
            found.append(self._added(study, new, job))
        return found

    def _added(self, study: Study, new: NewTrial, job: Job) -> Trial:
        trial, _ = self._jobs.ledger.add_trial(
            study, new, job, needs_content=is_upload(job.spec.dataset)
        )
        return trial

    def _forked(self, job: Job, other: Trial, epoch: int) -> Job:
        """The job as a fork of a trial at an epoch, whose checkpoint is copied."""
        for checkpoint in self._jobs.checkpoints(other.job_id):
            if checkpoint.epoch == epoch and checkpoint.has_train_state:
                break
        else:
            raise CheckpointNotFound(f"{other.job_id} has no checkpoint at epoch {epoch}")
        manifest = parse_manifest(self._artifacts.get(f"{checkpoint.prefix}/manifest.json"))
        parent = parent_of(job.id, other.job_id, checkpoint, "train_state")
        copy_checkpoint(self._artifacts, checkpoint.prefix, parent)
        digest = fork_digest(job.spec, parent.start, manifest.train_state.digest)
        message = f"{job.message} It goes on from configuration {other.configuration}."
        return replace(job, parent=parent, spec_digest=digest, message=message)

    def _job(self, study: Study, new: NewTrial) -> Job:
        spec, storage_bytes = self._resolved(spec_of(study.request.spec, new.values, new.seed))
        now = datetime.now(UTC)
        what = "confirmation of " if new.phase is Phase.CONFIRMATION else ""
        return Job(
            id=f"job-{secrets.token_hex(8)}",
            name=f"{study.request.name}: {what}configuration {new.configuration}, seed {new.seed}"[
                -200:
            ],
            labels={},
            priority=0,
            limits=Limits(),
            spec=spec,
            spec_digest=spec.digest(),
            state=JobState.QUEUED,
            reason=Reason.SUBMITTED,
            message=f"A trial of {study.id}, which starts it when one of its places is free.",
            version=1,
            created_at=now,
            updated_at=now,
            study_id=study.id,
            owner=study.owner,
            reserved_bytes=storage_bytes,
        )

    def _resolved(self, spec: AnySpec) -> tuple[AnySpec, int]:
        """As its data complete it, and the bytes that it may need; one that does not fit them
        fails as a trial, and says why."""
        try:
            info = self._datasets.describe(spec.dataset)
            resolved = resolve(spec, info)
        except (DataError, SpecMismatch):
            return spec, 0
        return resolved, estimate(resolved, info).storage_bytes
