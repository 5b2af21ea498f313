"""What a study's results show: curves, fronts, importances, parallel coordinates."""

import csv
import io
from typing import Annotated, Literal

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
from service.studies.fronts import Front
from service.studies.importance import Evaluator, Importance
from service.studies.ledger import Phase
from service.studies.parallels import Parallels
from service.studies.plots import curve_png, front_png, importance_png, parallel_png
from service.studies.ranking import CONFIDENCE
from service.studies.request import StudyRequest
from service.studies.standings import Outcome

router = APIRouter(prefix="/v1/studies", tags=["studies"], route_class=StrictRoute)

Metric = Annotated[
    str | None,
    Query(max_length=100, description="A metric of the trials; the objective without it."),
]
AskedForm = Annotated[Form | None, Query(description="Overrides Accept.")]
AskedPicture = Annotated[Literal["json", "png"] | None, Query(description="Overrides Accept.")]


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
            "json": lambda s: _curve(s.study.request, answers.curve(s, parameter, metric)),
            "png": lambda s: curve_png(answers.curve(s, parameter, metric)),
            "csv": lambda s: _curve_csv(answers.curve(s, parameter, metric)),
        },
        ("curve", parameter, metric),
    )


def _axis(axis: Axis) -> bodies.AxisBody:
    return bodies.AxisBody(pointer=axis.pointer, has_levels=axis.has_levels, is_log=axis.is_log)


def _curve(request: StudyRequest, found: CurveAnswer) -> bodies.CurveBody:
    pointers = [axis.pointer for axis in found.axes]
    return bodies.CurveBody(
        metric=found.metric,
        mode=found.mode,
        measured=measured_body(request, found.metric),
        parameters=[_axis(axis) for axis in found.axes],
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


@router.get(
    "/{study_id}/pareto",
    operation_id="get_pareto",
    summary="Two metrics against one another, and the front",
    response_model=bodies.ParetoBody,
    responses=documented_answer("The configurations and the front, or a picture of them.", None),
)
def get_pareto(
    study_id: StudyId,
    request: Request,
    services: Given,
    second: Annotated[
        str | None,
        Query(max_length=100, description="The metric beside the objective; the second one."),
    ] = None,
    format: AskedPicture = None,
) -> Response:
    """Show which configurations none surpasses in both metrics."""
    answers = services.answers
    return send_answer(
        request,
        services,
        study_id,
        format,
        {
            "json": lambda s: _pareto(answers.front(s, second)),
            "png": lambda s: front_png(answers.front(s, second)),
        },
        ("pareto", second),
    )


def _pareto(found: Front) -> bodies.ParetoBody:
    return bodies.ParetoBody(
        metrics=list(found.metrics),
        modes=list(found.modes),
        front=list(found.front),
        fresh_front=list(found.fresh_front),
        points=[
            bodies.FrontPointBody(
                configuration=number,
                values=dict(found.values[number]),
                search=list(point),
                fresh=list(found.fresh[number]) if number in found.fresh else None,
            )
            for number, point in found.searched.items()
        ],
    )


@router.get(
    "/{study_id}/importance",
    operation_id="get_importance",
    summary="How much each tuned parameter matters",
    response_model=bodies.ImportanceBody,
    responses=documented_answer("The shares, or a picture of them.", None),
)
def get_importance(
    study_id: StudyId,
    request: Request,
    services: Given,
    metric: Metric = None,
    evaluator: Annotated[
        Evaluator, Query(description="Of Optuna: PED-ANOVA, or one by random forests.")
    ] = "ped_anova",
    format: AskedPicture = None,
) -> Response:
    """Say how much of a metric the parameters explain, by trials that ran to their end.

    A parameter that exists on a condition is compared among the trials that have it.
    """
    answers = services.answers
    return send_answer(
        request,
        services,
        study_id,
        format,
        {
            "json": lambda s: _importance(answers.importance(s, metric, evaluator)),
            "png": lambda s: importance_png(answers.importance(s, metric, evaluator)),
        },
        ("importance", metric, evaluator),
    )


def _importance(found: Importance) -> bodies.ImportanceBody:
    return bodies.ImportanceBody(
        metric=found.metric,
        evaluator=found.evaluator,
        trials=found.trials,
        shares=[
            bodies.ShareBody(
                pointer=share.pointer, importance=share.importance, trials=share.trials
            )
            for share in found.shares
        ],
    )


@router.get(
    "/{study_id}/parallel",
    operation_id="get_parallel",
    summary="Every trial as a line through its values",
    response_model=bodies.ParallelBody,
    responses=documented_answer("The lines, or parallel coordinates as a picture.", None),
)
def get_parallel(
    study_id: StudyId,
    request: Request,
    services: Given,
    metric: Metric = None,
    format: AskedPicture = None,
) -> Response:
    """Draw parallel coordinates of all trials that have reported the metric."""
    answers = services.answers
    return send_answer(
        request,
        services,
        study_id,
        format,
        {
            "json": lambda s: _parallel(answers.parallels(s, metric)),
            "png": lambda s: parallel_png(answers.parallels(s, metric)),
        },
        ("parallel", metric),
    )


def _parallel(found: Parallels) -> bodies.ParallelBody:
    return bodies.ParallelBody(
        metric=found.metric,
        parameters=[_axis(axis) for axis in found.axes],
        lines=[
            bodies.LineBody(
                trial=line.trial,
                configuration=line.configuration,
                values=dict(line.values),
                places=list(line.places),
                value=line.value,
                rank=line.rank,
                is_stopped=line.is_stopped,
            )
            for line in found.lines
        ],
    )
