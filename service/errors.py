"""The ServiceError tree; api/errors.py maps each class to a status and a problem type.

::

    ServiceError
    ├── NotFound              JobNotFound, CheckpointNotFound, ResultNotFound, OtherTrainer,
    │                         UnknownTrainer, DatasetNotFound, StudyNotFound, KeyNotFound,
    │                         NoAnswerYet
    ├── NotYours              it belongs to another key's owner
    ├── LimitReached          more than the key may use: TooManyJobs, StorageLimit
    ├── Conflict              StateConflict, StudyStateConflict, VersionConflict, StudyChanged,
    │                         IdempotencyConflict, DatasetBuiltIn, DatasetExists, DatasetChanged,
    │                         DatasetInUse, SweepRunning
    ├── Invalid               InvalidSpec, InvalidQuery, InvalidDataset, InvalidData,
    │                         InvalidStudy, DependentObjective
    ├── ExceedsCapacity       more than this installation will ever have
    ├── OutOfStorage          the run or the upload would not fit into the free space
    ├── UploadTooLarge        more bytes than an upload may have
    ├── NotReady              a part of the service is down for now: NotLeading
    └── ConfigurationError    the service cannot start with these settings

A class docstring is the default message and says what to do next.
"""

from dataclasses import dataclass


class ServiceError(Exception):
    """The request could not be served."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class NotFound(ServiceError):
    """There is nothing at that address."""


class JobNotFound(NotFound):
    """There is no job with that id; GET /v1/jobs lists them."""


class CheckpointNotFound(NotFound):
    """The job has no such checkpoint; GET /v1/jobs/{id}/checkpoints lists them."""


class ResultNotFound(NotFound):
    """The job has no such result; GET /v1/jobs/{id}/artifacts lists what it has."""


class OtherTrainer(NotFound):
    """Jobs of this trainer have no such result; GET /v1/jobs/{id} links to what there is."""


class UnknownTrainer(NotFound):
    """There is no trainer of that name; GET /v1/trainers lists them."""


class DatasetNotFound(NotFound):
    """There is no data set of that name; GET /v1/datasets lists them."""


class StudyNotFound(NotFound):
    """There is no study with that id; GET /v1/studies lists them."""


class KeyNotFound(NotFound):
    """There is no API key with that id; spreadtrain keys list shows them."""


class NoAnswerYet(NotFound):
    """The study has too few results for this answer; GET its trials to see what there is."""


class NotYours(ServiceError):
    """It belongs to somebody else: a key with the scope write changes its owner's things only."""


class LimitReached(ServiceError):
    """The key may not use more than it does; end or delete something of yours first."""


class TooManyJobs(LimitReached):
    """The key's owner has as many jobs that run or wait to run as he may; try again later."""


class StorageLimit(LimitReached):
    """The key's owner uses as much storage as he may; delete jobs or data sets of yours first."""


class Conflict(ServiceError):
    """The resource is not in the state that the request needs."""


class StateConflict(Conflict):
    """The job's state forbids it; GET the job to see its state.

    ``state`` is the job's state.
    """

    def __init__(self, message: str, state: str) -> None:
        super().__init__(message)
        self.state = state


class StudyStateConflict(StateConflict):
    """The study's state forbids it; GET the study to see its state.

    ``state`` is the study's state.
    """


class VersionConflict(Conflict):
    """The job has changed since it was read; GET it again and repeat with its new ETag."""


class StudyChanged(VersionConflict):
    """The study has changed since it was read; GET it again and repeat with its new ETag."""


class IdempotencyConflict(Conflict):
    """That Idempotency-Key was used with another body; use a new key for a new request."""


class DatasetBuiltIn(Conflict):
    """That name is of a built-in data set, which cannot be changed; choose another one."""


class DatasetExists(Conflict):
    """The name has other content; to move it, repeat with its ETag in If-Match."""


class DatasetChanged(Conflict):
    """The name is not as the precondition asks; GET it again and repeat with its new ETag."""


class DatasetInUse(Conflict):
    """Jobs or studies use the content of that name, so it cannot be deleted.

    ``jobs`` and ``studies`` are their ids, oldest first.
    """

    def __init__(self, name: str, jobs: tuple[str, ...], studies: tuple[str, ...] = ()) -> None:
        counted = f"{len(jobs)} job(s) and {len(studies)} stud{'y' if len(studies) == 1 else 'ies'}"
        super().__init__(
            f"{counted} use the content of {name}, so it cannot be deleted; it can be replaced: "
            "PUT other content with If-Match"
        )
        self.jobs = jobs
        self.studies = studies


class SweepRunning(Conflict):
    """Another sweep is under way; GET /v1/sweep says when it is done."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field: its JSON pointer in the body, and what is allowed."""

    pointer: str
    message: str


class Invalid(ServiceError):
    """The request is well formed, but it cannot be carried out; ``errors`` says why."""

    def __init__(self, message: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.errors = errors


class InvalidSpec(Invalid):
    """The spec does not fit its data."""


class InvalidQuery(Invalid):
    """A query parameter is not usable here."""


class InvalidDataset(Invalid):
    """The upload is no data set; send npz, idx, csv, or a zip of PNG or JPEG pictures."""


class InvalidData(Invalid):
    """The posted data cannot be used; send N×X finite numbers, X being those of the job's data."""


class InvalidStudy(Invalid):
    """The study cannot be carried out as it is."""


class DependentObjective(Invalid):
    """The objective depends on what the study tunes, so it would choose that and no model.

    ``metrics`` are those that would be valid.
    """

    def __init__(
        self, message: str, errors: tuple[FieldError, ...], metrics: tuple[str, ...]
    ) -> None:
        super().__init__(message, errors)
        self.metrics = metrics


class ExceedsCapacity(Invalid):
    """The job asks for more than this installation has."""


class OutOfStorage(ServiceError):
    """There is not enough free space; keep fewer checkpoints, send less, or make room."""


class UploadTooLarge(ServiceError):
    """The body is larger than this service accepts."""


class NotReady(ServiceError):
    """A part of the service is down for now; see GET /readyz and try again."""


class NotLeading(NotReady):
    """Another service leads now, so that this one may not write; GET /readyz says which."""


class ConfigurationError(ServiceError):
    """The service cannot start with these settings."""
