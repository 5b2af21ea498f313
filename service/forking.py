"""Forks: a new job that begins from a checkpoint of another one, with a changed spec.

The parent may run on, thin its checkpoints, or be deleted. So the fork takes its own copy of the
one file that it begins from, before it is stored; a store in a folder keeps it by a second name,
which costs no room while the parent has it too. A crash between the two leaves a copy that no job
names, under the prefix of a job that does not exist: harmless, and found by whoever looks for
such prefixes.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from service.access.caller import ANYBODY, Caller
from service.errors import (
    CheckpointNotFound,
    FieldError,
    IdempotencyConflict,
    InvalidSpec,
    LimitReached,
    NotReady,
    ServiceError,
)
from service.jobs import CheckpointInfo, Job, JobRequest, Parent
from service.jobstore import Idempotency, JobStore
from service.results import Results
from service.training import Training
from workers.artifacts import ArtifactStore, parent_prefix
from workers.checkpoint import Manifest, parse_manifest
from workers.errors import ArtifactNotFound, CheckpointError, StoreError
from workers.kinds import AnySpec, carried_over, estimate, not_forkable, obstacles
from workers.spec import Start

__all__ = ["Forks", "carried_over", "fork_digest"]


class Forks:
    """Makes jobs from checkpoints of others."""

    def __init__(
        self, jobs: JobStore, artifacts: ArtifactStore, training: Training, results: Results
    ) -> None:
        self._jobs = jobs
        self._artifacts = artifacts
        self._training = training
        self._results = results

    def fork(
        self,
        parent_id: str,
        checkpoint: str,
        start: Start,
        changed: Callable[[Job], JobRequest],
        body: Mapping[str, object],
        idempotency_key: str | None = None,
        caller: Caller = ANYBODY,
    ) -> tuple[Job, bool]:
        """Store a job that begins from ``latest``, ``best`` or the checkpoint with that id;
        returns it and whether it is new.

        ``changed`` gives the whole request: the parent's with its changes. ``body`` is what was
        asked, as JSON, by which a replay is known: whatever has become of the parent since. Raises
        what a submission raises, JobNotFound, CheckpointNotFound, and InvalidSpec for a change that
        the start does not allow.
        """
        idempotency = None
        if idempotency_key is not None:
            content = json.dumps(["fork", parent_id, body], sort_keys=True)
            digest = hashlib.sha256(content.encode()).hexdigest()
            idempotency = Idempotency(key=caller.named(idempotency_key), body_digest=digest)
            if (stored := self._jobs.replayed(idempotency)) is not None:
                return stored, False
        request = changed(self._jobs.get(parent_id))
        return self.begin(parent_id, checkpoint, start, request, idempotency, caller)

    def begin(
        self,
        parent_id: str,
        checkpoint: str,
        start: Start,
        request: JobRequest,
        idempotency: Idempotency | None = None,
        caller: Caller = ANYBODY,
    ) -> tuple[Job, bool]:
        """As :meth:`fork`, of a whole request; a replay of its key was looked for."""
        closed = not_forkable(self._results.spec(parent_id), request.spec)
        if closed is not None:
            error = FieldError(f"/spec{closed.pointer}", str(closed))
            raise InvalidSpec(f"{error.pointer}: {error.message}.", (error,))
        chosen = self._results.checkpoint(parent_id, checkpoint)
        if start == "train_state" and not chosen.has_train_state:
            raise InvalidSpec(
                f"Checkpoint {chosen.id} cannot be gone on from.",
                (
                    FieldError(
                        "/start",
                        f"checkpoint {chosen.id} has weights only, as train states are kept of a "
                        'job\'s last two; choose "weights", or the checkpoint latest',
                    ),
                ),
            )
        with _explained(chosen):
            manifest = parse_manifest(self._artifacts.get(f"{chosen.prefix}/manifest.json"))
        spec, storage_bytes = self._checked(start, manifest, request)
        job_id = f"job-{secrets.token_hex(8)}"
        parent = parent_of(job_id, parent_id, chosen, start)
        taken = manifest.train_state if start == "train_state" else manifest.weights
        digest = fork_digest(spec, start, taken.digest)
        with _explained(chosen):
            copy_checkpoint(self._artifacts, chosen.prefix, parent)
        try:
            job, is_new = self._training.store(
                request.model_copy(update={"spec": spec}),
                job_id,
                digest,
                parent,
                idempotency,
                storage_bytes,
                caller,
            )
        except (
            InvalidSpec,
            IdempotencyConflict,
            LimitReached,
        ):  # of other errors it may be stored all the same
            self._forget(parent)
            raise
        if not is_new:
            self._forget(parent)
        return job, is_new

    def _checked(
        self, start: Start, manifest: Manifest, request: JobRequest
    ) -> tuple[AnySpec, int]:
        """The resolved spec and the bytes that it may need, or InvalidSpec with everything that
        keeps it from beginning so."""
        spec, info = self._training.checked(request)
        found = tuple(
            FieldError(f"/spec{obstacle.pointer}", str(obstacle))
            for obstacle in obstacles(start, manifest, spec, info)
        )
        if found:
            raise InvalidSpec(f"{found[0].pointer} {found[0].message}.", found)
        return spec, estimate(spec, info).storage_bytes

    def _forget(self, parent: Parent) -> None:
        """Remove a copy that no job names."""
        names = ("manifest.json", f"{parent.start}.safetensors")
        try:
            self._artifacts.delete_many(f"{parent.prefix}/{name}" for name in names)
        except StoreError as error:
            raise NotReady("the artifact store does not answer; try again soon") from error


def parent_of(job_id: str, parent_id: str, chosen: CheckpointInfo, start: Start) -> Parent:
    """Where a job comes from that is to have this id."""
    return Parent(parent_id, chosen.id, parent_prefix(job_id), chosen.digest, start)


def copy_checkpoint(artifacts: ArtifactStore, source: str, parent: Parent) -> None:
    """The one file that a fork begins from, then the manifest that names it.

    Raises ArtifactNotFound where the source was thinned out meanwhile, and StoreError.
    """
    for name in (f"{parent.start}.safetensors", "manifest.json"):
        try:
            with artifacts.open_file(f"{source}/{name}") as path:
                artifacts.put_file(f"{parent.prefix}/{name}", path)
        except StoreError as error:
            if not artifacts.exists(f"{source}/{name}"):
                raise ArtifactNotFound(f"{source}/{name} was removed meanwhile") from error
            raise


def fork_digest(spec: AnySpec, start: Start, taken: str) -> str:
    """Identity of a fork's computation: its spec, what it takes over and the digest of that."""
    content = json.dumps({"spec": spec.digest(), "start": start, "taken": taken})
    return "sha256:" + hashlib.sha256(content.encode()).hexdigest()


@contextmanager
def _explained(checkpoint: CheckpointInfo) -> Iterator[None]:
    try:
        yield
    except ArtifactNotFound as error:
        raise CheckpointNotFound(
            f"checkpoint {checkpoint.id} was thinned out meanwhile; GET the job's checkpoints and "
            "choose another one"
        ) from error
    except StoreError as error:
        raise NotReady("the artifact store does not answer; try again soon") from error
    except CheckpointError as error:
        raise ServiceError(
            f"checkpoint {checkpoint.id} is damaged, so it is not used ({error}); "
            "choose another one"
        ) from error
