"""Reconciles what should run with what runs; the only writer of job state after submission.

One round: follow the attempts that run, cancel and start what is queued. Every fact comes from
where it has its one writer: wishes from the database, events and outcomes from the artifact
store, processes from the cluster. Nothing is remembered here that a restart would need.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from service.attempts import Attempts
from service.cluster.base import Cluster, ClusterDown, ClusterUnavailable
from service.errors import NotLeading, NotReady, StateConflict
from service.jobs import Job, JobState, Reason
from service.jobstore import JobStore
from service.log_lines import about
from service.queueing import holders_in_words, waits_for
from service.studies.ledger import Study
from service.studies.running import Studies
from workers.errors import StoreAway, StoreError
from workers.tracing import trace_id

log = logging.getLogger(__name__)

ROUND_INTERVAL_S = 0.1
QUIET_INTERVAL_S = 1.0  # between rounds while nothing runs; a submission wakes the watcher
SHARED_QUIET_S = 0.25  # the same where other services take submissions and wishes, too
FOLLOWING_INTERVAL_S = 0.5  # while another service leads
REJOIN_INTERVAL_S = 2.0
AWAY_INTERVAL_S = 2.0  # while the store is away; a wish wakes the watcher
WIND_DOWN_INTERVAL_S = 0.05
WIND_DOWN_S = 10.0  # beyond the grace time, for what has to be killed
AT_A_TIME = 8  # queued jobs looked at in one round; the next round comes at once
EXPLAINED = 100  # queued jobs whose reason is kept up to date; those behind wait for these
EXPLAIN_INTERVAL_S = 1.0


def _turn(waiting: Job | Study) -> tuple[int, datetime, str]:
    priority = waiting.priority if isinstance(waiting, Job) else 0
    return -priority, waiting.created_at, waiting.id


class Watcher:
    """Runs its rounds in a thread of its own from ``start`` to ``stop``.

    ``trouble`` says what was wrong with the last round, ``last_round_at`` when it was
    (time.monotonic), and ``store_trouble`` what was wrong with the artifact store, which holds up
    nothing but what needs it. ``leads`` says whether this service is the one that watches; ``jobs``
    refuses what it writes otherwise.
    """

    def __init__(
        self,
        jobs: JobStore,
        cluster: Cluster,
        attempts: Attempts,
        studies: Studies,
        *,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._jobs = jobs
        self._cluster = cluster
        self._attempts = attempts
        self._studies = studies
        self._leads = leads
        self._has_led = self._led_before = False
        self._news = threading.Event()
        self._woken = threading.Event()
        self._end_told = threading.Event()
        self._rested_at = float("-inf")  # time.monotonic; when a round for an end alone may be
        self._round_at = float("-inf")  # time.monotonic; when the next round is due
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher")
        self._grace_s = 0.0
        self._explained_at = float("-inf")
        self.last_round_at = time.monotonic()
        self.trouble: str | None = None
        self.store_trouble: StoreError | None = None

    def wake(self) -> None:
        """From any thread: there is something to do."""
        self._woken.set()
        self._news.set()

    def hear(self) -> None:
        """From any thread: the driver of a study has spoken, and waits for an answer. It has one at
        once, and not a round, which is due soon enough."""
        self._news.set()

    def hear_end(self) -> None:
        """From any thread: an attempt has ended. A round comes at once, but no more than half of
        the time is rounds, as each looks at all that runs."""
        self._end_told.set()
        self._news.set()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self, grace_s: float) -> None:
        """End. Attempts on an own cluster publish a checkpoint within the grace time, and go on at
        the next start; those on a joined cluster run on."""
        self._grace_s = grace_s
        self._stopping.set()
        self._news.set()
        self._thread.join()

    def round(self) -> bool:
        """One round; returns whether attempts or studies are running."""
        self._follow_all()
        for job in self._jobs.queued_with_wishes():
            self._grant(job)
        has_studies = self._attend_studies()
        trouble = self._attempts.store_trouble()
        if not isinstance(trouble, StoreAway):
            trouble = self._serve_queue() or trouble
        known = self._jobs.executors_at_work()
        self._require_lead()  # another leader's executors would be strangers
        self._cluster.tend(known | self._studies.names(), self._studies.spares())
        self.store_trouble = trouble
        return has_studies or bool(known) or self._studies.are_taken_up

    def _follow_all(self) -> None:
        """Bring every running job up to date. Where the store is away for one, it is for all, and
        the others' requests would only wait: their wishes do not."""
        is_away = False
        for job in self._jobs.at_work():
            error = self._attend(job, self._attempts.heed if is_away else self._attempts.follow)
            is_away = is_away or isinstance(error, StoreAway)

    def _grant(self, job: Job) -> None:
        """A queued job has nothing that must end first. What is asked meanwhile, is for the next
        round."""
        to, reason, message = JobState.PAUSED, Reason.PAUSED, "Paused; resume lets it go on."
        if job.cancel_requested:
            to, reason, message = JobState.CANCELLED, Reason.CANCELLED, "Cancelled before it ran."
        with contextlib.suppress(StateConflict):
            self._attempts.settle(job, to, reason, message)

    def _attend(self, job: Job, work: Callable[[Job], None]) -> StoreError | None:
        """Do this for one job; what is wrong with it alone does not hold up the others. Returns
        what was wrong with the store."""
        self._require_lead()
        with about(job=job.id, attempt=job.attempt, trace=trace_id(job.traceparent)):
            try:
                work(job)
            except StateConflict as error:
                log.info("%s: %s", job.id, error)
            except StoreError as error:
                log.warning("%s: artifact store: %s", job.id, error)
                return error
            except (ClusterDown, NotReady):
                raise
            except Exception:
                log.exception("%s cannot be followed", job.id)
        return None

    def _attend_studies(self) -> bool:
        """Bring every running study up to date; returns whether there is any."""
        running = self._studies.running()
        self._for_each(running, self._studies.attend)
        return bool(running)

    def _for_each(self, studies: Iterable[Study], work: Callable[..., None]) -> None:
        """Do this for each study by itself; what is wrong with one does not hold up the others."""
        # What is started while the store is away, could only wait for it and hold resources.
        may_start = not isinstance(self._attempts.store_trouble(), StoreAway)
        for study in studies:
            self._require_lead()
            try:
                with about(study=study.id):
                    work(study, may_start=may_start)
            except StateConflict as error:
                log.info("%s: %s", study.id, error)
            except StoreError as error:
                log.warning("%s: artifact store: %s", study.id, error)
            except (ClusterDown, NotReady):
                raise
            except Exception:
                log.exception("%s cannot be attended to", study.id)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            interval = REJOIN_INTERVAL_S
            try:
                interval = self._work()
            except Exception:
                self.trouble = "the last round failed; the log says why"
                log.exception("a round of the watcher failed")
            self.last_round_at = time.monotonic()
            self._news.wait(interval)
            self._news.clear()
        if self._cluster.own and self._leads():
            self._wind_down()

    def _work(self) -> float:
        """A round, or what must come before the next one can; seconds to that."""
        try:
            interval = self._lead_or_follow()
        except ClusterDown as error:
            log.warning("%s; starting or joining it again", error)
            self._rejoin(str(error))
            return REJOIN_INTERVAL_S
        except NotLeading as error:
            log.warning("%s", error)
            self._follow()
            return REJOIN_INTERVAL_S
        self.trouble = None
        return AWAY_INTERVAL_S if isinstance(self.store_trouble, StoreAway) else interval

    def _lead_or_follow(self) -> float:
        """A round where one is due, or else what drivers wait for; or a look at the cluster while
        another service leads. Seconds to the next."""
        if self._leads():
            if self._led_before:
                self._led_before = False
                if not self._cluster.own:
                    raise ClusterDown("this service leads again, and its executors may be gone")
            self._has_led = True
            due_at = self._rested_at if self._end_told.is_set() else self._round_at
            if not self._woken.is_set() and time.monotonic() < due_at:
                self._for_each(self._studies.searching(), self._studies.answer)
                return max(due_at - time.monotonic(), 0.0)
            self._woken.clear()
            self._end_told.clear()
            begun_at = time.monotonic()
            # Other services cannot wake this one.
            quiet_s = SHARED_QUIET_S if self._jobs.is_shared else QUIET_INTERVAL_S
            interval = ROUND_INTERVAL_S if self.round() else quiet_s
            now = time.monotonic()
            self._round_at, self._rested_at = now + interval, now + (now - begun_at)
            return interval
        self._follow()
        self._cluster.capacity()
        return FOLLOWING_INTERVAL_S

    def _follow(self) -> None:
        """Another service leads: what this one knows of attempts, studies and executors grows
        old."""
        self._led_before = self._has_led
        self._attempts.forget()
        self._studies.forget()
        self.store_trouble = None

    def _require_lead(self) -> None:
        """Before what no write of ours comes before; raises NotLeading."""
        if not self._leads():
            raise NotLeading

    def _wind_down(self) -> None:
        """The last rounds: every attempt publishes a checkpoint and ends. What cannot end in time,
        because of the store or the database, goes on from its last checkpoint all the same."""

        give_up_at = time.monotonic() + self._grace_s + WIND_DOWN_S
        try:
            while self._leads() and self._stop_running():
                if time.monotonic() > give_up_at:
                    log.warning("some jobs did not end; they go on from their last checkpoints")
                    return
                time.sleep(WIND_DOWN_INTERVAL_S)
        except ClusterDown as error:
            log.warning("%s; running jobs go on from their last checkpoints", error)

    def _stop_running(self) -> bool:
        """Stop every running job, each by itself; returns whether any may be left."""

        def stop(job: Job) -> None:
            self._attempts.stop(job, self._grace_s)

        try:
            self._studies.stop()
            running = self._jobs.at_work()
        except NotReady as error:
            log.warning("%s", error)
            return True
        for job in running:
            try:
                self._attend(job, stop)
            except NotReady as error:
                log.warning("%s: %s", job.id, error)
        return bool(running)

    def _rejoin(self, trouble: str) -> None:
        self.trouble = trouble
        try:
            self._cluster.rejoin()
        except ClusterUnavailable as error:
            self.trouble = str(error)
            log.warning("%s", error)

    def _serve_queue(self) -> StoreError | None:
        """Start queued jobs and studies in their order; one that does not fit holds up those behind
        it, or a large job would wait for ever behind small ones. One whose checkpoints the store
        does not show holds up nobody; returns what was wrong."""
        trouble: StoreError | None = None
        capacity = self._cluster.capacity()  # asked in every round, as it knows of a Ray that died
        queue = self._in_turn()
        if not queue:
            return None
        free = self._studies.free(capacity, self._jobs.at_work())
        for waiting in queue:
            if isinstance(waiting, Study):
                with contextlib.suppress(StateConflict):  # paused since it was read
                    left = self._studies.admit(waiting, free)
                    if left is None:
                        self._explain_queue(waiting)
                        break
                    free = left
                continue
            if not free.fits(waiting.spec.resources):
                self._explain_queue(waiting)
                break
            try:
                started = self._attempts.start(waiting)
            except StateConflict:  # paused since it was read
                continue
            except StoreError as error:
                log.warning("%s cannot be started: artifact store: %s", waiting.id, error)
                trouble = error
                continue
            if started.state is JobState.RUNNING:
                free = free.minus(waiting.spec.resources)
        return trouble

    def _in_turn(self) -> list[Job | Study]:
        """The first that wait, jobs and studies, by priority and age; studies have priority 0."""
        jobs = self._jobs.startable(AT_A_TIME)
        waiting: list[Job | Study] = [*jobs, *self._studies.queued()]
        found = sorted(waiting, key=_turn)
        if len(jobs) < AT_A_TIME:
            return found
        return found[: found.index(jobs[-1]) + 1]  # others may come before what is behind it

    def _explain_queue(self, head: Job | Study) -> None:
        """Tell the first jobs that wait what for, while the first of all finds no room, and that
        too where it is a study; now and then, as it means reading them all."""
        now = time.monotonic()
        if now - self._explained_at < EXPLAIN_INTERVAL_S:
            return
        self._explained_at = now
        studies = {study.id for study in self._jobs.ledger.in_state(JobState.RUNNING)}
        jobs = sum(job.study_id not in studies for job in self._jobs.at_work())
        if isinstance(head, Study):
            self._studies.say_waiting(head, jobs=jobs, studies=len(studies))
        held_by, capacity = holders_in_words(jobs, len(studies)), self._cluster.capacity()
        for job in self._jobs.startable(EXPLAINED):
            message = waits_for(job.spec.resources, capacity, held_by, head.id)
            with contextlib.suppress(StateConflict):  # paused since it was read
                self._attempts.explain(job, Reason.WAITING_FOR_RESOURCES, message)
