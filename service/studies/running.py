"""Studies as the watcher's rounds see them: from a place in the queue to their end.

A running study holds its allotment. Within it its trials start in the order of their numbers, as
soon as its driver asks for them; in the queue they count no more. The driver may die and be
replaced while trials run on: what it knew is in the ledger.
"""

import contextlib
import logging
import time
from collections.abc import Container, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from service.attempts import Attempts
from service.cluster.base import Capacity, Cluster
from service.errors import JobNotFound, StateConflict
from service.jobs import FINAL_STATES, Job, JobState
from service.jobstore import JobStore
from service.studies.allotment import beside, of_one_trial, places, without
from service.studies.confirming import candidates
from service.studies.course import Course, configurations
from service.studies.ledger import Phase, Study, StudyReason, Trial
from service.studies.population import is_population
from service.studies.readings import Readings
from service.studies.searching import Searching
from service.studies.trying import Trying
from workers.kinds import epochs
from workers.spec import Resources

log = logging.getLogger(__name__)

LOSSES = 3  # drivers in a row that die before any new result; then the study fails
BACKOFF_S, BACKOFF_MOST_S = 1.0, 60.0
LOOK_INTERVAL_S = 1.0
SEARCHING = "Its driver searches; GET its trials to see them."


class Studies:
    """Runs the studies of the ledger; the watcher's thread alone calls it."""

    def __init__(
        self,
        jobs: JobStore,
        cluster: Cluster,
        attempts: Attempts,
        trying: Trying,
    ) -> None:
        self._jobs = jobs
        self._cluster = cluster
        self._attempts = attempts
        self._trying = trying
        self._searching = Searching(jobs, cluster, trying)
        self._courses: dict[str, Course] = {}
        self._session = ""

    # --- the queue ----------------------------------------------------------------------------

    def queued(self) -> list[Study]:
        """The studies that wait for their allotment, oldest first."""
        return self._jobs.ledger.in_state(JobState.QUEUED)

    def free(self, capacity: Capacity, at_work: Iterable[Job]) -> Capacity:
        """What running studies leave, and jobs, also trials that run on after their study."""
        return beside(capacity, self._jobs.ledger.in_state(JobState.RUNNING), at_work)

    def admit(self, study: Study, free: Capacity) -> Capacity | None:
        """Start a queued study if what it holds is free; what is left then, or None."""
        count = self._places(study)
        left = without(free, study.request, count)
        if not count or not _is_enough(free, study, count):
            return None
        started = self._jobs.ledger.start(study, self._said_of_places(study, count))
        self._take_up(started)
        return left

    def _places(self, study: Study) -> int:
        """The trials that it runs at one time: its concurrency, or what the cluster can hold."""
        return places(study.request, self._cluster.capacity())

    def _said_of_places(self, study: Study, count: int) -> str:
        asked = study.request.concurrency
        if count == asked:
            return "Its driver is being started."
        return (
            f"Its driver is being started. Of {asked} trials at one time {count} fit into the "
            "cluster, so that many run."
        )

    def say_waiting(self, study: Study, *, jobs: int, studies: int) -> None:
        """Tell a queued study what it waits for, and whether jobs or studies hold that now."""
        count, one = self._places(study), of_one_trial(study.request)
        each = f"{one.workers} worker(s) with {one.cpus_per_worker} core(s)"
        if one.gpus_per_worker:
            each += f" and {one.gpus_per_worker} GPU(s)"
        # Without their numbers, as each message makes a version, which If-Match of a PATCH names.
        holding = [(jobs, "running jobs"), (studies, "running studies")]
        holders = " and ".join(words for number, words in holding if number)
        held_by = f", which {holders} hold" if holders else ""
        message = (
            f"Waits until {count} trial(s) at one time, each of {each}, find room{held_by}."
            if count
            else f"A trial needs {each}, which the cluster does not have: give it more, or cancel."
        )
        if study.message != message:
            with contextlib.suppress(StateConflict):
                self._jobs.ledger.explain(study, study.reason, message)

    # --- rounds -------------------------------------------------------------------------------

    def running(self) -> list[Study]:
        """The studies that run, oldest first; each is attended to in every round."""
        if self._session != self._cluster.session:  # the drivers of another one are gone
            self._session = self._cluster.session
            self._courses.clear()
        found = self._jobs.ledger.in_state(JobState.RUNNING)
        for gone in self._courses.keys() - {study.id for study in found}:
            del self._courses[gone]
        return found

    @property
    def are_taken_up(self) -> bool:
        """Whether any is held here, as one is from its admission on: the next round starts its
        driver."""
        return bool(self._courses)

    def names(self) -> frozenset[str]:
        """The drivers that are this service's."""
        return frozenset(c.driver for c in self._courses.values() if c.driver is not None)

    def spares(self) -> int:
        """The warm processes to have: one, or as many as studies will have trials at one time whose
        drivers are being started, which takes as long."""
        wanted = 0
        for course in self._courses.values():
            study = course.study
            is_beginning = course.driver is not None and study.reason is StudyReason.STARTING
            if is_beginning and of_one_trial(study.request) == Resources():
                wanted += max(0, self._places(study) - len(course.still(JobState.RUNNING)))
        return max(1, wanted)

    def stop(self) -> None:
        """The service stops, and its cluster with it: studies are queued again, and go on later."""
        for study in self._jobs.ledger.in_state(JobState.RUNNING):
            message = "The service was stopped; the study goes on when it is started again."
            with contextlib.suppress(StateConflict):
                self._jobs.ledger.settle(study, JobState.QUEUED, StudyReason.RECOVERING, message)
        self._courses.clear()

    def forget(self) -> None:
        """Another service leads the studies now, with drivers of its own."""
        self._courses.clear()

    def attend(self, study: Study, *, may_start: bool) -> None:
        """Bring a running study up to date. ``may_start`` is false while the store is away.

        Raises StateConflict where a wish came meanwhile: then the next round sees it.
        """
        course = self._courses.get(study.id)
        if course is None:  # of a service before, or of a cluster before
            study = self._jobs.ledger.next_driver(study, "Its next driver is being started.")
            course = self._take_up(study)
        elif study.request.budget != course.study.request.budget:
            self._end_driver(course)
            course.ending = course.candidates = None
        course.study = study
        course.refresh(self._jobs)
        if study.cancel_requested:
            self._cancel(course)
        elif study.pause_requested:
            self._pause(course)
        elif course.failure is not None:
            self._fail(course)
        else:
            self._go_on(course, may_start=may_start)

    def searching(self) -> list[Study]:
        """The studies with a driver, which may have spoken."""
        return [course.study for course in self._courses.values() if course.driver is not None]

    def answer(self, study: Study, *, may_start: bool) -> None:
        """Carry out what a study's driver has said, and tell it so; a round sees the rest.

        Raises StateConflict as ``attend``.
        """
        course = self._courses[study.id]
        if course.ending is None and course.failure is None:
            self._converse(course)
            self._stop_trials(course)
            if may_start:
                self._start_trials(course)

    def _take_up(self, study: Study) -> Course:
        course = Course(study, Readings(self._jobs, study.request))
        course.refresh(self._jobs)
        self._courses[study.id] = course
        return course

    def _go_on(self, course: Course, *, may_start: bool) -> None:
        if course.ending is None:
            course.ending = self._limit(course)
            if course.ending is not None:
                course.cut_off = frozenset(course.wanted)
        if course.ending is None:
            self._search(course)
        elif course.candidates is None:
            self._end_search(course)
        if course.candidates is not None:
            self._confirm(course)
        self._stop_trials(course)
        if may_start:
            self._start_trials(course)

    # --- the search ---------------------------------------------------------------------------

    def _search(self, course: Course) -> None:
        study = course.study
        if course.driver is None:
            if self._is_whole(course):
                course.ending = self._searched(course)
                return
            if time.monotonic() < course.start_at:
                return
            if course.has_begun:
                course.study = study = self._jobs.ledger.next_driver(
                    study, "Its next driver is being started."
                )
            name = f"driver-{study.id}-{study.attempt}"
            self._searching.begin(course, name, self._places(study))
            return
        self._searching.look(course)
        self._converse(course)

    def _converse(self, course: Course) -> None:
        study = course.study
        gone = self._searching.converse(course)
        if course.is_searched:
            course.ending = self._searched(course)
        elif gone is not None:
            self._lose(course, gone)
        elif study.reason is StudyReason.STARTING and course.wanted:
            course.study = self._jobs.ledger.explain(study, StudyReason.SEARCHING, SEARCHING)

    def _is_whole(self, course: Course) -> bool:
        """Whether the budget is spent, so that no driver is needed to see it."""
        found = configurations(course.in_phase(Phase.SEARCH))
        if len(found) < course.study.request.budget.trials:
            return False
        return all(one.standing != "unfinished" for one in self._searching.known(course))

    def _searched(self, course: Course) -> tuple[StudyReason, str]:
        found = len(configurations(course.in_phase(Phase.SEARCH)))
        size = course.study.request.budget.trials
        if is_population(course.study.request):
            message = f"The population of {size} was trained, with {found - size} takeovers."
            return StudyReason.COMPLETED, message
        if found >= size:
            return StudyReason.COMPLETED, f"All {found} configurations were tried."
        message = f"The space has no more than {found} configurations, and all were tried."
        return StudyReason.SPACE_EXHAUSTED, message

    def _limit(self, course: Course) -> tuple[StudyReason, str] | None:
        """The limit that the search has reached, if any."""
        budget = course.study.request.budget
        if budget.max_wall_s is not None and self._searched_s(course) > budget.max_wall_s:
            message = f"The search has used its {budget.max_wall_s:g} s (budget.max_wall_s)."
            return StudyReason.TIME_LIMIT, message
        if budget.max_epochs is not None:
            epochs = self._jobs.ledger.epochs(course.study.id)
            if epochs >= budget.max_epochs:
                message = f"The search has used its {budget.max_epochs} epochs (budget.max_epochs)."
                return StudyReason.EPOCH_LIMIT, message
        return None

    def _searched_s(self, course: Course) -> float:
        """The seconds of the search, asked for now and then: it means reading all its attempts."""
        now = time.monotonic()
        if now - course.looked_at < LOOK_INTERVAL_S:
            return 0.0
        course.looked_at = now
        return self._jobs.studies.searched_s(course.study.id)

    def _lose(self, course: Course, why: str) -> None:
        """The driver is gone: the next one starts later, or the study fails."""
        log.warning("%s has lost driver %d: %s", course.study.id, course.study.attempt, why)
        self._end_driver(course)
        course.losses += 1
        if course.losses >= LOSSES:
            message = f"Its driver was lost {course.losses} times without a new result: {why}."
            course.failure = StudyReason.DRIVER_LOST, message
            return
        backoff_s = min(BACKOFF_S * 2.0 ** (course.losses - 1), BACKOFF_MOST_S)
        course.start_at = time.monotonic() + backoff_s

    def _end_driver(self, course: Course) -> None:
        if course.driver is not None:
            self._cluster.end_driver(course.driver)
        course.forget_driver()

    # --- its end ------------------------------------------------------------------------------

    def _end_search(self, course: Course) -> None:
        """Choose what is confirmed, once nothing of the search runs any more.

        What a limit cuts off is paused: it goes on if the budget is raised. What has trained all
        its epochs comes to its end, and its last results count.
        """
        self._end_driver(course)
        self._stop_trials(course)
        searched = course.in_phase(Phase.SEARCH)
        trained = {trial.number for trial in searched if self._is_trained(trial)}
        if self._hush(course, searched, but=trained):
            return
        self._searching.keep_last(course)
        assert course.ending is not None
        reason, message = course.ending
        study, trials = course.study, course.in_phase(Phase.SEARCH)
        results = self._jobs.ledger.results(study.id)
        chosen = candidates(study.request, trials, results, course.readings)
        if not chosen and reason in (StudyReason.COMPLETED, StudyReason.SPACE_EXHAUSTED):
            why = f"{message} None has a result in {study.request.objective.metric} at its end."
            course.failure = StudyReason.NO_RESULT, why
            return
        course.candidates = chosen

    def _confirm(self, course: Course) -> None:
        study = course.study
        assert course.candidates is not None
        assert course.ending is not None
        reason, message = course.ending
        seeds = study.request.confirmation.seeds
        if course.candidates and study.reason is not StudyReason.CONFIRMING:
            best = f"The best {len(course.candidates)} are trained again"
            text = f"{message} {best} on {len(seeds)} fresh seeds."
            study = self._jobs.ledger.explain(study, StudyReason.CONFIRMING, text)
            course.study = study
        for number in course.candidates:
            if {trial.seed for trial in course.of(number, Phase.CONFIRMATION)} >= set(seeds):
                continue
            values = course.of(number)[0].values
            stored = self._trying.store(study, number, values, seeds, Phase.CONFIRMATION)
            course.add(stored)
        is_done = True
        for trial in course.in_phase(Phase.CONFIRMATION):
            is_done = is_done and trial.state in FINAL_STATES
            self._note(course, trial)
            if trial.configuration not in course.candidates:  # as it was, before an extension
                if trial.state not in FINAL_STATES:
                    course.stopping.setdefault(trial.number, "stopped_by_study")
            elif trial.state is JobState.PAUSED:
                self._jobs.resume(trial.job_id)
        if is_done:
            if not course.candidates:
                message += " No trial had come to its end, so that nothing could be confirmed."
            self._jobs.ledger.settle(study, JobState.SUCCEEDED, reason, message)

    def _note(self, course: Course, trial: Trial) -> None:
        """Store what a trial on a fresh seed has measured; no scheduler is told."""
        if trial.state is JobState.QUEUED:
            return
        course.readings.read(trial)
        noted = course.noted.get(trial.number, 0)
        new = {e: metrics for e, metrics in course.readings.of(trial).items() if e > noted}
        if new:
            reported = [(trial.number, epoch, metrics) for epoch, metrics in new.items()]
            self._jobs.ledger.add_results(course.study, reported, datetime.now(UTC))
            course.noted[trial.number] = max(new)

    def _cancel(self, course: Course) -> None:
        self._end_driver(course)
        left = course.still(JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)
        for trial in left:
            with contextlib.suppress(StateConflict):
                self._jobs.request_cancel(trial.job_id)
        if not left:
            self._jobs.ledger.settle(
                course.study, JobState.CANCELLED, StudyReason.CANCELLED, "Cancelled by request."
            )

    def _pause(self, course: Course) -> None:
        self._end_driver(course)
        if not self._hush(course, course.trials.values()):
            message = "Paused by request; resume lets it go on."
            self._jobs.ledger.settle(course.study, JobState.PAUSED, StudyReason.PAUSED, message)

    def _fail(self, course: Course) -> None:
        assert course.failure is not None
        self._end_driver(course)
        if not self._hush(course, course.trials.values()):
            self._jobs.ledger.settle(course.study, JobState.FAILED, *course.failure)

    def _is_trained(self, trial: Trial) -> bool:
        """Whether a trial that runs has all its epochs behind it, if not its end."""
        if trial.state is not JobState.RUNNING:
            return False
        job = self._jobs.get(trial.job_id)
        return job.progress is not None and job.progress.epoch >= epochs(job.spec)

    def _hush(
        self, course: Course, trials: Iterable[Trial], but: Container[int] = frozenset()
    ) -> bool:
        """Pause these trials, ``but`` some; returns whether any has not ended or paused yet."""
        left = [trial for trial in trials if trial.state in (JobState.QUEUED, JobState.RUNNING)]
        for trial in left:
            if trial.number not in course.stopping and trial.number not in but:
                with contextlib.suppress(StateConflict):
                    self._jobs.request_pause(trial.job_id)
        return bool(left)

    # --- its trials ---------------------------------------------------------------------------

    def _stop_trials(self, course: Course) -> None:
        """End those of which no more is wanted; what had ended by itself, stays as it was."""
        for number, reason in sorted(course.stopping.items()):
            trial = course.trials[number]
            if trial.state in FINAL_STATES:
                del course.stopping[number]
                continue
            with contextlib.suppress(StateConflict):
                self._attempts.stop_trial(self._jobs.get(trial.job_id), reason)

    def _start_trials(self, course: Course) -> None:
        """Start trials that wait, in their order, as far as the study's places go."""
        left = self._places(course.study) - len(course.still(JobState.RUNNING))
        now = datetime.now(UTC)
        for trial in course.still(JobState.QUEUED):
            if left <= 0:
                return
            if not self._is_wanted(course, trial):
                continue
            job = self._jobs.get(trial.job_id)
            if job.state is not JobState.QUEUED or (job.not_before or now) > now:
                continue
            is_search = trial.phase is Phase.SEARCH
            until = course.until(trial.configuration) if is_search else None
            with contextlib.suppress(StateConflict, JobNotFound):
                started = self._attempts.start(job, until)
                course.add([replace(trial, state=started.state)])
                left -= 1

    def _is_wanted(self, course: Course, trial: Trial) -> bool:
        if trial.phase is Phase.CONFIRMATION:
            return course.candidates is not None and trial.configuration in course.candidates
        number = trial.configuration
        return (
            number in course.wanted
            and number not in course.paused
            and trial.number not in course.stopping
            and course.may_train(trial)
        )


def _is_enough(free: Capacity, study: Study, count: int) -> bool:
    return places(study.request, free) >= count
