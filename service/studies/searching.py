"""A study's search: what its driver says is carried out, and what its trials measure is told."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from service.cluster.base import Drivers
from service.errors import CheckpointNotFound, StateConflict
from service.jobs import FINAL_STATES, JobState
from service.jobstore import JobStore
from service.studies.channel import (
    SAID,
    Continued,
    Ended,
    Exchanged,
    Over,
    Paused,
    Reported,
    Result,
    Said,
    Searched,
    Setup,
    Stored,
    Suggested,
    Told,
)
from service.studies.course import Course, configurations, is_whole
from service.studies.ledger import Phase, StudyReason, Trial
from service.studies.objective import most_epochs
from service.studies.population import is_population
from service.studies.readings import common
from service.studies.replaying import Known, as_told, known, mean
from service.studies.request import NoScheduler
from service.studies.trying import Trying
from workers.errors import ArtifactNotFound, CheckpointError
from workers.run import StudyStop

EXCHANGES = 20  # in one round; a driver that has more to say goes on in the next


class Searching:
    """Carries out what drivers say, and tells them what they wait for."""

    def __init__(self, jobs: JobStore, drivers: Drivers, trying: Trying) -> None:
        self._jobs = jobs
        self._drivers = drivers
        self._trying = trying

    def begin(self, course: Course, name: str, places: int) -> None:
        """Start the study's driver, told of all that its ledger knows."""
        request = course.study.request
        trials = course.in_phase(Phase.SEARCH)
        results = self._jobs.ledger.results(course.study.id)
        # A population is told its past again from the beginning, result by result.
        is_replayed = not is_population(request)
        setup = Setup(
            request=request,
            known=self.known(course) if is_replayed else (),
            told=as_told(trials, results) if is_replayed else (),
            at_once=max(1, -(-places // len(request.seeds))),
            most_epochs=most_epochs(request),
        )
        course.driver, course.has_begun = name, True
        for result in setup.told:
            course.told[result.trial] = max(course.told.get(result.trial, 0), result.epoch)
        self._drivers.start_driver(name, setup.model_dump_json())

    def known(self, course: Course) -> tuple[Known, ...]:
        """What the ledger knows of the search. A configuration whose trials came to their end while
        nobody told a scheduler of it, goes on: with results alone."""
        trials = course.in_phase(Phase.SEARCH)
        found, of = [], configurations(trials)
        results = self._jobs.ledger.results(course.study.id)
        for one in known(trials, results, len(course.study.request.seeds)):
            ends = [course.readings.last_epoch(trial) for trial in of[one.number]]
            told = one.history[-1][0] if one.history else 0
            if one.standing == "finished" and all(end is not None and end > told for end in ends):
                one = replace(one, standing="unfinished")
            found.append(one)
        return tuple(found)

    def look(self, course: Course) -> None:
        """Take in what the trials have measured since, for the driver."""
        for trial in course.in_phase(Phase.SEARCH):
            if trial.configuration in course.wanted:
                course.readings.read(trial)
                self._stop_unhealthy(course, trial)
                self._continue(course, trial)
        self._feed(course)

    def converse(self, course: Course) -> str | None:
        """Hear and tell until there is nothing more; why the driver is gone, if it is.

        Raises StateConflict where the study has another driver.
        """
        assert course.driver is not None
        for _ in range(EXCHANGES):
            outbox, course.outbox = course.outbox, []
            heard = self._drivers.exchange(course.driver, outbox)
            course.inbox.extend(heard.lines)
            while course.inbox:  # what the store fails at, is carried out in a later round
                self._carry_out(course, SAID.validate_json(course.inbox[0]))
                course.inbox.popleft()
            if heard.is_gone:
                return heard.detail
            if not heard.lines and not course.outbox:
                return None
        return None

    # --- what the driver says -----------------------------------------------------------------

    def _carry_out(self, course: Course, said: Said) -> None:
        match said:
            case Suggested():
                self._try(course, said)
            case Reported():
                self._store(course, said)
            case Paused(configuration=number):
                course.paused.add(number)
                # Those of a population pause by themselves; it may be the past that is told.
                if course.until(number) is None:
                    self._wish(course.of(number), self._pause)
            case Continued(configuration=number):
                course.paused.discard(number)
                self._wish(filter(course.may_train, course.of(number)), self._resume)
            case Exchanged():
                self._exchange(course, said)
            case Over(configuration=number):
                if isinstance(course.study.request.scheduler, NoScheduler):
                    course.losses = 0  # which is the first that it says of a trial's results
                self._leave(course, number)
            case Searched():
                course.is_searched = True

    def _try(self, course: Course, said: Suggested) -> None:
        study = course.study
        trials = self._trying.store(
            study, said.configuration, said.values, study.request.seeds, Phase.SEARCH
        )
        course.add(trials)
        course.wanted.add(said.configuration)
        for trial in trials:
            course.readings.read(trial)
        if said.configuration not in course.paused:
            begun = [trial for trial in trials if trial.state is not JobState.QUEUED]
            self._wish(filter(course.may_train, begun), self._resume)
        self._feed_one(course, said.configuration)
        self._tell(course, Stored())  # the last, as what the store refuses is carried out again

    def _store(self, course: Course, said: Reported) -> None:
        if self._store_results(course, said.configuration, [said.epoch]):
            course.losses = 0
        course.at[said.configuration] = said.epoch
        self._tell(course, Stored())

    def _store_results(self, course: Course, number: int, epochs: Sequence[int]) -> bool:
        """Whether any is new, and not one that a driver before had stored."""
        if not epochs:
            return False
        now = datetime.now(UTC)
        trials = course.of(number)
        reported = [(t.number, e, course.readings.of(t)[e]) for e in epochs for t in trials]
        stored = self._jobs.ledger.add_results(course.study, reported, now)
        return any(result.at == now for result in stored)

    def _exchange(self, course: Course, said: Exchanged) -> None:
        """Store those that go on from others' checkpoints; what they were before, is over."""
        for one in said.takeovers:
            try:
                trials = self._trying.take_over(course.study, one, said.epoch, course.of(one.of))
            except (CheckpointNotFound, ArtifactNotFound, CheckpointError, ValueError) as error:
                why = (
                    f"Configuration {one.of} cannot be gone on from at epoch {said.epoch}: {error}."
                )
                course.failure = StudyReason.INTERNAL_ERROR, why
                return
            course.add(trials)
            for trial in trials:
                course.readings.read(trial)
            self._leave(course, one.instead_of)
            course.wanted.add(one.configuration)
            course.paused.add(one.configuration)
            course.at[one.configuration] = said.epoch
        for one in said.takeovers:
            self._feed_one(course, one.configuration)
        self._tell(course, Stored())

    def _leave(self, course: Course, number: int) -> None:
        """Nothing more is wanted of a configuration."""
        course.wanted.discard(number)
        course.paused.discard(number)
        trials = course.of(number)
        self._stop(course, trials)
        for trial in trials:
            course.readings.forget(trial)

    def _stop(
        self, course: Course, trials: Iterable[Trial], reason: StudyStop = "stopped_by_study"
    ) -> None:
        for trial in trials:
            if trial.state not in FINAL_STATES:
                course.stopping.setdefault(trial.number, reason)

    def _stop_unhealthy(self, course: Course, trial: Trial) -> None:
        """One that is past help, and with it those of its configuration on other seeds."""
        verdict = course.readings.verdict(trial)
        if verdict is not None and trial.state not in FINAL_STATES:
            self._stop(course, [trial], verdict)
            self._stop(course, course.of(trial.configuration))

    def _continue(self, course: Course, trial: Trial) -> None:
        """One of a population whose attempt came to its end at a rung after it was continued."""
        if (
            course.until(trial.configuration) is not None
            and trial.state is JobState.PAUSED
            and trial.configuration not in course.paused
            and course.may_train(trial)
        ):
            self._wish([trial], self._resume)

    def _wish(self, trials: Iterable[Trial], wish: Callable[[Trial], None]) -> None:
        for trial in trials:
            if trial.state not in FINAL_STATES:
                wish(trial)

    def _pause(self, trial: Trial) -> None:
        with contextlib.suppress(StateConflict):  # it has ended, or is being cancelled
            self._jobs.request_pause(trial.job_id)

    def _resume(self, trial: Trial) -> None:
        with contextlib.suppress(StateConflict):
            self._jobs.resume(trial.job_id)

    def keep_last(self, course: Course) -> None:
        """Store what the configurations that a limit has cut off had measured, if they came to
        their own end: the driver was ended before it was told."""
        for number in sorted(course.cut_off):
            trials = course.of(number)
            if not is_whole(trials, len(course.study.request.seeds)):
                continue
            for trial in trials:
                course.readings.read(trial)
            epochs = common([course.readings.of(trial) for trial in trials])
            self._store_results(course, number, epochs)

    # --- what it is told ----------------------------------------------------------------------

    def _feed(self, course: Course) -> None:
        for number in sorted(course.wanted):
            self._feed_one(course, number)

    def _feed_one(self, course: Course, number: int) -> None:
        """Tell new results of a configuration, and its end; where no scheduler decides by what
        comes before its end, that is stored without asking."""
        trials = course.of(number)
        readings = [course.readings.of(trial) for trial in trials]
        last = course.told.get(number, 0)
        new = [epoch for epoch in common(readings) if epoch > last]
        if isinstance(course.study.request.scheduler, NoScheduler):
            self._store_results(course, number, new)
        else:
            for epoch in new:
                self._tell(course, _result(number, epoch, readings))
        if new:
            last = course.told[number] = new[-1]
        if number in course.ended:
            return
        states = {trial.state for trial in trials}
        is_failed = bool(states & {JobState.FAILED, JobState.CANCELLED})
        if not is_failed and states != {JobState.SUCCEEDED}:
            return
        course.ended.add(number)
        metrics = {} if not last else _result(number, last, readings).metrics
        self._tell(
            course,
            Ended(
                configuration=number,
                is_failed=is_failed or not last,
                epoch=last,
                metrics=metrics,
            ),
        )

    def _tell(self, course: Course, told: Told) -> None:
        course.outbox.append(told.model_dump_json())


def _result(
    number: int, epoch: int, readings: Sequence[Mapping[int, Mapping[str, float]]]
) -> Result:
    metrics = mean([one[epoch] for one in readings])
    return Result(configuration=number, epoch=epoch, metrics=metrics)
