"""What a job has produced, for reading: events, metrics, checkpoints, artifacts."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from service.downsampling import downsample
from service.errors import (
    CheckpointNotFound,
    FieldError,
    InvalidQuery,
    NotReady,
    OtherTrainer,
    ResultNotFound,
)
from service.jobs import (
    FINAL_STATES,
    ArtifactInfo,
    CheckpointInfo,
    Job,
    JobEvent,
    MetricPoint,
)
from service.jobstore import JobStore
from workers.artifacts import ArtifactStore
from workers.errors import ArtifactNotFound, StoreError
from workers.kinds import AnySpec, first_checkpoint
from workers.spec import IcaSpec, PaperSpec

GRIDS = "grids/"
PRESIGNED_S = 600


@dataclass(frozen=True, slots=True)
class Download:
    """A stored file; ``open(start, stop)`` streams its bytes of [start, stop), None to the end.

    ``open`` finds out at once whether the file is there: it raises ResultNotFound, NotReady.
    ``presign`` gives an address at which the store itself hands the file out for a few minutes,
    None where it does not; it raises the same.
    """

    info_name: str
    media_type: str
    digest: str
    size_bytes: int
    open: Callable[[int, int | None], Iterator[bytes]]
    presign: Callable[[], str | None]


CANDIDATES = 8  # points read for each one shown, of which downsampling keeps the telling one


class Results:
    """Reads results. Every method raises JobNotFound for an unknown job."""

    def __init__(self, jobs: JobStore, artifacts: ArtifactStore) -> None:
        self._jobs = jobs
        self._artifacts = artifacts

    def events(
        self, job_id: str, after: int, limit: int, kinds: Sequence[str] | None = None
    ) -> list[JobEvent]:
        """The job's events with a number above ``after``, in order; of these kinds, if given."""
        events = self._jobs.events(job_id, after, limit, kinds)
        if not events:
            self._jobs.last_seq(job_id)  # raises for an unknown job; a known one has no more
        return events

    def tail(self, job_id: str, after: int, limit: int) -> tuple[Job, list[JobEvent]]:
        """The job and its events with a number above ``after``, in order, as they were at one
        moment: those of a job that has ended are all that it has."""
        return self._jobs.tail(job_id, after, limit)

    def metrics(
        self, job_id: str, names: Sequence[str] | None, max_points: int
    ) -> dict[str, list[MetricPoint]]:
        """The job's curves by name, each of at most ``max_points`` points with both its ends.

        They are chosen among ``CANDIDATES`` times as many at most: of a longer curve the database
        gives every k-th point, and a peak of one point between two of them is not seen. The least
        and the largest of each k would cost it a sort of all points for every curve.

        Raises InvalidQuery for a name that the job does not have. A job that has no metrics yet
        has empty curves of every name.
        """
        if max_points < 2:
            problem = "must be at least 2: a curve keeps its first and its last point"
            raise InvalidQuery("too few points", (FieldError("/query/max_points", problem),))
        self._jobs.last_seq(job_id)
        known = self._jobs.metric_names(job_id)
        unknown = [name for name in names or () if name not in known]
        if known and unknown:
            problem = f"the job has no metric {unknown[0]!r}; it has {', '.join(known)}"
            raise InvalidQuery("an unknown metric", (FieldError("/query/name", problem),))
        curves = self._jobs.metrics(job_id, names, at_most=CANDIDATES * max_points)
        return {name: downsample(curves.get(name, []), max_points) for name in names or known}

    def spec(self, job_id: str) -> AnySpec:
        """The job's spec, with its data pinned."""
        return self._jobs.get(job_id).spec

    def spec_of_model(self, job_id: str) -> AnySpec:
        """The job's spec; raises OtherTrainer where its trainer fits no model to draw from."""
        spec = self.spec(job_id)
        if isinstance(spec, PaperSpec):
            raise OtherTrainer(
                f"the job's trainer is paper, which computes figure {spec.trainer.figure} and fits "
                "no model to draw from; GET the job's artifacts/figure.png, figure.csv and "
                "figure.json instead"
            )
        return spec

    def checkpoints(self, job_id: str) -> list[CheckpointInfo]:
        """The job's checkpoints by step."""
        checkpoints = self._jobs.checkpoints(job_id)
        if not checkpoints:
            self._jobs.last_seq(job_id)
        return checkpoints

    def checkpoint(self, job_id: str, choice: str) -> CheckpointInfo:
        """``latest`` (the highest step), ``best`` (by the spec's metric), or the one with that id.

        Raises CheckpointNotFound, which says when the first one is due where there is none yet.
        """
        checkpoints = self.checkpoints(job_id)
        if not checkpoints:
            raise CheckpointNotFound(_none_yet(self._jobs.get(job_id)))
        match choice:
            case "latest":
                return checkpoints[-1]
            case "best":
                found = [checkpoint for checkpoint in checkpoints if checkpoint.is_best]
                absent = "no checkpoint has been evaluated yet; take checkpoint=latest"
            case _:
                found = [checkpoint for checkpoint in checkpoints if checkpoint.id == choice]
                absent = (
                    f"the job has no checkpoint {choice!r} (any more: regular ones are thinned "
                    "out); GET its checkpoints to see the ones there are"
                )
        if not found:
            raise CheckpointNotFound(absent)
        return found[-1]

    def weights(self, job_id: str, choice: str) -> Download:
        """The weights file of a checkpoint, safetensors."""
        checkpoint = self.checkpoint(job_id, choice)
        return self._download(
            f"{job_id}-{checkpoint.id}.safetensors",
            "application/octet-stream",
            checkpoint,
            f"{checkpoint.prefix}/weights.safetensors",
        )

    def artifacts(self, job_id: str) -> list[ArtifactInfo]:
        """The job's artifacts by name."""
        artifacts = self._jobs.artifacts(job_id)
        if not artifacts:
            self._jobs.last_seq(job_id)
        return artifacts

    def artifact(self, job_id: str, name: str) -> Download:
        """The artifact of that name; raises ResultNotFound."""
        for artifact in self.artifacts(job_id):
            if artifact.name == name:
                return self._download(name, artifact.media_type, artifact, artifact.key)
        raise ResultNotFound(
            f"the job has no artifact {name!r}; GET its artifacts to see the ones there are"
        )

    def grids(self, job_id: str) -> list[ArtifactInfo]:
        """The sample grids that were written during training, by step; raises OtherTrainer."""
        if isinstance(self.spec_of_model(job_id), IcaSpec):
            raise OtherTrainer(
                "the job's trainer is ica, which draws no grids; GET the job's artifacts for its "
                "plots"
            )
        grids = [
            a for a in self.artifacts(job_id) if a.name.startswith(GRIDS) and a.step is not None
        ]
        return sorted(grids, key=lambda grid: grid.step or 0)

    def _download(
        self, name: str, media_type: str, info: CheckpointInfo | ArtifactInfo, key: str
    ) -> Download:
        def open_from(start: int, stop: int | None) -> Iterator[bytes]:
            with _explained(name):
                return self._artifacts.stream(key, start, stop)

        def presign() -> str | None:
            with _explained(name):
                last = name.rpartition("/")[2]
                url = self._artifacts.presigned_url(key, PRESIGNED_S, media_type, last)
                if url is not None:
                    self._artifacts.size(key)  # an address of nothing would be no answer
                return url

        return Download(name, media_type, info.digest, info.size_bytes, open_from, presign)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except ArtifactNotFound as error:
        raise ResultNotFound(
            f"the file of {name} is gone from the store: it was thinned out or removed"
        ) from error
    except StoreError as error:
        raise NotReady("the artifact store does not answer; try again soon") from error


def _none_yet(job: Job) -> str:
    if job.state in FINAL_STATES:
        return f"the job has ended ({job.state}) before its first checkpoint; submit it again"
    due = first_checkpoint(job.spec)
    return f"the job has no checkpoint yet; the first one is due {due} (the job is {job.state})"
