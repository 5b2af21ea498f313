"""A metric of a study against what it tuned."""

import csv
import io
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies
from api.dependencies import Given, StudyId
from api.render import finite
from api.routes import StrictRoute
from api.study_answers import cell
from api.study_best import measured_body, reversals_body
from api.study_forms import Form, documented_answer, send_answer
from service.studies.curves import Axis, CurveAnswer
from service.studies.ledger import Phase
from service.studies.plots import curve_png
from service.studies.ranking import CONFIDENCE
from service.studies.request import StudyRequest
from service.studies.standings import Outcome

router = APIRouter(prefix="/v1/studies", tags=["studies"], route_class=StrictRoute)

Metric = Annotated[
    str | None,
    Query(max_length=100, description="A metric of the trials; the objective without it."),
]
AskedForm = Annotated[Form | None, Query(description="Overrides Accept.")]


@router.get(
    "/{study_id}/curve",
    operation_id="get_curve",
    summary="A metric against one or two tuned parameters, with its uncertainty",
    response_model=bodies.CurveBody,
    responses=documented_answer(
        "The curve as numbers, as a picture, or as a table.",
        "what,/trainer/spread/scale,mean,low,high,trial,configuration,seed,phase\r\n"
        "curve,0.05,0.021,0.013,0.029,,,,\r\n"
        "trial,0.41,0.0121,,,5,4,0,search\r\n",
    ),
)
def get_curve(
    study_id: StudyId,
    request: Request,
    services: Given,
    parameter: Annotated[
        list[str],
        Query(
            min_length=1,
            max_length=2,
            description="JSON pointer of a tuned parameter; give it twice for two of them.",
            examples=[["/trainer/spread/scale"]],
        ),
    ],
    metric: Metric = None,
    format: AskedForm = None,
) -> Response:
    """Draw a metric against what was tuned: a mean at each of few values, else a Gaussian process.

    Only trials that ran to their end and have the parameters count, those on fresh seeds too. It
    says when the order of configurations at earlier epochs is another one than at the end.
    """
    answers = services.answers
    return send_answer(
        request,
        services,
        study_id,
        format,
        {
            "json": lambda s: _curve(
                s.study.request,
                answers.curve(s, parameter, metric),
                services.datasets.count_of(s.study.request.spec.dataset),
            ),
            "png": lambda s: curve_png(answers.curve(s, parameter, metric)),
            "csv": lambda s: _curve_csv(answers.curve(s, parameter, metric)),
        },
        ("curve", parameter, metric),
    )


def axis_body(axis: Axis) -> bodies.AxisBody:
    """A parameter, and how it is seen."""
    return bodies.AxisBody(pointer=axis.pointer, has_levels=axis.has_levels, is_log=axis.is_log)


def _curve(request: StudyRequest, found: CurveAnswer, data_count: int | None) -> bodies.CurveBody:
    pointers = [axis.pointer for axis in found.axes]
    return bodies.CurveBody(
        metric=found.metric,
        mode=found.mode,
        measured=measured_body(request, found.metric, data_count),
        parameters=[axis_body(axis) for axis in found.axes],
        confidence=CONFIDENCE,
        levels=[
            bodies.LevelBody(
                values=dict(level.values),
                mean=level.interval.mean,
                low=finite(level.interval.low),
                high=finite(level.interval.high),
                trials=level.interval.count,
            )
            for level in found.levels
        ],
        processes=[
            bodies.ProcessBody(
                where=dict(process.where),
                along=list(process.along),
                places=[list(places) for places in process.places],
                mean=process.mean.tolist(),
                low=process.low.tolist(),
                high=process.high.tolist(),
                noise=process.noise,
                trials=process.trials,
            )
            for process in found.processes
        ],
        points=[_point(one, pointers, found.metric) for one in found.points],
        stopped=found.stopped,
        without=found.without,
        rungs=[
            bodies.RungBody(epoch=rung.epoch, reversals=reversals_body(rung.reversals))
            for rung in found.rungs
        ],
        notes=list(found.notes),
    )


def _point(one: Outcome, pointers: list[str], metric: str) -> bodies.PointBody:
    return bodies.PointBody(
        trial=one.trial.number,
        configuration=one.trial.configuration,
        seed=one.trial.seed,
        is_fresh=one.trial.phase is Phase.CONFIRMATION,
        values={pointer: one.trial.values[pointer] for pointer in pointers},
        value=one.value(metric),
    )


def _curve_csv(found: CurveAnswer) -> str:
    """Lines of the curve or its levels, and one for each trial behind them."""
    pointers = [axis.pointer for axis in found.axes]
    text = io.StringIO()
    rows = csv.writer(text)
    facts = ("trial", "configuration", "seed", "phase")
    rows.writerow(("what", *pointers, "mean", "low", "high", *facts))
    nothing = ("",) * len(facts)
    for level in found.levels:
        values, of = [cell(level.values[p]) for p in pointers], level.interval
        bounds = ["" if finite(end) is None else end for end in (of.low, of.high)]
        rows.writerow(("level", *values, of.mean, *bounds, *nothing))
    for process in found.processes:
        places = _combinations(process.places)
        numbers = zip(
            process.mean.reshape(-1).tolist(),
            process.low.reshape(-1).tolist(),
            process.high.reshape(-1).tolist(),
            strict=True,
        )
        for place, number in zip(places, numbers, strict=True):
            values_at = {**process.where, **dict(zip(process.along, place, strict=True))}
            rows.writerow(("curve", *(cell(values_at[p]) for p in pointers), *number, *nothing))
    for one in found.points:
        trial = one.trial
        values = [cell(trial.values[p]) for p in pointers]
        told = (trial.number, trial.configuration, trial.seed, trial.phase.value)
        rows.writerow(("trial", *values, one.value(found.metric), "", "", *told))
    return text.getvalue()


def _combinations(places: tuple[list[float], ...]) -> list[tuple[float, ...]]:
    if len(places) == 1:
        return [(at,) for at in places[0]]
    return [(first, second) for first in places[0] for second in places[1]]
