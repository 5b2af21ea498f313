"""The best of a study, said honestly: by fresh seeds, with an interval and with its like.

See service.studies.ranking. Other distances are a check, in the same features and in others: they
may order the same models otherwise, and then no one number decides.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from service.jobs import FINAL_STATES
from service.studies.guard import DISTANCES, SHARES, better, measure_of
from service.studies.population import Stretch, is_population, schedule
from service.studies.ranking import Interval, Ranking, Reversals, rank, reversals, top
from service.studies.standings import Standings
from workers.spec import IcaSpec

Stage = Literal["searching", "confirming", "confirmed", "unconfirmed"]


@dataclass(frozen=True, slots=True)
class Check:
    """How another measure of the confirmed configurations orders them."""

    metric: str
    means: Mapping[int, float]
    best: int
    reversals: Reversals

    @property
    def agrees(self) -> bool:
        """Whether it has the same best, and reverses no pair."""
        return self.reversals.best_was == 1 and self.reversals.reversed_pairs == 0


@dataclass(frozen=True, slots=True)
class Best:
    """What can be said of the best.

    Before confirmation ``configuration`` is the search's candidate and ``ranking`` is None.
    ``search_values`` chose the candidates, and are too good to be true. ``fresh`` has the values on
    fresh seeds, {configuration: {seed: value}}. ``schedule`` is that of the scale which a
    population has found, None of other studies. ``shares`` are the means of the confirmed best's
    precision, recall and their like on fresh seeds, by metric.
    """

    stage: Stage
    message: str
    configuration: int | None
    values: Mapping[int, Mapping[str, Any]]
    search_values: Mapping[int, float]
    fresh: Mapping[int, Mapping[int, float]]
    ranking: Ranking | None
    checks: tuple[Check, ...]
    schedule: tuple[Stretch, ...] | None = None
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def interval(self) -> Interval | None:
        """That of the best on fresh seeds."""
        return None if self.ranking is None else self.ranking.interval


def candidate(standings: Standings) -> int | None:
    """The best of the search at full budget, or else of what has ended early; None without any."""
    objective = standings.study.request.objective
    for values in (standings.searched(objective.metric), standings.reached(objective.metric)):
        if found := top(values, 1, objective.mode):
            return found[0]
    return None


def best(standings: Standings) -> Best:
    """The best of a study as far as it is known."""
    objective = standings.study.request.objective
    searched = standings.searched(objective.metric)
    fresh = standings.fresh(objective.metric)
    shown = {**standings.reached(objective.metric), **_finite(searched)}
    stage, ranking = _stage(standings, fresh, searched)
    number = candidate(standings) if ranking is None else ranking.best
    stretches = None
    if number is not None and is_population(standings.study.request):
        stretches = schedule(standings.values[number])
    return Best(
        stage=stage,
        message=_message(stage, standings, number),
        configuration=number,
        values=standings.values,
        search_values=shown,
        fresh=fresh,
        ranking=ranking,
        checks=() if ranking is None else _checks(standings, ranking),
        schedule=stretches,
        shares={} if ranking is None else _shares(standings, ranking.best),
    )


def _finite(values: Mapping[int, float]) -> dict[int, float]:
    return {number: value for number, value in values.items() if math.isfinite(value)}


def _stage(
    standings: Standings,
    fresh: Mapping[int, Mapping[int, float]],
    searched: Mapping[int, float],
) -> tuple[Stage, Ranking | None]:
    if standings.is_confirming:
        return ("confirming" if fresh else "searching"), None
    if any(values and all(map(math.isfinite, values.values())) for values in fresh.values()):
        return "confirmed", rank(fresh, searched, standings.study.request.objective.mode)
    return ("unconfirmed" if standings.study.state in FINAL_STATES else "searching"), None


def _message(stage: Stage, standings: Standings, number: int | None) -> str:
    request = standings.study.request
    metric, seeds = request.objective.metric, len(request.confirmation.seeds)
    told = "It has no result yet." if number is None else "Its candidate is the search's own best,"
    biased = "" if number is None else " whose value is too good to be true."
    match stage:
        case "searching":
            text = f"The search goes on. {told}{biased}"
        case "confirming":
            text = f"The candidates are being trained again on {seeds} fresh seeds. {told}{biased}"
        case "unconfirmed":
            text = f"The study has ended without confirming anything. {told}{biased}"
        case "confirmed":
            text = (
                f"The best by {metric} on fresh seeds that chose nothing. It cannot be told from "
                "those listed beside it."
            )
            if isinstance(request.spec, IcaSpec):
                text += (
                    " Fresh seeds change where a fit of ica begins and not its data, so the "
                    "interval says how far fits differ, and not how far data do."
                )
            if standings.study.state not in FINAL_STATES:
                text += " The study goes on, and may find a better one."
    if is_population(request):
        text += (
            " The answer of pbt is a schedule of the scale over the epochs, and no scale: that "
            "among the values is the last one."
        )
    if standings.study.is_overridden:
        text += (
            f" The guard was overridden: {metric} depends on what is tuned, so this may say "
            "nothing about the models."
        )
    return text


def _checks(standings: Standings, ranking: Ranking) -> tuple[Check, ...]:
    """The distances of confirmed trials that are not the objective, in whatever features."""
    objective = standings.study.request.objective
    own = measure_of(objective.metric)
    if own is None:
        return ()
    found = []
    for metric in standings.metrics:
        measure = measure_of(metric)
        if measure is None or measure[0] not in DISTANCES or measure == own:
            continue
        means = {n: mean for n, mean in _means(standings, metric).items() if n in ranking.means}
        if len(means) < 2:
            continue
        sign = -1.0 if objective.mode == "max" else 1.0
        theirs = -1.0 if better(metric) == "max" else 1.0
        costs = {number: sign * ranking.means[number] for number in means}
        others = {number: theirs * mean for number, mean in means.items()}
        order = reversals(others, costs, "min")
        found.append(Check(metric, means, top(means, 1, "min")[0], order))
    return tuple(found)


def _shares(standings: Standings, number: int) -> dict[str, float]:
    found = {}
    for metric in standings.metrics:
        measure = measure_of(metric)
        if measure is not None and measure[0] in SHARES:
            means = _means(standings, metric)
            if number in means:
                found[metric] = means[number]
    return found


def _means(standings: Standings, metric: str) -> dict[int, float]:
    """Over fresh seeds, of the configurations that have it on all of them."""
    return {
        number: math.fsum(by_seed.values()) / len(by_seed)
        for number, by_seed in standings.fresh(metric).items()
        if all(map(math.isfinite, by_seed.values()))
    }
