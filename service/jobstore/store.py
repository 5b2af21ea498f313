"""The one door to the database: each method is one transaction."""

import builtins
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from service.access.caller import ANYBODY, Caller, Quota
from service.custody import Custody
from service.jobs import (
    ArtifactInfo,
    Attempt,
    CheckpointInfo,
    Job,
    JobEvent,
    JobFilter,
    JobState,
    Limits,
    MetricPoint,
    Page,
    Reason,
)
from service.jobstore import (
    datasets,
    ingesting,
    lease,
    listing,
    reading,
    retaining,
    submitting,
    watching,
    wishes,
)
from service.jobstore.audit import Audit
from service.jobstore.database import Database, Observer
from service.jobstore.keys import Keys
from service.jobstore.lease import Lease
from service.jobstore.ledger import Ledger
from service.jobstore.quotas import within
from service.jobstore.studies import Studies
from service.jobstore.submitting import Idempotency
from service.jobstore.turns import Turns
from service.jobstore.writing import now_us
from service.uploads import Change, Condition, Upload
from workers.events import Exit, Record


class JobStore:
    """Jobs, attempts, events and results, for many threads at once.

    Every method raises NotReady when the database does not answer. ``turns`` answers questions
    about the queue and what explains a job, ``ledger`` has the studies and their trials,
    ``studies`` what is asked about them, ``keys`` the API keys, and ``audit`` who did what.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.turns = Turns(database)
        self.ledger = Ledger(database)
        self.studies = Studies(database)
        self.keys = Keys(database)
        self.audit = Audit(database)

    @classmethod
    def open(cls, url: str, observe: Observer | None = None) -> "JobStore":
        """The store at a database URL, migrated to this version; raises ConfigurationError.

        ``sqlite:////folder/file.db`` is a file, ``sqlite://`` a store in memory. ``observe`` is
        told of each transaction.
        """
        return cls(Database.open(url) if observe is None else Database.open(url, observe))

    def close(self) -> None:
        """Close all connections."""
        self._database.close()

    def ping(self) -> None:
        """Raises NotReady unless the database answers."""
        self._database.ping()

    def alone(self, name: str, busy: str) -> AbstractContextManager[None]:
        """Hold the lock of that name among all services on this database, for as long as it takes;
        raises NotReady, which says ``busy`` where another one has held it for too long. Within one
        service it excludes nobody on SQLite."""
        return self._database.alone(name, busy)

    def installation(self) -> str:
        """The id of this installation, by which it knows its artifact store again."""
        with self._database.read() as connection:
            return reading.installation(connection)

    # --- several services on one database -----------------------------------------------------

    @property
    def is_shared(self) -> bool:
        """Whether several services may use this database at once."""
        return self._database.is_shared

    def fenced(self, number: Callable[[], int | None]) -> "JobStore":
        """The same store for what only the leader writes: each write raises NotLeading unless the
        lease with the number is the last one, and not over."""
        return JobStore(
            self._database.guarded(lambda connection: lease.require(connection, number()))
        )

    def lease(self) -> Lease:
        """The lease that is, or was last."""
        with self._database.read() as connection:
            return lease.last(connection)

    def take_lease(self, service: str, lease_s: float) -> int | None:
        """The number of a new lease for a service, or None where another's is not over."""
        with self._database.write() as connection:
            return lease.take(connection, service, lease_s)

    def renew_lease(self, number: int, lease_s: float) -> bool:
        """Let a lease last for so long from now; False where it is over."""
        with self._database.write() as connection:
            return lease.renew(connection, number, lease_s)

    def give_back_lease(self, number: int) -> None:
        """End a lease, so that nobody waits for its end."""
        with self._database.write() as connection:
            lease.give_back(connection, number)

    def marks(self, job_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """The number of the last event and the version of each of the jobs that there is."""
        with self._database.read() as connection:
            return reading.marks(connection, job_ids)

    # --- what users write ---------------------------------------------------------------------

    def add(
        self,
        job: Job,
        idempotency: Idempotency | None = None,
        *,
        needs_content: bool = False,
        quota: Quota | None = None,
    ) -> tuple[Job, bool]:
        """Store a new job, or give the one that was stored under the same key; (job, is new).

        ``needs_content`` says that its data set is an upload, which must still be kept. Raises
        IdempotencyConflict when the key was used with another body, InvalidSpec when the content
        is no longer kept, TooManyJobs and StorageLimit beyond the quota.
        """
        with within(self._database, quota) as connection:
            return submitting.add(connection, job, idempotency, needs_content)

    def replayed(self, idempotency: Idempotency) -> Job | None:
        """The job that was made under the key, or None; raises IdempotencyConflict."""
        with self._database.read() as connection:
            return submitting.replayed(connection, idempotency)

    def request_cancel(self, job_id: str) -> Job:
        """Set the wish to cancel, once; a paused job is cancelled at once.

        Raises JobNotFound, StateConflict.
        """
        with self._database.write() as connection:
            return wishes.request_cancel(connection, job_id)

    def request_pause(self, job_id: str) -> Job:
        """Set the wish to pause, once; a queued job is paused at once.

        Raises JobNotFound, StateConflict.
        """
        with self._database.write() as connection:
            return wishes.request_pause(connection, job_id)

    def resume(self, job_id: str, quota: Quota | None = None) -> Job:
        """Paused -> queued, or the wish to pause taken back; raises JobNotFound, StateConflict,
        TooManyJobs."""
        with within(self._database, quota) as connection:
            return wishes.resume(connection, job_id)

    def retry(self, job_id: str, limits: Limits | None = None, quota: Quota | None = None) -> Job:
        """Failed or cancelled -> queued, with the next attempt's number; raises JobNotFound,
        StateConflict, TooManyJobs. ``limits`` replace the job's."""
        with within(self._database, quota) as connection:
            return wishes.retry(connection, job_id, limits)

    def set_labels(
        self, job_id: str, labels: Mapping[str, str], expected_version: int | None
    ) -> Job:
        """Replace a job's labels; raises JobNotFound, VersionConflict."""
        with self._database.write() as connection:
            return submitting.set_labels(connection, job_id, labels, expected_version)

    def put_upload(
        self, new: Upload, condition: Condition, caller: Caller = ANYBODY
    ) -> tuple[Upload, Change, Upload | None]:
        """Point a name at a content; the name now, what was done, and the name before.

        Raises DatasetExists where it would move unasked, DatasetChanged, NotYours where the name
        is another owner's, StorageLimit.
        """
        with within(self._database, caller.quota) as connection:
            return datasets.put_upload(connection, new, condition, caller)

    def delete_upload(self, name: str, condition: Condition, caller: Caller = ANYBODY) -> Upload:
        """Forget a name; raises DatasetNotFound, DatasetChanged, DatasetInUse, NotYours."""
        with self._database.write() as connection:
            return datasets.delete_upload(connection, name, condition, caller)

    # --- deleting -----------------------------------------------------------------------------

    def delete(self, job_id: str, expected_version: int | None = None) -> Job:
        """Mark a job that has ended as deleted: from now on nobody finds it; what it was.

        Raises JobNotFound, StateConflict, VersionConflict.
        """
        with self._database.write() as connection:
            return retaining.delete_job(connection, job_id, expected_version)

    def delete_expired(
        self, keep_s: Mapping[JobState, float | None], limit: int
    ) -> builtins.list[str]:
        """Mark jobs as deleted that have ended longer ago than they, or else the seconds given
        for their state, say; their ids."""
        with self._database.read() as connection:
            found = retaining.expired(connection, keep_s, limit)
        if not found:  # as nearly always: nobody who writes waits for the look
            return []
        with self._database.write() as connection:
            return retaining.delete_expired(connection, keep_s, found)

    def doomed(self, limit: int) -> builtins.list[str]:
        """Ids of deleted jobs that nobody refers to, so that their artifacts are to go."""
        with self._database.read() as connection:
            return retaining.doomed(connection, limit)

    def purge(self, job_id: str, at_most: int = 2000) -> bool:
        """Remove some rows of a deleted job; whether its last one is gone."""
        with self._database.write() as connection:
            return retaining.purge(connection, job_id, at_most)

    def custody(self, job_id: str) -> Custody | None:
        """What is known of a job's objects, deleted or not; None where there is no such job."""
        with self._database.read() as connection:
            return retaining.custody(connection, job_id)

    # --- what the watcher writes --------------------------------------------------------------

    def start_attempt(self, job: Job, attempt: Attempt, reason: Reason, message: str) -> Job:
        """Queued -> running with the next attempt; raises StateConflict, JobNotFound."""
        with self._database.write() as connection:
            return watching.start_attempt(connection, job, attempt, reason, message)

    def explain(self, job: Job, reason: Reason, message: str) -> Job:
        """A new reason or message for the same state; raises StateConflict, JobNotFound."""
        said = (job.state, job.attempt, reason, message)
        stored = self.get(job.id)
        # The watcher says the same again and again: that must not queue with the writers.
        if (stored.state, stored.attempt, stored.reason, stored.message) == said:
            return stored
        with self._database.write() as connection:
            return watching.explain(connection, job, reason, message)

    def note_process(self, job_id: str, attempt: int, pid: int | None, host: str | None) -> None:
        """Write down where an attempt's process is."""
        with self._database.write() as connection:
            watching.note_process(connection, job_id, attempt, pid, host)

    def settle(
        self,
        job: Job,
        to: JobState,
        reason: Reason,
        message: str,
        attempt_reason: Reason | None = None,
        attempt_message: str | None = None,
        attempt_exit: Exit | None = None,
        not_before: datetime | None = None,
    ) -> Job:
        """Leave the job's state for ``to``; a running job's attempt ends with it.

        The attempt's reason and message are the job's where they are not given; a queued job
        does not start before ``not_before``. Raises StateConflict when the job is no longer in
        that state and attempt, or a running one has other wishes, and JobNotFound.
        """
        with self._database.write() as connection:
            return watching.settle(
                connection,
                job,
                to,
                reason,
                message,
                attempt_reason,
                attempt_message,
                attempt_exit,
                not_before,
            )

    def ingest(self, job_id: str, attempt: int, chunk: int, records: Sequence[Record]) -> bool:
        """Take in a chunk of an attempt's records exactly once; whether it was new.

        Raises ValueError for a gap, JobNotFound.
        """
        with self._database.write() as connection:
            return ingesting.ingest(connection, job_id, attempt, chunk, records)

    # --- jobs ---------------------------------------------------------------------------------

    def get(self, job_id: str) -> Job:
        """The job; raises JobNotFound."""
        with self._database.read() as connection:
            return reading.job(connection, job_id)

    def attempts(self, job_id: str) -> builtins.list[Attempt]:
        """The job's attempts, oldest first."""
        with self._database.read() as connection:
            return reading.attempts(connection, job_id)

    def list(self, filter: JobFilter, cursor: str | None, limit: int) -> Page:
        """One page of jobs, newest first; raises InvalidQuery for a cursor that is none."""
        with self._database.read() as connection:
            return listing.page(connection, filter, cursor, limit)

    def startable(self, limit: int | None = None) -> builtins.list[Job]:
        """The queued jobs (the first ``limit``) that wait for no back-off, in their order."""
        with self._database.read() as connection:
            return reading.startable(connection, limit, now_us())

    def queued_with_wishes(self) -> builtins.list[Job]:
        """The queued jobs that are to be cancelled or paused, wherever they stand."""
        with self._database.read() as connection:
            return reading.queued_with_wishes(connection)

    def running(self) -> builtins.list[Job]:
        """The jobs that have an attempt at work, trials of studies aside."""
        with self._database.read() as connection:
            return reading.running(connection, trials=False)

    def running_trials(self) -> builtins.list[Job]:
        """The trials of studies that have an attempt at work."""
        with self._database.read() as connection:
            return reading.running(connection, trials=True)

    def at_work(self) -> builtins.list[Job]:
        """The jobs that have an attempt at work, trials of studies among them."""
        with self._database.read() as connection:
            return reading.running(connection, trials=None)

    def executors_at_work(self) -> frozenset[str]:
        """The executors of the attempts at work."""
        with self._database.read() as connection:
            return reading.executors_at_work(connection)

    def ahead_of(self, job: Job) -> int:
        """How many queued jobs start before this one."""
        with self._database.read() as connection:
            return reading.ahead_of(connection, job, now_us())

    def forks_of(self, job_id: str, limit: int | None = None) -> builtins.list[str]:
        """Ids of the jobs (the first ``limit``) that were forked from this one, oldest first."""
        with self._database.read() as connection:
            return reading.forks_of(connection, job_id, limit)

    def oldest_queued_at(self) -> datetime | None:
        """When the job that has been queued longest was submitted; None where none is."""
        with self._database.read() as connection:
            return reading.oldest_queued_at(connection)

    def count_by_state(self) -> dict[JobState, int]:
        """How many jobs are in each state; every state is there."""
        with self._database.read() as connection:
            return reading.count_by_state(connection)

    def count_unfinished(self) -> dict[tuple[JobState, Reason], int]:
        """How many jobs have not ended, by state and reason; what none has is not there."""
        with self._database.read() as connection:
            return reading.count_unfinished(connection)

    # --- uploaded data sets -------------------------------------------------------------------

    def uploads(self) -> builtins.list[Upload]:
        """All uploaded data sets by name."""
        with self._database.read() as connection:
            return datasets.uploads(connection)

    def upload(self, name: str) -> Upload | None:
        """The uploaded data set of that name, or None."""
        with self._database.read() as connection:
            return datasets.upload(connection, name)

    def is_content_used(self, digest: str) -> bool:
        """Whether a name points at the content, or a job or a study pins it."""
        with self._database.read() as connection:
            return datasets.is_content_used(connection, digest)

    def is_split_used(self, digest: str, split_seed: int) -> bool:
        """Whether a job that has not ended pins the content and splits it by that seed."""
        with self._database.read() as connection:
            return datasets.is_split_used(connection, digest, split_seed)

    # --- results ------------------------------------------------------------------------------

    def events(
        self,
        job_id: str,
        after: int = 0,
        limit: int = 1000,
        kinds: Sequence[str] | None = None,
        attempt: int | None = None,
    ) -> builtins.list[JobEvent]:
        """The job's events with a number above ``after``, in order; None does not filter."""
        with self._database.read() as connection:
            return reading.events(connection, job_id, after, limit, kinds, attempt)

    def tail(self, job_id: str, after: int, limit: int) -> tuple[Job, builtins.list[JobEvent]]:
        """The job and its events with a number above ``after``, in one state of the database;
        raises JobNotFound."""
        with self._database.read() as connection:
            return reading.tail(connection, job_id, after, limit)

    def last_events(
        self,
        job_id: str,
        kinds: Sequence[str],
        limit: int,
        before: int | None = None,
        attempt: int | None = None,
    ) -> builtins.list[JobEvent]:
        """The job's events of these kinds with a number below ``before``, the newest first."""
        with self._database.read() as connection:
            return reading.last_events(connection, job_id, before, limit, kinds, attempt)

    def last_seq(self, job_id: str) -> int:
        """The number of the job's last event; raises JobNotFound."""
        with self._database.read() as connection:
            return reading.last_seq(connection, job_id)

    def metric_names(self, job_id: str) -> builtins.list[str]:
        """The names of the job's metrics, in the order of the alphabet."""
        with self._database.read() as connection:
            return reading.metric_names(connection, job_id)

    def metrics(
        self, job_id: str, names: Sequence[str] | None = None, at_most: int | None = None
    ) -> dict[str, builtins.list[MetricPoint]]:
        """The job's curves by name, each ordered by step; of a curve with more than ``at_most``
        points evenly chosen ones, its first and its last among them.

        A later attempt that resumed from a step replaces the points of earlier ones beyond it.
        """
        with self._database.read() as connection:
            return reading.metrics(connection, job_id, names, at_most)

    def checkpoints(self, job_id: str) -> builtins.list[CheckpointInfo]:
        """The job's checkpoints by step; of two with one step, the later attempt's."""
        with self._database.read() as connection:
            return reading.checkpoints(connection, job_id)

    def artifacts(self, job_id: str) -> builtins.list[ArtifactInfo]:
        """The job's artifacts by name; of two with one name, the later attempt's."""
        with self._database.read() as connection:
            return reading.artifacts(connection, job_id)
