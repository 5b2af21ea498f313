"""What ``ica`` jobs have found, over HTTP: the mixing matrix, its inverse, sources of data."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from api import bodies
from api.dependencies import Given, JobId
from api.drawings import (
    BINARY,
    CSV,
    JSON,
    NPZ,
    Choice,
    drawing,
    drawing_threads,
    send_drawing,
)
from api.errors import (
    BODY_TOO_LARGE,
    INVALID_BODY,
    INVALID_QUERY,
    MALFORMED_BODY,
    NOT_ACCEPTABLE,
    SERVICE_PROBLEMS,
    UNSUPPORTED_MEDIA_TYPE,
    Kind,
    RefusedError,
    documented,
)
from api.jobs import json_answer
from api.negotiation import VARY, choose
from api.pointers import field_errors
from api.routes import StrictRoute, content_type, plain_json
from service import errors
from service.jobs import CheckpointInfo
from service.mixing import Decomposition, Density, FoundSources, What

router = APIRouter(prefix="/v1/jobs", tags=["ica"], route_class=StrictRoute)

MatrixForm = Literal["json", "npz", "csv"]
ArrayForm = Literal["json", "npz"]
_MATRIX_FORMS: Mapping[str, MatrixForm] = {JSON: "json", NPZ: "npz", CSV: "csv"}
_ARRAY_FORMS: Mapping[str, ArrayForm] = {JSON: "json", NPZ: "npz"}
ROWS_MAX = 10_000
_NOT_FOUND = (
    SERVICE_PROBLEMS[errors.JobNotFound],
    SERVICE_PROBLEMS[errors.CheckpointNotFound],
    SERVICE_PROBLEMS[errors.OtherTrainer],
)
AskedMatrixForm = Annotated[MatrixForm | None, Query(description="Overrides Accept.")]

_Number = Annotated[float, Field(ge=-1e12, le=1e12)]


class SourcesRequest(BaseModel):
    """Data whose sources are asked for."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    data: list[Annotated[list[_Number], Field(min_length=1, max_length=8192)]] = Field(
        min_length=1, max_length=ROWS_MAX
    )
    """Rows of as many numbers as a datum of the job has."""


_SOURCES_SCHEMA = SourcesRequest.model_json_schema()


def _documented(description: str, *kinds: Kind) -> dict[int | str, dict[str, Any]]:
    text = {"schema": {"type": "string"}}
    return {
        200: {
            "description": description,
            "content": {NPZ: BINARY, CSV: {"schema": {"type": "string"}}},
            "headers": {"ETag": text, "Content-Location": text},
        },
        304: {"description": "If-None-Match names what was asked for; nothing was read."},
        **documented(*_NOT_FOUND, NOT_ACCEPTABLE, INVALID_QUERY, *kinds),
    }


@router.get(
    "/{job_id}/mixing",
    operation_id="get_mixing",
    summary="The mixing matrix of an ica job",
    response_model=bodies.MixingBody,
    responses=_documented(
        "The model as numbers; the arrays ``mixing``, ``unmixing``, ``mean``, "
        "``noise_variance``, ``fastica_mixing`` and, where it is known, ``true_mixing`` in an npz "
        "file; or the matrix alone as CSV, a row for each dimension."
    ),
)
@drawing
def get_mixing(
    job_id: JobId,
    request: Request,
    services: Given,
    checkpoint: Choice = "latest",
    format: AskedMatrixForm = None,
) -> Response:
    """Read the fitted A, FastICA's answer beside it, and what belongs to it.

    A checkpoint named by its id answers for ever; ``latest`` and ``best`` say in Content-Location
    which one they are now. The latest one is always the best.
    """
    return _matrix(job_id, request, services, checkpoint, format, "mixing")


@router.get(
    "/{job_id}/unmixing",
    operation_id="get_unmixing",
    summary="The pseudo-inverse of an ica job's mixing matrix",
    response_model=bodies.UnmixingBody,
    responses=_documented(
        "W as numbers; the same arrays as of ``mixing`` in an npz file; or the matrix alone as "
        "CSV, a row for each source."
    ),
)
@drawing
def get_unmixing(
    job_id: JobId,
    request: Request,
    services: Given,
    checkpoint: Choice = "latest",
    format: AskedMatrixForm = None,
) -> Response:
    """Read W = (AᵀA)⁻¹Aᵀ; W(x − mean) are the sources with their noise."""
    return _matrix(job_id, request, services, checkpoint, format, "unmixing")


def _matrix(
    job_id: str,
    request: Request,
    services: Given,
    choice: str,
    asked: MatrixForm | None,
    what: What,
) -> Response:
    form = asked or _MATRIX_FORMS[choose(request.headers.get("accept"), _MATRIX_FORMS)]
    mixing = services.mixing
    checkpoint = mixing.checkpoint(job_id, choice)

    def read() -> bytes | str:
        found = mixing.decomposition(checkpoint)
        match form:
            case "csv":
                return found.csv(what)
            case "npz":
                return found.npz()
            case "json":
                body = _mixing(found) if what == "mixing" else _unmixing(found)
                return body.model_dump_json()

    etag = mixing.etag(checkpoint, what, form)
    return send_drawing(request, (job_id, what), choice, checkpoint, form, {}, etag, read)


def _mixing(found: Decomposition) -> bodies.MixingBody:
    checkpoint, model = found.checkpoint, found.model
    arrays, metrics = model.arrays(), checkpoint.metrics
    true = arrays.get("true_mixing")
    return bodies.MixingBody(
        checkpoint=checkpoint.id,
        step=checkpoint.step,
        dimensions=arrays["mixing"].shape[0],
        components=arrays["mixing"].shape[1],
        mixing=arrays["mixing"].tolist(),
        fastica_mixing=arrays["fastica_mixing"].tolist(),
        true_mixing=None if true is None else true.tolist(),
        mean=arrays["mean"].tolist(),
        noise_variance=model.noise_variance,
        priors=[_prior(density) for density in found.densities],
        log_evidence_nats=metrics.get("log_evidence_nats"),
        held_out_log_evidence_nats=metrics.get("held_out_log_evidence_nats"),
        errors=_errors(checkpoint, ""),
        fastica_errors=_errors(checkpoint, "fastica_"),
    )


def _unmixing(found: Decomposition) -> bodies.UnmixingBody:
    arrays = found.model.arrays()
    return bodies.UnmixingBody(
        checkpoint=found.checkpoint.id,
        step=found.checkpoint.step,
        dimensions=arrays["mixing"].shape[0],
        components=arrays["mixing"].shape[1],
        unmixing=arrays["unmixing"].tolist(),
        mean=arrays["mean"].tolist(),
    )


def _errors(checkpoint: CheckpointInfo, prefix: str) -> bodies.ErrorsBody | None:
    metrics = checkpoint.metrics
    if f"{prefix}amari" not in metrics:
        return None
    return bodies.ErrorsBody(
        relative=metrics[f"{prefix}error_relative"],
        frobenius=metrics[f"{prefix}error_frobenius"],
        angle_degrees=metrics[f"{prefix}angle_degrees"],
        amari=metrics[f"{prefix}amari"],
    )


def _prior(density: Density) -> bodies.PriorBody:
    parts = density.parts
    return bodies.PriorBody(
        kind=density.kind,
        width=density.width,
        weights=None if parts is None else [part.weight for part in parts],
        means=None if parts is None else [part.mean for part in parts],
        variances=None if parts is None else [part.variance for part in parts],
    )


@router.post(
    "/{job_id}/sources",
    operation_id="find_sources",
    summary="The sources behind data",
    response_model=bodies.SourcesBody,
    responses={
        200: {
            "description": "Posterior means and variances as numbers, or the arrays ``mean`` and "
            "``variance`` in an npz file.",
            "content": {NPZ: BINARY},
        },
        **documented(
            MALFORMED_BODY,
            *_NOT_FOUND,
            NOT_ACCEPTABLE,
            BODY_TOO_LARGE,
            UNSUPPORTED_MEDIA_TYPE,
            INVALID_BODY,
            SERVICE_PROBLEMS[errors.InvalidData],
            INVALID_QUERY,
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "Data as rows of numbers, or as an npz file of one array N×X.",
            "content": {
                JSON: {"schema": _SOURCES_SCHEMA, "example": {"data": [[0.4, -1.2, 0.3]]}},
                NPZ: BINARY,
            },
        }
    },
)
async def find_sources(
    job_id: JobId,
    request: Request,
    services: Given,
    checkpoint: Choice = "latest",
    format: Annotated[ArrayForm | None, Query(description="Overrides Accept.")] = None,
) -> Response:
    """Find E[z|x] and Var[z|x] of posted data; nothing is stored."""
    form = format or _ARRAY_FORMS[choose(request.headers.get("accept"), _ARRAY_FORMS)]
    content = await request.body()
    data = _data_in(content, content_type(request))
    found = await run_sync(
        services.mixing.sources, job_id, checkpoint, data, limiter=drawing_threads()
    )
    if form == "npz":
        return Response(found.npz(), headers=VARY, media_type=NPZ)
    return json_answer(_sources(found), headers=VARY)


def _data_in(content: bytes, media_type: str) -> list[list[float]] | bytes:
    if media_type == NPZ:
        return content
    if media_type != JSON:
        raise RefusedError(
            UNSUPPORTED_MEDIA_TYPE,
            f"Send the data as {JSON} or {NPZ}, and say which in Content-Type.",
            headers={"Accept": f"{JSON}, {NPZ}"},
        )
    body = plain_json(content)
    try:
        return SourcesRequest.model_validate(body).data
    except ValidationError as error:
        found = field_errors(error.errors(), body, _SOURCES_SCHEMA)
        where = found[0].pointer or "The body"
        raise RefusedError(INVALID_BODY, f"{where}: {found[0].message}", errors=found) from error


def _sources(found: FoundSources) -> bodies.SourcesBody:
    return bodies.SourcesBody(
        checkpoint=found.checkpoint.id,
        step=found.checkpoint.step,
        n=len(found.mean),
        mean=found.mean.tolist(),
        variance=found.variance.tolist(),
        rmse=found.rmse,
    )
