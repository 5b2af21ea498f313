"""Studies, as they are answered."""

from datetime import datetime
from typing import Any, Literal

from api.bodies.base import Body
from api.bodies.jobs import Intent, State
from api.bodies.problems import ProblemField

Phase = Literal["search", "confirmation"]
Mode = Literal["min", "max"]
Standing = Literal["searching", "confirming", "confirmed", "unconfirmed"]


class ObjectiveBody(Body):
    """What ranks the trials of a study."""

    metric: str
    """Its full name."""
    mode: Mode
    """Whether less or more of it is better."""


class TrialCountsBody(Body):
    """Trials of one phase by the state of their jobs."""

    queued: int
    running: int
    paused: int
    succeeded: int
    failed: int
    cancelled: int


class StudyProgressBody(Body):
    """How far a study is."""

    configurations: int
    """Configurations of the search that have begun."""
    search: TrialCountsBody
    """Trials of the search."""
    confirmation: TrialCountsBody
    """Trials on fresh seeds."""
    results: int
    """Results that trials have reported."""
    epochs: int
    """Epochs that the trials of the search have trained, all together."""
    searched_s: float
    """Seconds in which any trial of the search ran."""
    trials_left: int
    """Configurations of the budget that have not begun."""
    epochs_left: int | None
    """Epochs of the budget that are left to the search; null where there is no such limit."""
    wall_left_s: float | None
    """Seconds of the budget that are left to the search; null where there is no such limit."""


class BestSoFarBody(Body):
    """The best of the search: a candidate, whose value is too good to be true."""

    configuration: int
    """Its number."""
    values: dict[str, Any]
    """The tuned values by JSON pointer."""
    value: float
    """The objective on the search's seeds, which chose it: biased."""
    confirmed: Literal[False] = False
    """Never: see …/best."""


class StudySummary(Body):
    """A study, as it stands in a list."""

    id: str
    name: str
    state: State
    reason: str
    """Why it is in that state, a stable word for programs."""
    message: str
    """The same in words."""
    cancel_requested: bool
    """Whether somebody asked to cancel it; the state follows when nothing of it runs any more."""
    pause_requested: bool
    """Whether somebody asked to pause it; the state follows when nothing of it runs any more."""
    owner: str | None
    """Whose key made it: only that owner and an admin may change it; null where no key was
    needed."""
    is_overridden: bool
    """Whether it ranks by what the guard refuses, as it depends on what the study tunes."""
    objective: ObjectiveBody
    second_objective: ObjectiveBody | None
    """What is traded off against it; null where there is none."""
    tuned: list[str]
    """What it searches: JSON pointers into the spec."""
    searcher: str
    scheduler: str
    trainer: str
    """Kind of trainer of the base spec."""
    dataset: str | None
    """Name of the base spec's data set, or kind of toy."""
    trials: int
    """Trials so far, those on fresh seeds among them."""
    driver: int
    """Number of its driver, which rises with each start; 0 before the first."""
    version: int
    """Rises with state, wishes and budget; the ETag of the study."""
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    links: dict[str, str]
    """Paths of what belongs to the study."""


class StudyBody(StudySummary):
    """A study, whole."""

    progress: StudyProgressBody
    best_so_far: BestSoFarBody | None
    """The candidate of the search; null until a trial has ended with a result."""
    objections: list[ProblemField]
    """What the guard says against the objective, where it was overridden."""
    cautions: list[ProblemField]
    """What is allowed and may deceive, with its place in the request."""
    request: dict[str, Any]
    """The submission, with every default and the budget as it was last extended; it can be posted
    again."""


class StudyPageBody(Body):
    """One page of a list of studies, newest first."""

    studies: list[StudySummary]
    next_cursor: str | None
    """Give it as ?cursor= to get the next page; null on the last."""


class StudyIntentBody(Body):
    """The answer to a verb: the study as it is, and what will become of it."""

    intent: Intent
    """The state that the study is on its way to."""
    study: StudyBody


class StudyPlanBody(Body):
    """What a submission of a study would do at most; nothing is stored."""

    request: dict[str, Any]
    """The submission with every default, the full names of its metrics, and the quality that they
    need."""
    searcher: str
    scheduler: str
    configurations: int
    """Configurations that the search tries; fewer than the budget's trials where a grid ends."""
    trials: int
    """Trials of the search: configurations × seeds."""
    confirmation_trials: int
    """Trials on fresh seeds, for the answer."""
    epochs: int | None
    """Epochs of all trials together, those on fresh seeds too, where none is stopped early; null
    where runs end when they have converged."""
    cpus: int
    """Cores that it holds while it runs, for all concurrent trials."""
    gpus: int
    """GPUs that it holds while it runs."""
    memory_bytes: int
    """Estimated memory of the trials that run at one time."""
    storage_bytes: int
    """Estimated room for the checkpoints and grids of all trials, kept as long as the study."""
    duration_s: float | None
    """Estimated seconds from start to answer; null while nothing like a trial was measured."""
    core_s: float | None
    """Estimated core seconds of all trials; null as well."""
    basis: str
    """What the two rest on, or why they are not known."""
    waits_for: str
    """What the study would wait for, in words."""
    metrics: list[str]
    """Other metrics of its trials that could rank them."""
    is_overridden: bool
    """Whether it would rank by what the guard refuses."""
    objections: list[ProblemField]
    """What the guard says against the objective, where it is overridden."""
    cautions: list[ProblemField]
    """What is allowed and may deceive."""


class TrialBody(Body):
    """One trial of a study: a job."""

    number: int
    """Counts the trials of the study from 1."""
    configuration: int
    """Trials with the same number differ in the seed alone."""
    values: dict[str, Any]
    """The tuned values by JSON pointer; what is conditional and not there is left out."""
    seed: int
    phase: Phase
    """``search``, or ``confirmation`` on a fresh seed."""
    job: str
    """Id of the job that it is."""
    state: State
    reason: str
    """Why its job is in that state; ``stopped_by_study`` where its scheduler did that."""
    message: str
    epoch: int | None
    """Epochs after which it has reported last; null before it has."""
    metrics: dict[str, float | None]
    """What it has reported last."""
    is_whole: bool
    """Whether that is of its own end: only then it compares with others."""
    created_at: datetime
    ended_at: datetime | None
    links: dict[str, str]


class TrialPage(Body):
    """One page of a study's trials, in their order."""

    trials: list[TrialBody]
    next_cursor: str | None
    """Give it as ?cursor= to get the next page; null on the last."""
