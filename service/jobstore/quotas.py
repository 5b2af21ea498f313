"""An owner's limits on what the store counts, held to in the transaction that uses them."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, func, or_, select

from service.access.caller import Quota
from service.errors import StorageLimit, TooManyJobs
from service.jobs import JobState
from service.jobstore.database import Database
from service.jobstore.schema import API_KEYS, DATASETS, JOBS, STUDIES
from service.jobstore.study_rows import to_study

_ACTIVE = (JobState.QUEUED.value, JobState.RUNNING.value)
_UNENDED = (*_ACTIVE, JobState.PAUSED.value)


@contextmanager
def within(database: Database, quota: Quota | None) -> Iterator[Connection]:
    """A transaction of a change that must leave an owner within his limits, else it is none.

    An owner's changes wait for one another, by the rows of his keys: two at once would each count
    without the other. Raises TooManyJobs, StorageLimit, NotReady.
    """
    with database.write() as connection:
        if quota is not None:
            own = select(API_KEYS.c.id).where(API_KEYS.c.owner == quota.owner)
            connection.execute(own.order_by(API_KEYS.c.id).with_for_update()).all()
        yield connection
        if quota is not None:
            _require(connection, quota)


def _require(connection: Connection, quota: Quota) -> None:
    if quota.running is not None and (count := _running(connection, quota.owner)) > quota.running:
        raise TooManyJobs(
            f"{quota.owner} may have {quota.running} job(s) that run or wait to run, trials of "
            f"studies included, and would have {count}; try again when one has ended"
        )
    if quota.storage_bytes is not None:
        size_bytes = _stored_bytes(connection, quota.owner)
        if size_bytes > quota.storage_bytes:
            raise StorageLimit(
                f"{quota.owner} may use {quota.storage_bytes:,} bytes of storage and would use "
                f"{size_bytes:,}; delete jobs or data sets, or keep fewer checkpoints"
            )


def _running(connection: Connection, owner: str) -> int:
    """Jobs that run or wait to run; a study counts as many as it runs at one time."""
    jobs = connection.execute(
        select(func.count()).where(
            JOBS.c.owner == owner,
            JOBS.c.deleted_us.is_(None),
            JOBS.c.state.in_(_ACTIVE),
            JOBS.c.study_id.is_(None),
        )
    ).scalar_one()
    studies = connection.execute(
        select(STUDIES).where(STUDIES.c.owner == owner, STUDIES.c.state.in_(_ACTIVE))
    )
    return int(jobs) + sum(to_study(row).request.concurrency for row in studies)


def _stored_bytes(connection: Connection, owner: str) -> int:
    """What jobs were admitted with, until they are deleted, and what uploads have.

    Trials count with their study until that has ended.
    """
    unended = (STUDIES.c.owner == owner, STUDIES.c.state.in_(_UNENDED))
    trials_apart = or_(
        JOBS.c.study_id.is_(None), JOBS.c.study_id.not_in(select(STUDIES.c.id).where(*unended))
    )
    sums = (
        select(func.sum(JOBS.c.reserved_bytes)).where(
            JOBS.c.owner == owner, JOBS.c.deleted_us.is_(None), trials_apart
        ),
        select(func.sum(STUDIES.c.reserved_bytes)).where(*unended),
        select(func.sum(DATASETS.c.size_bytes)).where(DATASETS.c.owner == owner),
    )
    return sum(int(connection.execute(one).scalar() or 0) for one in sums)
