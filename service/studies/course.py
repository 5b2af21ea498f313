"""What the watcher holds of a running study between two rounds; a restart may forget it."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from service.jobs import BY_STUDY, FINAL_STATES, JobState
from service.jobstore import JobStore
from service.studies.ledger import Phase, Study, StudyReason, Trial
from service.studies.population import next_rung
from service.studies.readings import Readings
from service.studies.request import Pbt
from workers.kinds import epochs
from workers.run import StudyStop


@dataclass
class Course:
    """Of one study.

    ``driver`` is the name of its driver while there is one, ``has_begun`` whether there ever was;
    ``outbox`` is what it is to be told next, ``inbox`` what it has said and was not carried out.
    ``wanted`` are the configurations that the driver has asked for and has not said to be over; of
    these ``paused`` give up their places. ``stopping`` are trials that are to end, each with the
    reason. ``told`` is the epoch up to which the driver has a configuration's results, or without a
    scheduler the ledger; ``at`` is that up to which the driver has had them stored. ``ended`` are
    those of whose end it was told; ``is_searched`` says that it has said all.

    ``ending`` is why the search is over, once it is, ``cut_off`` the configurations that were
    wanted when a limit was reached, ``candidates`` what is confirmed then, and ``noted`` the epoch
    up to which results of that are stored. ``failure`` is why the study fails.
    The driver was lost ``losses`` times with nothing done between, and starts again at ``start_at``
    (time.monotonic). ``looked_at`` is when its time was last asked for.
    """

    study: Study
    readings: Readings
    driver: str | None = None
    has_begun: bool = False
    outbox: list[str] = field(default_factory=list)
    inbox: deque[str] = field(default_factory=deque)
    wanted: set[int] = field(default_factory=set)
    paused: set[int] = field(default_factory=set)
    stopping: dict[int, StudyStop] = field(default_factory=dict)
    told: dict[int, int] = field(default_factory=dict)
    at: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    is_searched: bool = False
    ending: tuple[StudyReason, str] | None = None
    failure: tuple[StudyReason, str] | None = None
    losses: int = 0
    noted: dict[int, int] = field(default_factory=dict)
    start_at: float = 0.0
    cut_off: frozenset[int] = frozenset()
    candidates: tuple[int, ...] | None = None
    trials: dict[int, Trial] = field(default_factory=dict)
    looked_at: float = float("-inf")

    def forget_driver(self) -> None:
        """What the next driver knows, it is told anew."""
        self.driver = None
        self.outbox.clear()
        self.inbox.clear()
        self.wanted.clear()
        self.paused.clear()
        self.told.clear()
        self.at.clear()
        self.ended.clear()
        self.is_searched = False

    def refresh(self, jobs: JobStore) -> None:
        """Bring the trials up to date; those that have ended are read no more."""
        known_open = {n for n, trial in self.trials.items() if trial.state not in FINAL_STATES}
        found = {trial.number: trial for trial in jobs.ledger.open_trials(self.study.id)}
        if known_open - found.keys() or not self.trials:
            found = {trial.number: trial for trial in jobs.ledger.trials(self.study.id)}
        self.trials.update(found)

    def add(self, trials: Iterable[Trial]) -> None:
        """Trials that were stored just now, or are given again."""
        self.trials.update((trial.number, trial) for trial in trials)

    def of(self, configuration: int, phase: Phase = Phase.SEARCH) -> list[Trial]:
        """The trials of a configuration."""
        return [
            trial
            for trial in self.trials.values()
            if trial.configuration == configuration and trial.phase is phase
        ]

    def in_phase(self, phase: Phase) -> list[Trial]:
        """The trials of a phase, in their order."""
        return [trial for trial in self.trials.values() if trial.phase is phase]

    def still(self, *states: JobState) -> list[Trial]:
        """The trials in these states."""
        return [trial for trial in self.trials.values() if trial.state in states]

    def until(self, configuration: int) -> int | None:
        """The epoch at which trials of the search pause; None where they train to their end."""
        request = self.study.request
        if not isinstance(request.scheduler, Pbt):
            return None
        interval = request.scheduler.interval_epochs
        return next_rung(interval, epochs(request.spec), self.at.get(configuration, 0))

    def may_train(self, trial: Trial) -> bool:
        """Whether a trial of the search stands before the epoch at which it pauses."""
        until = self.until(trial.configuration)
        return until is None or max(self.readings.of(trial), default=0) < until


def configurations(trials: Sequence[Trial]) -> dict[int, list[Trial]]:
    """The trials by configuration."""
    found: dict[int, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.configuration, []).append(trial)
    return found


def is_whole(trials: Sequence[Trial], seeds: int) -> bool:
    """Whether all trials of a configuration have come to their own end."""
    return len(trials) >= seeds and all(
        trial.state is JobState.SUCCEEDED and trial.reason not in BY_STUDY for trial in trials
    )
