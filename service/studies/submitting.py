"""The use cases of a study: submit, dry run, list, extend, cancel, pause, resume, retry, delete."""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from service.access.caller import ANYBODY, Caller
from service.datasets import is_upload
from service.errors import (
    ExceedsCapacity,
    FieldError,
    Invalid,
    InvalidStudy,
    StudyChanged,
)
from service.feed import Feed
from service.jobs import JobRequest, JobState
from service.jobstore import Idempotency, JobStore
from service.paces import Paces
from service.retention import Deletions
from service.studies.allotment import allotment, of_one_trial
from service.studies.checking import corners, is_overridden, require
from service.studies.configuring import spec_of
from service.studies.extent import trials
from service.studies.ledger import Study, StudyPage, StudyReason
from service.studies.objective import resolved
from service.studies.planning import StudyPlan, plan, storage_bytes
from service.studies.pointers import encloses
from service.studies.request import Budget, StudyRequest
from service.training import Training
from workers.costs import Estimate
from workers.data import DatasetInfo
from workers.kinds import AnySpec, estimate

_CORNERS_TRIED = 100  # each is judged against the data, and costed
_TRIES = 5
_OF_THE_SPLIT = {"/dataset/split_seed", "/dataset/held_out_fraction"}


class Studying:
    """Takes studies in; their drivers carry them out. ``wake`` tells the watcher of news."""

    def __init__(
        self,
        jobs: JobStore,
        training: Training,
        deletions: Deletions,
        feed: Feed,
        wake: Callable[[], None],
    ) -> None:
        self._jobs = jobs
        self._training = training
        self._deletions = deletions
        self._feed = feed
        self._wake = wake
        self._paces = Paces(jobs)

    # --- new ones -----------------------------------------------------------------------------

    def submit(
        self,
        request: StudyRequest,
        idempotency_key: str | None = None,
        caller: Caller = ANYBODY,
    ) -> tuple[Study, bool]:
        """Store a study, queued; returns it and whether it is new.

        The same key with the same body answers with the study that it made before. Raises
        InvalidStudy, DependentObjective, InvalidSpec, ExceedsCapacity, OutOfStorage, NotReady,
        IdempotencyConflict, TooManyJobs, StorageLimit.
        """
        idempotency = None
        if idempotency_key is not None:
            key = caller.named(idempotency_key)
            idempotency = Idempotency(key=key, body_digest=_digest(request))
            # A repeated request is answered even if it could not be carried out any more.
            if (stored := self._jobs.studies.replayed(idempotency)) is not None:
                return stored, False
        request, costs, _ = self._checked(request)
        now = datetime.now(UTC)
        study = Study(
            id=f"study-{secrets.token_hex(8)}",
            request=request,
            is_overridden=is_overridden(request),
            state=JobState.QUEUED,
            reason=StudyReason.SUBMITTED,
            message="Submitted; its driver starts as soon as there is room for its trials.",
            version=1,
            created_at=now,
            updated_at=now,
            owner=caller.owner,
            reserved_bytes=storage_bytes(request, costs),
        )
        stored, is_new = self._jobs.studies.submit(
            study, idempotency, caller.quota, needs_content=is_upload(request.spec.dataset)
        )
        self._wake()
        return stored, is_new

    def dry_run(self, request: StudyRequest) -> StudyPlan:
        """Everything that a submission would check, and what it would cost; stores nothing."""
        request, costs, count = self._checked(request)
        free, held_by = self._training.free()
        return plan(request, costs, count, self._paces, free, held_by)

    def _checked(self, request: StudyRequest) -> tuple[StudyRequest, list[Estimate], int]:
        """The resolved request, what the specs at the corners of its space cost, and how many data
        its base has."""
        request = require(request)
        spec, info = self._fitting(request.spec, None)
        request = request.model_copy(update={"spec": _pinned(request, spec)})
        costs, wrong = [estimate(spec, info)], list[FieldError]()
        for place, corner in _corner_specs(request):
            try:
                costs.append(estimate(*self._fitting(corner, place)))
            except InvalidStudy as error:
                wrong += [each for each in error.errors if each not in wrong]
        if wrong:
            raise InvalidStudy(f"{wrong[0].pointer} {wrong[0].message}.", tuple(wrong))
        self._check_allotment(request, max(each.worker_memory_bytes for each in costs))
        return request, costs, info.count

    def _fitting(self, spec: AnySpec, place: FieldError | None) -> tuple[AnySpec, DatasetInfo]:
        """The spec as its data complete it, and these; raises at a place of the space, where one is
        given."""
        try:
            return self._training.checked(JobRequest(spec=spec))
        except Invalid as error:
            if place is None:
                raise
            inner = error.errors[0] if error.errors else FieldError("", str(error))
            message = f"makes a spec that cannot run: {inner.pointer} {inner.message}"
            pointer = FieldError(place.pointer, message)
            raise InvalidStudy(f"{place.pointer} {message}.", (pointer,)) from error

    def _check_allotment(self, request: StudyRequest, worker_memory_bytes: int) -> None:
        """A study holds what all its concurrent trials hold, or it would wait for ever."""
        held = allotment(request)
        places = self._training.ceiling.now().places(held, worker_memory_bytes)
        if places >= held.workers:
            return
        most = places // of_one_trial(request).workers
        message = f"asks for {request.concurrency} trials at one time, of which {most} fit"
        raise ExceedsCapacity(
            "The study asks for more than this installation has, so it would wait for ever.",
            (FieldError("/concurrency", message),),
        )

    # --- those that there are -----------------------------------------------------------------

    def get(self, study_id: str) -> Study:
        """The study; raises StudyNotFound."""
        return self._jobs.ledger.get(study_id)

    def list(self, state: JobState | None, cursor: str | None, limit: int) -> StudyPage:
        """A page of studies, newest first; raises InvalidQuery for a cursor that is none."""
        return self._jobs.studies.page(state, cursor, limit)

    def extend(
        self,
        study_id: str,
        changes: Mapping[str, Any],
        expected_version: int | None,
        caller: Caller = ANYBODY,
    ) -> Study:
        """Raise the limits of the budget that are named; what has succeeded goes on.

        Raises StudyNotFound, InvalidStudy for a limit that would be lower, StudyChanged,
        StudyStateConflict for a study that has failed or was cancelled, and TooManyJobs.
        """
        for left in range(_TRIES, 0, -1):
            study = self._jobs.ledger.get(study_id)
            if expected_version is not None and study.version != expected_version:
                raise StudyChanged
            budget = Budget.model_validate(study.request.budget.model_dump() | dict(changes))
            try:
                extended = self._jobs.ledger.extend(
                    study_id, budget, study.version, caller.quota, _reserved_bytes(study, budget)
                )
                return self._told(extended)
            except StudyChanged:
                # Another change came between; unless one version was asked for, that is no harm.
                if expected_version is not None or left == 1:
                    raise
        raise AssertionError("the last try returns or raises")

    def cancel(self, study_id: str) -> Study:
        """Note the wish; the driver ends its trials. Raises StudyStateConflict."""
        study = self._told(self._jobs.ledger.request_cancel(study_id))
        if study.state is JobState.CANCELLED:  # and so are its trials, at once
            for trial in self._jobs.ledger.trials(study_id):
                self._feed.notify(trial.job_id, urgent=True)
        return study

    def pause(self, study_id: str) -> Study:
        """Note the wish; a queued study is paused at once. Raises StudyStateConflict."""
        return self._told(self._jobs.ledger.request_pause(study_id))

    def resume(self, study_id: str, caller: Caller = ANYBODY) -> Study:
        """Queue a paused study, or take the wish to pause back; raises StudyStateConflict,
        TooManyJobs."""
        return self._told(self._jobs.ledger.resume(study_id, caller.quota))

    def retry(self, study_id: str, caller: Caller = ANYBODY) -> Study:
        """Queue a failed or cancelled study, which goes on from all that it knows; raises
        StudyStateConflict, TooManyJobs."""
        return self._told(self._jobs.ledger.retry(study_id, caller.quota))

    def delete(self, study_id: str, expected_version: int | None) -> None:
        """Delete a study that has ended with all its trials.

        Raises StudyNotFound, StudyStateConflict, StudyChanged.
        """
        self._deletions.delete_study(study_id, expected_version)

    def _told(self, study: Study) -> Study:
        self._wake()
        return study


def _reserved_bytes(study: Study, budget: Budget) -> int | None:
    """What a study's trials may need with another budget; None where nobody has estimated it."""
    if study.reserved_bytes is None:
        return None
    longer = study.request.model_copy(update={"budget": budget})
    return study.reserved_bytes * sum(trials(longer)) // sum(trials(study.request))


def _pinned(request: StudyRequest, resolved_spec: AnySpec) -> AnySpec:
    """The base as its data complete it, its content pinned unless the study tunes which it is."""
    tuned = {pointer for pointer in request.space if encloses("/dataset", pointer)}
    if tuned - _OF_THE_SPLIT:
        return request.spec
    return resolved_spec


def _corner_specs(request: StudyRequest) -> Iterator[tuple[FieldError, AnySpec]]:
    """Different specs at the corners of a space, with their places."""
    seen = {request.spec.digest()}
    for place, configuration in corners(request):
        spec = spec_of(request.spec, configuration)
        if spec.digest() not in seen:
            seen.add(spec.digest())
            yield place, spec
        if len(seen) > _CORNERS_TRIED:
            return


def _digest(request: StudyRequest) -> str:
    """The same for the same request, in whatever order its keys came."""
    body = json.dumps(resolved(request).model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(body.encode()).hexdigest()
