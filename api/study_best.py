"""The best of a study as a body."""

import math
from dataclasses import asdict

from api import bodies
from api.render import finite, study_path
from api.study_render import objective_body
from service.studies.best import Best, Check
from service.studies.configuring import spec_of
from service.studies.measuring import measured
from service.studies.population import Stretch
from service.studies.ranking import Interval, Reversals
from service.studies.request import StudyRequest
from service.studies.standings import Standings


def best_body(standings: Standings, found: Best, data_count: int | None) -> bodies.BestBody:
    """The best, as far as it is known, by trials on ``data_count`` data, if that is known."""
    study, number = standings.study, found.configuration
    request = study.request
    ranking = found.ranking
    ordered: list[int] = []
    if ranking is not None:
        sign = 1 if request.objective.mode == "min" else -1
        ordered = sorted(ranking.means, key=lambda n: (sign * ranking.means[n], n))
    like = [] if ranking is None else [n for n in ranking.indistinguishable if n != ranking.best]
    path = study_path(study.id)
    spec = None
    if number is not None:
        spec = spec_of(request.spec, found.values[number], request.seeds[0]).model_dump(mode="json")
    return bodies.BestBody(
        stage=found.stage,
        message=found.message,
        objective=objective_body(request.objective),
        measured=measured_body(request, request.objective.metric, data_count),
        is_overridden=study.is_overridden,
        configuration=number,
        is_candidate=number is not None and ranking is None,
        values=None if number is None else dict(found.values[number]),
        schedule=None if found.schedule is None else [_stretch(one) for one in found.schedule],
        interval=None if found.interval is None else interval_body(found.interval),
        search_value=None if number is None else _search_value(found, number),
        spec=spec,
        indistinguishable=[
            _ranked(found, n) for n in ([] if ranking is None else [ranking.best, *sorted(like)])
        ],
        confirmed=[_ranked(found, n) for n in ordered],
        untested=[] if ranking is None else list(ranking.untested),
        checks=[_check(check) for check in found.checks],
        shares=dict(found.shares),
        links={name: f"{path}/{name}" for name in ("trials", "curve", "samples", "promote")},
    )


def _stretch(found: Stretch) -> bodies.StretchBody:
    return bodies.StretchBody(from_epoch=found.from_epoch, scale=found.scale)


def measured_body(
    request: StudyRequest, metric: str, data_count: int | None
) -> bodies.MeasuredBody:
    """How a metric is measured, as the study's base spec declares it."""
    return bodies.MeasuredBody(**asdict(measured(request, metric, data_count)))


def interval_body(interval: Interval) -> bodies.IntervalBody:
    """A mean and where it lies."""
    return bodies.IntervalBody(
        mean=interval.mean,
        low=finite(interval.low),
        high=finite(interval.high),
        confidence=interval.confidence,
        seeds=interval.count,
    )


def reversals_body(reversals: Reversals) -> bodies.ReversalsBody:
    """How an order changes."""
    return bodies.ReversalsBody(
        count=reversals.count,
        pairs=reversals.pairs,
        reversed_pairs=reversals.reversed_pairs,
        gamma=finite(reversals.gamma),
        best_was=reversals.best_was,
    )


def _search_value(found: Best, number: int) -> float | None:
    return finite(found.search_values.get(number, math.nan))


def _ranked(found: Best, number: int) -> bodies.RankedBody:
    mean = None if found.ranking is None else found.ranking.means.get(number)
    by_seed = found.fresh.get(number, {})
    return bodies.RankedBody(
        configuration=number,
        values=dict(found.values[number]),
        mean=mean,
        by_seed={str(seed): finite(value) for seed, value in by_seed.items()},
        search_value=_search_value(found, number),
    )


def _check(check: Check) -> bodies.CheckBody:
    return bodies.CheckBody(
        metric=check.metric,
        means={str(number): mean for number, mean in check.means.items()},
        best=check.best,
        agrees=check.agrees,
        reversals=reversals_body(check.reversals),
    )
