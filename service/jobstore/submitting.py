"""What users write: new jobs and labels. Each function runs in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from service.errors import IdempotencyConflict, VersionConflict
from service.jobs import Job
from service.jobstore.datasets import require_content
from service.jobstore.rows import job_row, to_job, to_json, to_us
from service.jobstore.schema import IDEMPOTENCY_KEYS, JOBS, LABELS
from service.jobstore.writing import (
    append_state_event,
    changed,
    insert_if_absent,
    locked_job,
)

_ADD = insert(JOBS)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's name for its request, and what the request was."""

    key: str
    body_digest: str


def add(
    connection: Connection, job: Job, idempotency: Idempotency | None, needs_content: bool = False
) -> tuple[Job, bool]:
    """Store a job with its first event and its key; or give the job that has the key."""
    if idempotency is not None:
        key = {
            "key": idempotency.key,
            "body_digest": idempotency.body_digest,
            "job_id": job.id,
            "created_us": to_us(job.created_at),
        }
        while not insert_if_absent(connection, IDEMPOTENCY_KEYS, key):
            found = replayed(connection, idempotency)
            if found is not None:  # else its job was deleted since the key was refused
                return found, False
    digest = job.spec.data_digest
    if needs_content and digest is not None:
        require_content(connection, digest)
    row = job_row(job)
    connection.execute(_ADD, row)
    _index_labels(connection, job.id, job.labels, row["created_us"])
    append_state_event(
        connection, job.id, row["created_us"], job.attempt, job.state, job.reason, job.message
    )
    return job, True


def replayed(connection: Connection, idempotency: Idempotency) -> Job | None:
    """The job that was made under the key, or None; raises IdempotencyConflict."""
    stored = connection.execute(
        select(JOBS, IDEMPOTENCY_KEYS.c.body_digest)
        .join(IDEMPOTENCY_KEYS, IDEMPOTENCY_KEYS.c.job_id == JOBS.c.id)
        .where(IDEMPOTENCY_KEYS.c.key == idempotency.key)
    ).one_or_none()
    if stored is None:
        return None
    if stored.body_digest != idempotency.body_digest:
        raise IdempotencyConflict
    return to_job(stored)


def _index_labels(
    connection: Connection, job_id: str, labels: Mapping[str, str], created_us: int
) -> None:
    rows = [
        {"job_id": job_id, "key": key, "value": value, "created_us": created_us}
        for key, value in labels.items()
    ]
    if rows:
        connection.execute(insert(LABELS), rows)


def set_labels(
    connection: Connection, job_id: str, labels: Mapping[str, str], expected_version: int | None
) -> Job:
    """Replace the labels; raises VersionConflict when the job is not of the expected version."""
    row = locked_job(connection, job_id)
    if expected_version is not None and row.version != expected_version:
        raise VersionConflict
    if to_job(row).labels == labels:
        return to_job(row)
    connection.execute(delete(LABELS).where(LABELS.c.job_id == job_id))
    _index_labels(connection, job_id, labels, row.created_us)
    return changed(connection, row, {"labels": to_json(labels)})
