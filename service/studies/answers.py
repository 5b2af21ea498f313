"""What is asked about a study: how far it is, its trials, its best and what its results show."""

import hashlib
import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeVar

from service.errors import FieldError, InvalidQuery
from service.jobs import JobState
from service.jobstore import JobStore
from service.jobstore.cursor import Cursor, parse_cursor
from service.jobstore.studies import TrialFilter
from service.studies import best as ranked
from service.studies.curves import CurveAnswer, curves
from service.studies.figures import StudyFigures, study_figures
from service.studies.fronts import Front, front
from service.studies.importance import Evaluator, Importance, importance
from service.studies.ledger import Phase, Study
from service.studies.parallels import Parallels, parallels
from service.studies.standings import Outcome, Standings, StandingsCache, outcomes_of

T = TypeVar("T")
_KEPT = 64  # answers kept at hand, computed and written


@dataclass(frozen=True, slots=True)
class StudyProgress:
    """How far a study is; ``counts`` are trials by phase and state. ``epochs`` and ``searched_s``
    are what its budget counts: of the search."""

    counts: Mapping[tuple[Phase, JobState], int]
    configurations: int
    results: int
    epochs: int
    searched_s: float
    best: int | None
    best_values: Mapping[str, Any]
    best_value: float | None


class Answers:
    """Answers from the ledger; every method raises StudyNotFound and NotReady."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._standings = StandingsCache(jobs)
        self._lock = threading.Lock()
        self._computed: OrderedDict[Hashable, Any] = OrderedDict()

    def figures(self) -> StudyFigures:
        """Numbers about all studies."""
        return study_figures(self._jobs)

    def standings(self, study_id: str) -> Standings:
        """The outcomes of all its trials."""
        return self._standings.get(study_id)

    def etag(self, standings: Standings, *asked: object) -> str:
        """Hash of everything that determines an answer."""
        content = [standings.study.id, standings.stamp, *asked]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def progress(self, study: Study) -> StudyProgress:
        """How far a study is, and its candidate."""
        standings = self.standings(study.id)
        counts, configurations = self.once(standings, ("counts",), lambda: _counted(standings))
        number, value = self.once(standings, ("candidate",), lambda: _candidate(standings))
        return StudyProgress(
            counts=counts,
            configurations=configurations,
            results=standings.stamp[2],
            epochs=int(self._jobs.ledger.epochs(study.id)),
            searched_s=self._jobs.studies.searched_s(study.id),
            best=number,
            best_values={} if number is None else standings.values[number],
            best_value=value,
        )

    def trials(
        self, study_id: str, wanted: TrialFilter, cursor: str | None, limit: int | None
    ) -> tuple[Study, Sequence[Outcome], str | None]:
        """The study, a page of its trials in order with what they reported last, and the cursor
        of the next page; all of them without ``limit``. Raises InvalidQuery for a bad cursor."""
        study = self._jobs.ledger.get(study_id)
        after = 0
        if cursor is not None:
            ended = parse_cursor(cursor)
            if ended.job_id != study_id:
                problem = "is of another list; take it from this list's last page"
                raise InvalidQuery(
                    "the cursor is of another list", (FieldError("/query/cursor", problem),)
                )
            after = ended.created_us
        asked = None if limit is None else limit + 1
        found = self._jobs.studies.trials(study_id, wanted, after, asked)
        following = None
        if limit is not None and len(found) > limit:
            found = found[:limit]
            following = Cursor(found[-1].number, study_id).encode()
        only = None if limit is None else [trial.number for trial in found]
        last = self._jobs.studies.last_results(study_id, only)
        return study, outcomes_of(self._jobs, study, found, last, only), following

    # --- computed from them -------------------------------------------------------------------

    def best(self, standings: Standings) -> ranked.Best:
        """The best as far as it is known; see :mod:`service.studies.best`."""
        return self.once(standings, ("best",), lambda: ranked.best(standings))

    def curve(
        self, standings: Standings, pointers: Sequence[str], metric: str | None
    ) -> CurveAnswer:
        """A metric against parameters; see :func:`service.studies.curves.curves`."""
        study_id, studies = standings.study.id, self._jobs.studies

        def compute() -> CurveAnswer:
            return curves(
                standings,
                pointers,
                metric,
                lambda epochs, trials: studies.results_at(study_id, epochs, trials),
                studies.epochs(study_id),
            )

        return self.once(standings, ("curve", tuple(pointers), metric), compute)

    def front(self, standings: Standings, second: str | None) -> Front:
        """Two metrics against one another; see :func:`service.studies.fronts.front`."""
        return self.once(standings, ("front", second), lambda: front(standings, second))

    def importance(
        self, standings: Standings, metric: str | None, evaluator: Evaluator
    ) -> Importance:
        """How much each parameter matters; see :func:`service.studies.importance.importance`."""
        return self.once(
            standings,
            ("importance", metric, evaluator),
            lambda: importance(standings, metric, evaluator),
        )

    def parallels(self, standings: Standings, metric: str | None) -> Parallels:
        """Every trial as a line; see :func:`service.studies.parallels.parallels`."""
        return self.once(standings, ("parallels", metric), lambda: parallels(standings, metric))

    def once(self, standings: Standings, asked: Hashable, compute: Callable[[], T]) -> T:
        """What is computed, or was for the same question from the same standings."""
        key = (standings.study.id, standings.stamp, asked)
        with self._lock:
            if key in self._computed:
                self._computed.move_to_end(key)
                kept: T = self._computed[key]
                return kept
        found = compute()
        with self._lock:
            self._computed[key] = found
            while len(self._computed) > _KEPT:
                self._computed.popitem(last=False)
        return found


def _counted(standings: Standings) -> tuple[Mapping[tuple[Phase, JobState], int], int]:
    """The trials by phase and state, and the configurations of the search."""
    counts = Counter((one.trial.phase, one.trial.state) for one in standings.outcomes)
    return counts, len(standings.of(Phase.SEARCH))


def _candidate(standings: Standings) -> tuple[int | None, float | None]:
    """The search's best and its value, if it has any."""
    number = ranked.candidate(standings)
    if number is None:
        return None, None
    metric = standings.study.request.objective.metric
    values = (standings.searched(metric), standings.reached(metric))
    return number, next(found[number] for found in values if isfinite(found[number]))
