"""A configuration as trials: for each seed the job that it is."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from service.datasets import Datasets
from service.jobs import Job, JobState, Limits, Reason
from service.jobstore import JobStore
from service.studies.configuring import spec_of
from service.studies.ledger import NewTrial, Phase, Study, Trial
from workers.errors import DataError, SpecMismatch
from workers.kinds import AnySpec, estimate, resolve


class Trying:
    """Stores trials, each with its job; what is there already is given and not repeated."""

    def __init__(self, jobs: JobStore, datasets: Datasets) -> None:
        self._jobs = jobs
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
            trial, _ = self._jobs.ledger.add_trial(study, new, self._job(study, new))
            found.append(trial)
        return found

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
