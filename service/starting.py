"""What a job's next attempt is given: its number, its time, and where it goes on from."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from service.cluster.base import Cluster
from service.jobs import Attempt, Job
from service.jobstore import JobStore
from service.watch import heard_for_s
from workers.artifacts import ArtifactStore
from workers.beginning import Origin
from workers.kinds import is_named
from workers.publish import KeptCheckpoint
from workers.run import Run


class Starter:
    """Prepares attempts; nothing is stored or started here."""

    def __init__(
        self,
        jobs: JobStore,
        artifacts: ArtifactStore,
        cluster: Cluster,
        cache_dir: Path,
        fid_weights: str,
    ) -> None:
        self._jobs = jobs
        self._artifacts = artifacts
        self._cluster = cluster
        self._cache_dir = cache_dir
        self._fid_weights = fid_weights

    def prepare(self, job: Job, until_epoch: int | None = None) -> tuple[Attempt, Run] | None:
        """The next attempt of a queued job, which pauses after ``until_epoch`` where one is given;
        or None where its time limit is used up."""
        earlier = self._jobs.attempts(job.id)
        wall_s = self.wall_left_s(job, earlier)
        if wall_s is not None and wall_s <= 0:
            return None
        last = earlier[-1].number if earlier else 0
        attempt = Attempt(
            job_id=job.id,
            number=job.attempt if job.attempt > last else last + 1,  # a retry has given it
            executor_id=self._cluster.reserve(job.spec.resources),
            session=self._cluster.session,
            created_at=datetime.now(UTC),
        )
        run = self._run(job, attempt, wall_s)
        return attempt, run.model_copy(update={"until_epoch": until_epoch})

    def wall_left_s(self, job: Job, earlier: Sequence[Attempt]) -> float | None:
        """Seconds that the job's time limit leaves behind these attempts; None without a limit."""
        if job.limits.max_wall_s is None:
            return None
        counted = [attempt for attempt in earlier if attempt.number >= job.counts_from]
        return job.limits.max_wall_s - sum(heard_for_s(attempt) for attempt in counted)

    def _run(self, job: Job, attempt: Attempt, wall_s: float | None) -> Run:
        kept = tuple(
            KeptCheckpoint(
                id=checkpoint.id,
                prefix=checkpoint.prefix,
                step=checkpoint.step,
                is_best=checkpoint.is_best,
                is_named=is_named(job.spec, checkpoint.epoch),
                has_train_state=checkpoint.has_train_state,
            )
            for checkpoint in self._jobs.checkpoints(job.id)
        )
        resumable = [
            checkpoint
            for checkpoint in kept
            if checkpoint.has_train_state
            and self._artifacts.exists(f"{checkpoint.prefix}/manifest.json")
            and self._artifacts.exists(f"{checkpoint.prefix}/train_state.safetensors")
        ]
        origin = None
        if job.parent is not None and not resumable:
            origin = Origin(prefix=job.parent.prefix, start=job.parent.start)
        return Run(
            job_id=job.id,
            attempt=attempt.number,
            spec=job.spec,
            artifacts_uri=self._artifacts.uri,
            cache_dir=self._cache_dir,
            fid_weights=self._fid_weights,
            resume_from=resumable[-1].prefix if resumable else None,
            resume_else=resumable[-2].prefix if len(resumable) > 1 else None,
            origin=origin,
            earlier=kept,
            wall_s=wall_s,
        )
