"""What a study's trials came to: the trials themselves, and the best."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies, study_render
from api.conditions import is_unchanged, quoted
from api.dependencies import Given, StudyId
from api.drawings import CSV
from api.errors import INVALID_QUERY, NOT_ACCEPTABLE, documented
from api.jobs import LIMIT_MAX, json_answer
from api.negotiation import VARY, choose
from api.routes import StrictRoute
from api.studies import MISSING_STUDY
from api.study_best import best_body
from service.jobs import JobState
from service.jobstore.studies import TrialFilter
from service.studies.ledger import Phase, Study
from service.studies.population import SCHEDULE, is_population
from service.studies.standings import Outcome

router = APIRouter(prefix="/v1/studies", tags=["studies"], route_class=StrictRoute)

_TRIAL_FORMS = {"application/json": "json", CSV: "csv"}
_FACTS = (
    *("number", "configuration", "seed", "phase", "job", "state", "reason", "epoch"),
    "is_whole",
)


@router.get(
    "/{study_id}/trials",
    operation_id="list_trials",
    summary="The trials of a study, as JSON or CSV",
    response_model=bodies.TrialPage,
    responses={
        200: {
            "description": "A page of trials in their order; as CSV all of them, a column for each "
            "tuned value and each metric.",
            "content": {
                CSV: {
                    "schema": {"type": "string"},
                    "example": "number,configuration,seed,phase,job,state,reason,epoch,"
                    "is_whole,/trainer/spread/scale,kid_pca\r\n"
                    "1,0,0,search,job-91d3a06e2f7b4c58,succeeded,completed,60,true,0.41,0.0121\r\n",
                }
            },
        },
        **documented(MISSING_STUDY, NOT_ACCEPTABLE, INVALID_QUERY),
    },
)
def list_trials(
    study_id: StudyId,
    request: Request,
    services: Given,
    state: Annotated[JobState | None, Query(description="Only trials in this state.")] = None,
    phase: Annotated[Phase | None, Query(description="Only trials of this phase.")] = None,
    configuration: Annotated[
        int | None, Query(ge=0, le=2**31 - 1, description="Only trials of this configuration.")
    ] = None,
    cursor: Annotated[
        str | None, Query(max_length=512, description="next_cursor of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Trials on a page of JSON.")] = 50,
    format: Annotated[Literal["json", "csv"] | None, Query(description="Overrides Accept.")] = None,
) -> Response:
    """List trials with their values and what they have reported last."""
    form = format or _TRIAL_FORMS[choose(request.headers.get("accept"), _TRIAL_FORMS)]
    wanted = TrialFilter(state, phase, configuration)
    pages = services.answers.trials(
        study_id, wanted, cursor, limit=limit if form == "json" else None
    )
    study, outcomes, following = pages
    if form == "csv":
        return Response(_as_csv(study, outcomes), headers=VARY, media_type=CSV)
    listed = [study_render.trial_body(study, one) for one in outcomes]
    return json_answer(bodies.TrialPage(trials=listed, next_cursor=following), headers=VARY)


def _as_csv(study: Study, outcomes: Sequence[Outcome]) -> str:
    """A line for each trial. Texts stand as they are, other values that are no numbers as JSON."""
    names = list(dict.fromkeys(name for one in outcomes for name in one.metrics))
    text = io.StringIO()
    rows = csv.writer(text)
    pointers = [*study.request.space, *([SCHEDULE] if is_population(study.request) else [])]
    rows.writerow((*_FACTS, *pointers, *names))
    for one in outcomes:
        trial = one.trial
        facts = (trial.number, trial.configuration, trial.seed, trial.phase.value, trial.job_id)
        values = [cell(trial.values[p]) if p in trial.values else "" for p in pointers]
        metrics = [one.metrics.get(name, "") for name in names]
        came = (trial.state.value, trial.reason.value, one.epoch, cell(one.is_whole))
        rows.writerow((*facts, *came, *values, *metrics))
    return text.getvalue()


def cell(value: object) -> object:
    """A tuned value in a cell of a table."""
    is_plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return value if is_plain else json.dumps(value)


@router.get(
    "/{study_id}/best",
    operation_id="get_best",
    summary="The best of a study, with what cannot be told from it",
    response_model=bodies.BestBody,
    responses={
        200: {
            "description": "The best as far as it is known.",
            "headers": {"ETag": {"schema": {"type": "string"}}},
        },
        304: {"description": "If-None-Match names this answer."},
        **documented(MISSING_STUDY, INVALID_QUERY),
    },
)
def get_best(study_id: StudyId, request: Request, services: Given) -> Response:
    """Answer with the best by trials on fresh seeds, which chose nothing: its interval, and the
    configurations that cannot be told from it.

    Before they are there, only the search's candidate is known. Its value is too good to be true,
    as the best of many noisy ones is.
    """
    standings = services.answers.standings(study_id)
    tag = quoted(services.answers.etag(standings, "best"))
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if is_unchanged(request, tag):
        return Response(status_code=304, headers=headers)
    count = services.datasets.count_of(standings.study.request.spec.dataset)
    found = services.answers.best(standings)
    return json_answer(best_body(standings, found, count), headers=headers)
