"""The list of jobs: newest first, by keyset, so that no page moves while jobs are added."""

from sqlalchemy import Connection, Select, literal, select, tuple_

from service.jobs import JobFilter, Page
from service.jobstore.cursor import Cursor, parse_cursor
from service.jobstore.rows import to_job
from service.jobstore.schema import JOBS, LABELS


def page(connection: Connection, filter: JobFilter, cursor: str | None, limit: int) -> Page:
    """At most ``limit`` jobs older than the cursor; raises InvalidQuery for a bad cursor."""
    # With a label the order is the label index's, which holds a copy of the time.
    created_us, job_id = JOBS.c.created_us, JOBS.c.id
    if filter.label is not None:
        created_us, job_id = LABELS.c.created_us, LABELS.c.job_id
    statement = _filtered(filter)
    if cursor is not None:
        last = parse_cursor(cursor)
        # As one comparison of pairs, which an index answers by seeking; an OR is scanned.
        statement = statement.where(
            tuple_(created_us, job_id) < tuple_(literal(last.created_us), literal(last.job_id))
        )
    order = [created_us.desc(), job_id.desc()]
    if filter == JobFilter():
        # That it is NULL in all of them does not tell PostgreSQL that its index has their order.
        order.insert(0, JOBS.c.deleted_us.desc())
    # The indexes know which jobs these are; only these are then read.
    found = statement.order_by(*order).limit(limit + 1).subquery()
    rows = connection.execute(
        select(JOBS)
        .join(found, found.c.id == JOBS.c.id)
        .order_by(JOBS.c.created_us.desc(), JOBS.c.id.desc())
    ).all()
    next_cursor = None
    if len(rows) > limit:
        next_cursor = Cursor(rows[limit - 1].created_us, rows[limit - 1].id).encode()
    return Page(tuple(to_job(row) for row in rows[:limit]), next_cursor)


def _filtered(filter: JobFilter) -> Select[tuple[str]]:
    statement = select(JOBS.c.id).where(JOBS.c.deleted_us.is_(None))
    if filter.state is not None:
        statement = statement.where(JOBS.c.state == filter.state.value)
    if filter.trainer is not None:
        statement = statement.where(JOBS.c.trainer == filter.trainer)
    if filter.dataset is not None:
        statement = statement.where(JOBS.c.dataset == filter.dataset)
    if filter.study is not None:
        statement = statement.where(JOBS.c.study_id == filter.study)
    if filter.label is not None:
        key, value = filter.label
        statement = statement.join(LABELS, LABELS.c.job_id == JOBS.c.id)
        statement = statement.where(LABELS.c.key == key)
        if value is not None:
            statement = statement.where(LABELS.c.value == value)
    return statement
