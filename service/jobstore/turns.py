"""Questions about the queue's order and about what explains a job. Each is one transaction."""

from datetime import datetime

from sqlalchemy import ColumnElement, and_, func, select

from service.jobs import Attempt, Job, JobEvent, JobState
from service.jobstore.database import Database
from service.jobstore.reading import IN_TURN, IS_NO_TRIAL, is_due, is_sooner, last_events
from service.jobstore.rows import to_attempt, to_job, to_us
from service.jobstore.schema import ATTEMPTS, JOBS
from service.jobstore.writing import now_us

_QUEUED = and_(JOBS.c.state == JobState.QUEUED.value, IS_NO_TRIAL)


class Turns:
    """Answers for many threads at once; every method raises NotReady without a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ahead_of_a_new_one(self, priority: int) -> int:
        """How many queued jobs would start before a job that was submitted now."""
        counted = select(func.count()).select_from(JOBS)
        with self._database.read() as connection:
            return connection.execute(
                counted.where(_QUEUED, JOBS.c.priority >= priority, is_due(now_us()))
            ).scalar_one()

    def sooner(self, priority: int, created_at: datetime, job_id: str, limit: int) -> list[Job]:
        """The first queued jobs whose turn is before that of such a job, in their order; those
        that wait for their back-off among them."""
        return self._queued(is_sooner(priority, to_us(created_at), job_id), limit)

    def first(self, limit: int) -> list[Job]:
        """The first queued jobs in the order of their turns."""
        return self._queued(_QUEUED, limit)

    def _queued(self, wanted: ColumnElement[bool], limit: int) -> list[Job]:
        with self._database.read() as connection:
            rows = connection.execute(
                select(JOBS).where(_QUEUED, wanted).order_by(*IN_TURN).limit(limit)
            )
            return [to_job(row) for row in rows]

    def states(self, job_id: str, limit: int) -> list[JobEvent]:
        """The job's last changes of state or reason, the newest first."""
        with self._database.read() as connection:
            return last_events(connection, job_id, None, limit, ["state"], None)

    def lately_trained(self, limit: int) -> list[tuple[Job, Attempt]]:
        """The last attempts that have made a step, of whichever job, the newest first."""
        with self._database.read() as connection:
            attempts = [
                to_attempt(row)
                for row in connection.execute(
                    select(ATTEMPTS)
                    .where(ATTEMPTS.c.first_step_us.is_not(None), ATTEMPTS.c.heard_us.is_not(None))
                    .order_by(ATTEMPTS.c.created_us.desc())
                    .limit(limit)
                )
            ]
            named = JOBS.c.id.in_({attempt.job_id for attempt in attempts})
            rows = connection.execute(select(JOBS).where(named, JOBS.c.deleted_us.is_(None)))
            jobs = {row.id: to_job(row) for row in rows}
        return [(jobs[each.job_id], each) for each in attempts if each.job_id in jobs]
