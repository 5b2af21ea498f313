"""Names of uploaded data sets, and who uses their content. Each function runs in a transaction."""

import json
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, delete, select, update

from service.access.caller import Caller
from service.errors import (
    DatasetChanged,
    DatasetExists,
    DatasetInUse,
    DatasetNotFound,
    FieldError,
    InvalidSpec,
    NotYours,
)
from service.jobs import FINAL_STATES
from service.jobstore.rows import from_us, to_us
from service.jobstore.schema import DATASETS, JOBS, STUDIES
from service.jobstore.writing import insert_if_absent
from service.uploads import Change, Condition, Upload
from workers.content import Facts
from workers.spec import JOB_SPEC


def uploads(connection: Connection) -> list[Upload]:
    """All names, in the order of the alphabet."""
    return [_to_upload(row) for row in connection.execute(select(DATASETS).order_by("name"))]


def upload(connection: Connection, name: str) -> Upload | None:
    """The name, or None."""
    row = connection.execute(select(DATASETS).where(DATASETS.c.name == name)).first()
    return None if row is None else _to_upload(row)


def put_upload(
    connection: Connection, new: Upload, condition: Condition, caller: Caller
) -> tuple[Upload, Change, Upload | None]:
    """Point a name at a content; the name now, what was done, and the name before.

    A name that points there already stays as it is. Raises DatasetExists where the name would
    move unasked, DatasetChanged where it is not as the condition asks, NotYours.
    """
    stored = _locked(connection, new.name)
    if stored is None and condition.holds(None):
        if insert_if_absent(connection, DATASETS, _to_row(new)):
            return new, Change.CREATED, None
        stored = _locked(connection, new.name)  # another process was sooner
    if stored is not None and stored.facts.digest == new.facts.digest and not condition.is_new:
        return stored, Change.UNCHANGED, stored
    if not condition.holds(stored):
        raise DatasetChanged
    if stored is None:  # and it has been deleted again
        raise DatasetChanged
    if not condition.is_given:
        raise DatasetExists
    _require_own(stored, caller)
    moved = Upload(new.name, new.facts, new.created_at, stored.version + 1, stored.owner)
    connection.execute(update(DATASETS).where(DATASETS.c.name == new.name).values(_to_row(moved)))
    return moved, Change.MOVED, stored


def delete_upload(
    connection: Connection, name: str, condition: Condition, caller: Caller
) -> Upload:
    """Forget a name; what it pointed at.

    Raises DatasetNotFound, NotYours, DatasetChanged, and DatasetInUse where jobs or studies pin
    its content.
    """
    stored = _locked(connection, name)
    if stored is None:
        raise DatasetNotFound(f"there is no uploaded data set {name!r}; GET /v1/datasets lists all")
    _require_own(stored, caller)
    if not condition.holds(stored):
        raise DatasetChanged
    jobs, studies = (
        tuple(
            connection.execute(
                _pinning(table, stored.facts.digest).order_by(table.c.created_us, table.c.id)
            ).scalars()
        )
        for table in (JOBS, STUDIES)
    )
    if jobs or studies:
        raise DatasetInUse(name, jobs, studies)
    connection.execute(delete(DATASETS).where(DATASETS.c.name == name))
    return stored


def _require_own(stored: Upload, caller: Caller) -> None:
    if not caller.may_change(stored.owner):
        raise NotYours(
            f"the data set {stored.name} belongs to {stored.owner or 'nobody'}; choose another name"
        )


def hold_content(connection: Connection, digest: str) -> bool:
    """Whether a name points at the content, or a job or a study pins it; what does, stays until
    the transaction ends."""
    return any(
        connection.execute(query.with_for_update(read=True)).first() is not None
        for query in _users(digest)
    )


def require_content(connection: Connection, digest: str) -> None:
    """Hold a content, or raise InvalidSpec: what is stored in this transaction keeps it."""
    if not hold_content(connection, digest):
        raise InvalidSpec(
            "The data set cannot be used.",
            (FieldError("/spec/dataset/name", "its content was deleted; upload it again"),),
        )


def is_content_used(connection: Connection, digest: str) -> bool:
    """Whether a name points at the content, or a job or a study pins it."""
    return any(connection.execute(query).first() is not None for query in _users(digest))


def is_split_used(connection: Connection, digest: str, split_seed: int) -> bool:
    """Whether a job that has not ended pins the content and splits it by that seed."""
    specs = connection.execute(
        select(JOBS.c.spec).where(
            JOBS.c.dataset_digest == digest,
            JOBS.c.deleted_us.is_(None),
            JOBS.c.state.not_in([state.value for state in FINAL_STATES]),
        )
    )
    refs = (JOB_SPEC.validate_json(spec).dataset for spec in specs.scalars())
    return any(ref is not None and ref.split_seed == split_seed for ref in refs)


def _users(digest: str) -> tuple[Select[Any], ...]:
    named = select(DATASETS.c.name).where(DATASETS.c.digest == digest).limit(1)
    return named, _pinning(JOBS, digest).limit(1), _pinning(STUDIES, digest).limit(1)


def _pinning(table: Table, digest: str) -> Select[Any]:
    """The jobs or studies that have a content until they are deleted."""
    return select(table.c.id).where(table.c.dataset_digest == digest, table.c.deleted_us.is_(None))


def _locked(connection: Connection, name: str) -> Upload | None:
    row = connection.execute(
        select(DATASETS).where(DATASETS.c.name == name).with_for_update()
    ).first()
    return None if row is None else _to_upload(row)


def _to_row(of: Upload) -> dict[str, Any]:
    facts = of.facts
    return {
        "name": of.name,
        "digest": facts.digest,
        "shape": json.dumps(facts.shape),
        "dtype": facts.dtype,
        "count": facts.count,
        "is_image": facts.is_image,
        "size_bytes": facts.size_bytes,
        "source_format": facts.source_format,
        "source_digest": facts.source_digest,
        "created_us": to_us(of.created_at),
        "version": of.version,
        "owner": of.owner,
    }


def _to_upload(row: Row[Any]) -> Upload:
    facts = Facts(
        digest=row.digest,
        shape=tuple(json.loads(row.shape)),
        # ``count`` is a method of every row.
        count=row._mapping["count"],
        dtype=row.dtype,
        size_bytes=row.size_bytes,
        source_format=row.source_format,
        source_digest=row.source_digest,
    )
    return Upload(row.name, facts, from_us(row.created_us), row.version, row.owner)
