"""What users ask of studies: new ones, lists, and what trials came to."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, insert, literal, select, tuple_

from service.access.caller import Quota
from service.errors import IdempotencyConflict
from service.jobs import JobState, Reason
from service.jobstore import retaining
from service.jobstore.cursor import Cursor, parse_cursor
from service.jobstore.database import Database
from service.jobstore.datasets import require_content
from service.jobstore.lease import SECOND_US
from service.jobstore.quotas import within
from service.jobstore.rows import to_us
from service.jobstore.schema import (
    ATTEMPTS,
    JOBS,
    POINTS,
    SERIES,
    STUDIES,
    STUDY_KEYS,
    TRIAL_RESULTS,
    TRIALS,
)
from service.jobstore.study_rows import TRIALS_OF, study_row, to_result, to_study, to_trial
from service.jobstore.submitting import Idempotency
from service.jobstore.writing import insert_if_absent, now_us
from service.studies.ledger import Phase, Study, StudyPage, Trial, TrialResult

_NAMED_AT_ONCE = 500  # below the parameters that a statement may have


@dataclass(frozen=True, slots=True)
class TrialFilter:
    """Which trials of a study to list; None does not filter."""

    state: JobState | None = None
    phase: Phase | None = None
    configuration: int | None = None


class Studies:
    """Answers for many threads at once; each method is one transaction, and raises NotReady when
    the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- studies ------------------------------------------------------------------------------

    def submit(
        self,
        study: Study,
        idempotency: Idempotency | None,
        quota: Quota | None = None,
        needs_content: bool = False,
    ) -> tuple[Study, bool]:
        """Store a new study, or give the one that was stored under the same key; (study, is new).

        Raises IdempotencyConflict when the key was used with another body, TooManyJobs and
        StorageLimit beyond the quota, and InvalidSpec where it needs an uploaded content that it
        pins, and which was removed.
        """
        digest = study.request.spec.data_digest
        with within(self._database, quota) as connection:
            if idempotency is not None:
                key = {
                    "key": idempotency.key,
                    "body_digest": idempotency.body_digest,
                    "study_id": study.id,
                    "created_us": to_us(study.created_at),
                }
                if not insert_if_absent(connection, STUDY_KEYS, key):
                    before = _replayed(connection, idempotency)
                    assert before is not None  # its key was just refused for being there
                    return before, False
            if needs_content and digest is not None:
                require_content(connection, digest)
            connection.execute(insert(STUDIES).values(study_row(study)))
            return study, True

    def replayed(self, idempotency: Idempotency) -> Study | None:
        """The study that was made under the key, or None; raises IdempotencyConflict."""
        with self._database.read() as connection:
            return _replayed(connection, idempotency)

    def page(self, state: JobState | None, cursor: str | None, limit: int) -> StudyPage:
        """At most ``limit`` studies older than the cursor, newest first; raises InvalidQuery."""
        statement = select(STUDIES).where(STUDIES.c.deleted_us.is_(None))
        if state is not None:
            statement = statement.where(STUDIES.c.state == state.value)
        if cursor is not None:
            last = parse_cursor(cursor)
            behind = tuple_(literal(last.created_us), literal(last.job_id))
            statement = statement.where(tuple_(STUDIES.c.created_us, STUDIES.c.id) < behind)
        newest = statement.order_by(STUDIES.c.created_us.desc(), STUDIES.c.id.desc())
        with self._database.read() as connection:
            rows = connection.execute(newest.limit(limit + 1)).all()
        next_cursor = None
        if len(rows) > limit:
            next_cursor = Cursor(rows[limit - 1].created_us, rows[limit - 1].id).encode()
        listed = tuple((to_study(row), int(row.last_trial)) for row in rows[:limit])
        return StudyPage(listed, next_cursor)

    def delete(self, study_id: str, expected_version: int | None) -> tuple[str, ...]:
        """Mark a study that has ended as deleted, with its trials' jobs; the ids of these.

        Raises StudyNotFound, StudyChanged, StudyStateConflict.
        """
        with self._database.write() as connection:
            return retaining.delete_study(connection, study_id, expected_version)

    def count_by_state(self) -> dict[JobState, int]:
        """How many studies are in each state; those of which there are none are left out."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(STUDIES.c.state, func.count())
                .where(STUDIES.c.deleted_us.is_(None))
                .group_by(STUDIES.c.state)
            )
            return {JobState(row[0]): int(row[1]) for row in rows}

    # --- trials -------------------------------------------------------------------------------

    def count_trials(self) -> dict[tuple[JobState, Reason], int]:
        """How many trials of all studies are in each state for each reason."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(JOBS.c.state, JOBS.c.reason, func.count())
                .where(JOBS.c.study_id.is_not(None), JOBS.c.deleted_us.is_(None))
                .group_by(JOBS.c.state, JOBS.c.reason)
            )
            return {(JobState(row[0]), Reason(row[1])): int(row[2]) for row in rows}

    def searched_s(self, study_id: str) -> float:
        """The seconds so far in which any trial of the search had an attempt."""
        now = now_us()
        with self._database.read() as connection:
            rows = connection.execute(
                select(ATTEMPTS.c.created_us, func.coalesce(ATTEMPTS.c.ended_us, now))
                .join(TRIALS, TRIALS.c.job_id == ATTEMPTS.c.job_id)
                .where(TRIALS.c.study_id == study_id, TRIALS.c.phase == Phase.SEARCH.value)
                .order_by(ATTEMPTS.c.created_us)
            )
            total, end = 0, 0
            for begun, ended in rows:
                total += max(ended - max(begun, end), 0)
                end = max(end, ended)
        return total / SECOND_US

    def counts(self, study_id: str) -> Mapping[tuple[Phase, JobState], int]:
        """How many trials of each phase are in each state; those of which there are none are
        left out."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(TRIALS.c.phase, JOBS.c.state, func.count())
                .join(JOBS, JOBS.c.id == TRIALS.c.job_id)
                .where(TRIALS.c.study_id == study_id)
                .group_by(TRIALS.c.phase, JOBS.c.state)
            )
            return {(Phase(row[0]), JobState(row[1])): int(row[2]) for row in rows}

    def stamp(self, study_id: str) -> tuple[int, ...]:
        """Other numbers whenever the study, a trial of it or a result has changed."""
        with self._database.read() as connection:
            own = connection.execute(
                select(STUDIES.c.version, STUDIES.c.last_trial, STUDIES.c.last_result).where(
                    STUDIES.c.id == study_id
                )
            ).first()
            jobs = connection.execute(
                select(func.count(), func.coalesce(func.sum(JOBS.c.version), 0)).where(
                    JOBS.c.study_id == study_id
                )
            ).one()
        return (*(tuple(own) if own is not None else ()), int(jobs[0]), int(jobs[1]))

    def trials(
        self, study_id: str, wanted: TrialFilter, after: int, limit: int | None
    ) -> list[Trial]:
        """The study's trials with a number above ``after``, in order."""
        statement = TRIALS_OF.where(TRIALS.c.number > after)
        if wanted.state is not None:
            statement = statement.where(JOBS.c.state == wanted.state.value)
        if wanted.phase is not None:
            statement = statement.where(TRIALS.c.phase == wanted.phase.value)
        if wanted.configuration is not None:
            statement = statement.where(TRIALS.c.configuration == wanted.configuration)
        with self._database.read() as connection:
            rows = connection.execute(statement.limit(limit), {"of_study": study_id})
            return list(map(to_trial, rows.all()))

    def trials_numbered(self, study_id: str, numbers: Sequence[int]) -> list[Trial]:
        """The study's trials with these numbers."""
        found: list[Trial] = []
        with self._database.read() as connection:
            for some in _in_parts(numbers):
                chosen = TRIALS_OF.where(TRIALS.c.number.in_(some or ()))
                found += map(to_trial, connection.execute(chosen, {"of_study": study_id}).all())
        return found

    def last_results(
        self, study_id: str, trials: Sequence[int] | None = None
    ) -> dict[int, TrialResult]:
        """What each trial has reported last, by its number; of all trials without ``trials``."""
        last = (
            select(TRIAL_RESULTS.c.trial, func.max(TRIAL_RESULTS.c.epoch).label("epoch"))
            .where(TRIAL_RESULTS.c.study_id == study_id)
            .group_by(TRIAL_RESULTS.c.trial)
        )
        found: dict[int, TrialResult] = {}
        with self._database.read() as connection:
            for some in _in_parts(trials):
                chosen = last if some is None else last.where(TRIAL_RESULTS.c.trial.in_(some))
                newest = chosen.subquery()
                rows = connection.execute(
                    select(TRIAL_RESULTS)
                    .join(
                        newest,
                        (TRIAL_RESULTS.c.trial == newest.c.trial)
                        & (TRIAL_RESULTS.c.epoch == newest.c.epoch),
                    )
                    .where(TRIAL_RESULTS.c.study_id == study_id)
                )
                found |= {result.trial: result for result in map(to_result, rows.all())}
        return found

    def measured_until(
        self, study_id: str, metric: str, trials: Sequence[int] | None = None
    ) -> dict[int, float]:
        """The epoch of each trial's last point of a metric, by its number; those that have none
        are left out. A trial may have gone on beyond its last result, until it was stopped."""
        last = (
            select(POINTS.c.epoch)
            .where(POINTS.c.series_id == SERIES.c.id)
            .order_by(POINTS.c.attempt.desc(), POINTS.c.step.desc())
            .limit(1)
            .correlate(SERIES)
            .scalar_subquery()
        )
        of_metric = (SERIES.c.job_id == TRIALS.c.job_id) & (SERIES.c.name == metric)
        statement = (
            select(TRIALS.c.number, last)
            .join(SERIES, of_metric)
            .where(TRIALS.c.study_id == study_id)
        )
        found: dict[int, float] = {}
        with self._database.read() as connection:
            for some in _in_parts(trials):
                chosen = statement if some is None else statement.where(TRIALS.c.number.in_(some))
                found |= {
                    row[0]: row[1] for row in connection.execute(chosen) if row[1] is not None
                }
        return found

    def epochs(self, study_id: str) -> list[int]:
        """The epochs after which two trials at least have reported, in order."""
        with self._database.read() as connection:
            return list(
                connection.execute(
                    select(TRIAL_RESULTS.c.epoch)
                    .where(TRIAL_RESULTS.c.study_id == study_id)
                    .group_by(TRIAL_RESULTS.c.epoch)
                    .having(func.count() >= 2)
                    .order_by(TRIAL_RESULTS.c.epoch)
                ).scalars()
            )

    def results_at(
        self, study_id: str, epochs: Collection[int], trials: Sequence[int]
    ) -> list[TrialResult]:
        """What these trials have reported after these epochs, in the order of the ledger."""
        found: list[TrialResult] = []
        with self._database.read() as connection:
            for some in _in_parts(trials):
                rows = connection.execute(
                    select(TRIAL_RESULTS).where(
                        TRIAL_RESULTS.c.study_id == study_id,
                        TRIAL_RESULTS.c.trial.in_(some or ()),
                        TRIAL_RESULTS.c.epoch.in_(sorted(epochs)),
                    )
                )
                found += map(to_result, rows.all())
        return sorted(found, key=lambda result: result.seq)

    def results_of(self, study_id: str, trials: Sequence[int]) -> list[TrialResult]:
        """All that these trials have reported, in the order of the ledger."""
        found: list[TrialResult] = []
        with self._database.read() as connection:
            for some in _in_parts(trials):
                rows = connection.execute(
                    select(TRIAL_RESULTS).where(
                        TRIAL_RESULTS.c.study_id == study_id, TRIAL_RESULTS.c.trial.in_(some or ())
                    )
                )
                found += map(to_result, rows.all())
        return sorted(found, key=lambda result: result.seq)


def _in_parts(trials: Sequence[int] | None) -> list[Sequence[int] | None]:
    if trials is None:
        return [None]
    return [
        trials[begin : begin + _NAMED_AT_ONCE] for begin in range(0, len(trials), _NAMED_AT_ONCE)
    ]


def _replayed(connection: Connection, idempotency: Idempotency) -> Study | None:
    stored = connection.execute(
        select(STUDIES, STUDY_KEYS.c.body_digest)
        .join(STUDY_KEYS, STUDY_KEYS.c.study_id == STUDIES.c.id)
        .where(STUDY_KEYS.c.key == idempotency.key)
    ).one_or_none()
    if stored is None:
        return None
    if stored.body_digest != idempotency.body_digest:
        raise IdempotencyConflict
    return to_study(stored)
