"""What a study's best trials make: their samples side by side, and a job that goes on."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api import bodies, render
from api.conditions import is_unchanged, quoted
from api.dependencies import Asking, Given, StudyId
from api.drawings import (
    BINARY,
    JSON,
    NPZ,
    PNG,
    VALUES_MAX,
    AskedForm,
    Seed,
    chosen_form,
    drawing,
    in_form,
)
from api.errors import INVALID_QUERY, NOT_ACCEPTABLE, SERVICE_PROBLEMS, documented
from api.jobs import SUBMISSION_PROBLEMS, IdempotencyKey, etag_of, json_answer, whole
from api.negotiation import VARY
from api.routes import StrictRoute
from api.studies import MISSING_STUDY
from api.study_forms import NO_ANSWER_YET
from service import errors
from service.jobs import ForkStart
from service.studies import samples
from service.studies.promoting import Promotion
from service.studies.samples import StudySamples

router = APIRouter(prefix="/v1/studies", tags=["studies"], route_class=StrictRoute)

_TYPES = {"png": PNG, "npz": NPZ, "json": JSON}
_OF_CHECKPOINTS = (
    SERVICE_PROBLEMS[errors.CheckpointNotFound],
    SERVICE_PROBLEMS[errors.OtherTrainer],
)


@router.get(
    "/{study_id}/samples",
    operation_id="get_study_samples",
    summary="The same latents over the best trials",
    response_model=bodies.StudySamplesBody,
    responses={
        200: {
            "description": "A labelled row of pictures for each trial, the best on top (vectors: "
            "scatter plots); the arrays ``samples``, ``trials`` and ``configurations`` in an npz "
            "file; or numbers.",
            "content": {PNG: BINARY, NPZ: BINARY},
            "headers": {"ETag": {"schema": {"type": "string"}}},
        },
        304: {"description": "If-None-Match names what was asked for; nothing was computed."},
        **documented(MISSING_STUDY, NO_ANSWER_YET, *_OF_CHECKPOINTS, NOT_ACCEPTABLE, INVALID_QUERY),
    },
)
@drawing
def get_study_samples(
    study_id: StudyId,
    request: Request,
    services: Given,
    n: Annotated[int, Query(ge=1, le=256, description="Latents, one column each.")] = 8,
    seed: Seed = 0,
    k: Annotated[int, Query(ge=1, le=16, description="Trials, one row each.")] = 3,
    format: AskedForm = None,
) -> Response:
    """Draw from the last checkpoints of the best trials, one for each configuration.

    They are in the order of fresh seeds where these have confirmed anything, and else of the
    search.
    """
    form = chosen_form(request, format)
    sampling = services.sampling
    chosen = samples.sources(services.answers.standings(study_id), sampling, k)
    tag = quoted(samples.etag(sampling, chosen, n, seed, form))
    headers = {"ETag": tag, "Cache-Control": "no-cache", **VARY}
    if is_unchanged(request, tag):
        return Response(status_code=304, headers=headers)
    drawn = samples.draw(sampling, chosen, n, seed, VALUES_MAX[form])
    content = in_form(drawn, form, lambda: _body(drawn, n, seed))
    return Response(content, headers=headers, media_type=_TYPES[form])


def _body(drawn: StudySamples, n: int, seed: int) -> bodies.StudySamplesBody:
    return bodies.StudySamplesBody(
        n=n,
        seed=seed,
        shape=list(drawn.rows[0].shape),
        rows=[
            bodies.SampleRowBody(
                trial=source.outcome.trial.number,
                configuration=source.outcome.trial.configuration,
                job=source.outcome.trial.job_id,
                checkpoint=source.checkpoint.id,
                label=source.label,
                samples=row.tolist(),
            )
            for source, row in zip(drawn.sources, drawn.rows, strict=True)
        ],
    )


class PromoteBody(BaseModel):
    """What is promoted, and how far it goes."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    configuration: int | None = Field(default=None, ge=0, le=2**31 - 1)
    """Number of a configuration; null: the best, once it is confirmed."""
    epochs: int | None = Field(default=None, ge=1, le=100_000)
    """Passes over the data in all; null: as many as the trial was to make. To go on with
    ``train_state`` it must be more than the trial has made, so that it is needed for one that came
    to its end, as the confirmed best did; null does for one that was stopped, and with ``weights``
    or ``scratch``, which begin at step 0."""
    name: str | None = Field(default=None, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
    """Name of the job; null: that of the study, and the configuration."""
    start: ForkStart | Literal["scratch"] | None = None
    """``train_state`` goes on with weights, optimiser and step; ``weights`` begins at step 0 with
    the trial's weights, ``scratch`` with those of its seed: a job of its own, without a parent.
    null: ``train_state``, and under ``pbt`` ``scratch``, so that the schedule which was found is
    trained as one job."""


@router.post(
    "/{study_id}/promote",
    operation_id="promote_trial",
    summary="Let the best trial go on as a job of its own",
    status_code=202,
    response_model=bodies.IntentBody,
    responses={
        202: {
            "description": "The new job is stored and queued; it is no trial of the study.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **documented(MISSING_STUDY, NO_ANSWER_YET, _OF_CHECKPOINTS[0], *SUBMISSION_PROBLEMS),
    },
)
def promote_trial(
    study_id: StudyId,
    services: Given,
    caller: Asking,
    body: PromoteBody | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Fork the last checkpoint of a configuration's best trial, or train its spec, in one call.

    The job names its parent, if it has one, has the label ``study``, and is kept when the study is
    deleted.
    """
    wanted = PromoteBody() if body is None else body
    promotion = Promotion(wanted.configuration, wanted.epochs, wanted.name, wanted.start)
    job, is_new = services.promotions.promote(study_id, promotion, idempotency_key, caller)
    headers = {"Location": render.job_path(job.id)} | etag_of(job)
    if not is_new:
        headers["Idempotency-Replayed"] = "true"
    return json_answer(bodies.IntentBody(intent="running", job=whole(services, job)), 202, headers)
