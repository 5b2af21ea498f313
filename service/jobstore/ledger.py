"""The ledger of studies: what is to be tried, what was, and what came of it.

What a driver writes is fenced: a study that is not running, or has another driver, takes no trial
and no result. A trial's own state is its job's, which moves as that of any job.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from service.access.caller import Quota
from service.errors import StateConflict
from service.jobs import FINAL_STATES, Job, JobState
from service.jobstore import study_states
from service.jobstore.database import Database
from service.jobstore.datasets import hold_content
from service.jobstore.quotas import within
from service.jobstore.rows import to_json, to_us
from service.jobstore.schema import JOBS, STUDIES, TRIAL_RESULTS, TRIALS
from service.jobstore.study_rows import TRIALS_OF, study_row, to_result, to_study, to_trial
from service.jobstore.study_states import OF_STUDY, compare_and_set, found
from service.jobstore.submitting import add as add_job
from service.studies.ledger import NewTrial, Phase, Study, StudyReason, Trial, TrialResult
from service.studies.population import begun_at
from service.studies.request import Budget

# See :mod:`service.jobstore.writing`.
_IN_STATE = (
    select(STUDIES)
    .where(STUDIES.c.state == bindparam("of_state"), STUDIES.c.deleted_us.is_(None))
    .order_by(STUDIES.c.created_us, STUDIES.c.id)
)
_OPEN_TRIALS = TRIALS_OF.where(JOBS.c.state.not_in(sorted(FINAL_STATES)))
_OF_CONFIGURATION = TRIALS_OF.where(TRIALS.c.configuration == bindparam("of_configuration"))
_NUMBERED = TRIALS_OF.where(TRIALS.c.number == bindparam("of_number"))
_ADD_TRIAL = insert(TRIALS)
_RESULT = select(TRIAL_RESULTS).where(
    TRIAL_RESULTS.c.study_id == bindparam("of_study"),
    TRIAL_RESULTS.c.trial == bindparam("of_number"),
    TRIAL_RESULTS.c.epoch == bindparam("of_epoch"),
)
_ADD_RESULT = insert(TRIAL_RESULTS)
_JOB_OF_TRIAL = (
    select(JOBS.c.state, JOBS.c.attempt)
    .join(TRIALS, JOBS.c.id == TRIALS.c.job_id)
    .where(TRIALS.c.study_id == bindparam("of_study"), TRIALS.c.number == bindparam("of_number"))
)
_RAISE = update(STUDIES).where(OF_STUDY)


class Ledger:
    """Studies, trials and results, for many threads at once; each method is one transaction.

    Every method raises NotReady when the database does not answer, and StudyNotFound.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- studies ------------------------------------------------------------------------------

    def add(self, study: Study) -> Study:
        """Store a new study."""
        with self._database.write() as connection:
            connection.execute(insert(STUDIES).values(study_row(study)))
        return study

    def get(self, study_id: str) -> Study:
        """The study."""
        with self._database.read() as connection:
            return to_study(found(connection, study_id))

    def in_state(self, state: JobState) -> list[Study]:
        """The studies in a state, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(_IN_STATE, {"of_state": state.value})
            return [to_study(row) for row in rows]

    def start(self, study: Study, message: str) -> Study:
        """Queued -> running with the next driver; raises StateConflict."""
        values = {"attempt": study.attempt + 1}
        with self._database.write() as connection:
            return study_states.move(
                connection, study, JobState.RUNNING, StudyReason.STARTING, message, values
            )

    def settle(self, study: Study, to: JobState, reason: StudyReason, message: str) -> Study:
        """Leave the study's state for ``to``; raises StateConflict, also where a running study has
        wishes or a budget that were not seen."""
        if to is JobState.RUNNING:
            raise StateConflict("a study is set running by its start alone", study.state)
        values = {} if to is JobState.QUEUED else {"pause_requested": False}
        with self._database.write() as connection:
            return study_states.move(connection, study, to, reason, message, values)

    def explain(self, study: Study, reason: StudyReason, message: str) -> Study:
        """A new reason or message for the same state; raises StateConflict."""
        values = {"reason": reason.value, "message": message}
        with self._database.write() as connection:
            return compare_and_set(connection, study, values)

    def next_driver(self, study: Study, message: str) -> Study:
        """A running study's next driver, which keeps what the study holds; raises StateConflict."""
        values = {
            "attempt": study.attempt + 1,
            "reason": StudyReason.STARTING.value,
            "message": message,
        }
        with self._database.write() as connection:
            return compare_and_set(connection, study, values)

    # --- what users wish ----------------------------------------------------------------------

    def extend(
        self,
        study_id: str,
        budget: Budget,
        expected_version: int | None = None,
        quota: Quota | None = None,
        reserved_bytes: int | None = None,
    ) -> Study:
        """Raise the budget; a study that has succeeded goes on, queued.

        ``reserved_bytes`` is what it may need from then on. Raises VersionConflict, InvalidStudy
        for a budget that is smaller, StateConflict for one that has failed or was cancelled,
        TooManyJobs, StorageLimit.
        """
        with within(self._database, quota) as connection:
            return study_states.extend(
                connection, study_id, budget, expected_version, reserved_bytes
            )

    def request_cancel(self, study_id: str) -> Study:
        """Wish for the end; what does not run ends at once. Raises StateConflict."""
        with self._database.write() as connection:
            return study_states.request_cancel(connection, study_id)

    def request_pause(self, study_id: str) -> Study:
        """Wish for a pause; a queued study has it at once. Raises StateConflict."""
        with self._database.write() as connection:
            return study_states.request_pause(connection, study_id)

    def resume(self, study_id: str, quota: Quota | None = None) -> Study:
        """Paused -> queued, or the wish to pause taken back; raises StateConflict, TooManyJobs."""
        with within(self._database, quota) as connection:
            return study_states.resume(connection, study_id)

    def retry(self, study_id: str, quota: Quota | None = None) -> Study:
        """Failed or cancelled -> queued; raises StateConflict, TooManyJobs."""
        with within(self._database, quota) as connection:
            return study_states.retry(connection, study_id)

    # --- what a driver writes -----------------------------------------------------------------

    def add_trial(
        self, study: Study, new: NewTrial, job: Job, needs_content: bool = False
    ) -> tuple[Trial, bool]:
        """Store a trial with its job, or give the one of that configuration and seed.

        (trial, is new). ``needs_content`` says that its data set is an upload. Raises
        StateConflict where the driver is not the study's any more, and ValueError where the
        configuration has other values.
        """
        if job.study_id != study.id:
            raise ValueError(f"job {job.id} is no job of study {study.id}")
        with self._database.write() as connection:
            row = _held(connection, study)
            of = {"of_study": study.id, "of_configuration": new.configuration}
            for stored in map(to_trial, connection.execute(_OF_CONFIGURATION, of)):
                if to_json(stored.values) != to_json(new.values):
                    raise ValueError(f"configuration {new.configuration} has other values")
                if stored.seed == new.seed:
                    return stored, False
            digest = job.spec.data_digest
            if needs_content and digest is not None and digest != row.dataset_digest:
                # Only the trial keeps what its study does not pin. One that comes too late is
                # stored all the same, and fails by itself: the study has others.
                hold_content(connection, digest)
            add_job(connection, job, None)
            number = row.last_trial + 1
            trial = {
                "study_id": study.id,
                "number": number,
                "configuration": new.configuration,
                "values": to_json(new.values),
                "seed": new.seed,
                "phase": new.phase.value,
                "job_id": job.id,
            }
            connection.execute(_ADD_TRIAL, trial)
            connection.execute(_RAISE, {"last_trial": number, "of_study": study.id})
            of = {"of_study": study.id, "of_number": number}
            return to_trial(connection.execute(_NUMBERED, of).one()), True

    def add_results(
        self, study: Study, reported: Sequence[tuple[int, int, Mapping[str, float]]], at: datetime
    ) -> list[TrialResult]:
        """Store what trials have reported, each as (trial, epoch, metrics), or give what was stored
        for that trial and epoch before.

        Only what is given back may be shown to a scheduler. Raises StateConflict where the driver
        is not the study's any more, or a trial has never begun.
        """
        given: list[TrialResult] = []
        with self._database.write() as connection:
            seq = _held(connection, study).last_result
            begun: set[int] = set()
            rows = []
            for trial, epoch, metrics in reported:
                of_trial = {"of_study": study.id, "of_number": trial}
                before = connection.execute(_RESULT, {**of_trial, "of_epoch": epoch}).first()
                if before is not None:
                    given.append(to_result(before))
                    continue
                if trial not in begun:
                    job = connection.execute(_JOB_OF_TRIAL, of_trial).one()
                    if not job.attempt:
                        why = f"trial {trial} has not begun, and has no results"
                        raise StateConflict(why, job.state)
                    begun.add(trial)
                seq += 1
                rows.append(
                    {
                        "study_id": study.id,
                        "seq": seq,
                        "trial": trial,
                        "epoch": epoch,
                        "metrics": to_json(metrics),
                        "at_us": to_us(at),
                    }
                )
                given.append(TrialResult(seq, trial, epoch, dict(metrics), at))
            if rows:
                connection.execute(_ADD_RESULT, rows)
                connection.execute(_RAISE, {"last_result": seq, "of_study": study.id})
        return given

    # --- reading ------------------------------------------------------------------------------

    def trials(self, study_id: str) -> list[Trial]:
        """The study's trials, in the order in which they were stored."""
        with self._database.read() as connection:
            rows = connection.execute(TRIALS_OF, {"of_study": study_id})
            return list(map(to_trial, rows.all()))

    def open_trials(self, study_id: str) -> list[Trial]:
        """Those of the study's trials that have not ended."""
        with self._database.read() as connection:
            rows = connection.execute(_OPEN_TRIALS, {"of_study": study_id})
            return list(map(to_trial, rows.all()))

    def epochs(self, study_id: str) -> float:
        """The epochs that the trials of the search have trained, all together."""
        of_search = (TRIALS.c.study_id == study_id) & (TRIALS.c.phase == Phase.SEARCH.value)
        total = select(func.sum(JOBS.c.epoch)).join(TRIALS, TRIALS.c.job_id == JOBS.c.id)
        forked = (
            select(TRIALS.c["values"])
            .join(JOBS, JOBS.c.id == TRIALS.c.job_id)
            # One that has not begun yet, is at no epoch.
            .where(of_search, JOBS.c.parent_job_id.is_not(None), JOBS.c.epoch > 0)
        )
        with self._database.read() as connection:
            found = connection.execute(total.where(of_search)).scalar()
            begun = connection.execute(forked).scalars()
            taken = sum(begun_at(json.loads(values)) for values in begun)
        return float(found or 0.0) - taken

    def results(self, study_id: str, after: int = 0) -> list[TrialResult]:
        """The study's results with a number above ``after``, in order."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(TRIAL_RESULTS)
                .where(TRIAL_RESULTS.c.study_id == study_id, TRIAL_RESULTS.c.seq > after)
                .order_by(TRIAL_RESULTS.c.seq)
            )
            return list(map(to_result, rows.all()))


def _held(connection: Connection, study: Study) -> Row[Any]:
    """The study's row, which nobody else changes until the end, for the driver that it has."""
    row = found(connection, study.id, locked=True)
    if (row.state, row.attempt) != (JobState.RUNNING, study.attempt):
        raise StateConflict(
            f"driver {study.attempt} is not the study's any more; it is {row.state}", row.state
        )
    return row
