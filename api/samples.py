"""Samples of a trained model, over HTTP: pictures, arrays, numbers."""

from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies, render
from api.conditions import is_unchanged, quoted
from api.dependencies import Given, JobId
from api.errors import (
    INVALID_QUERY,
    NOT_ACCEPTABLE,
    SERVICE_PROBLEMS,
    RefusedError,
    documented,
)
from api.negotiation import VARY, choose
from api.routes import StrictRoute
from service import errors
from service.errors import FieldError
from service.jobs import CheckpointInfo
from service.sampling import SampleRequest, Samples

router = APIRouter(prefix="/v1/jobs", tags=["samples"], route_class=StrictRoute)

SEED_MAX = 2**53 - 1
PNG, NPZ, JSON = "image/png", "application/x-npz", "application/json"
_FORMS = {PNG: "png", NPZ: "npz", JSON: "json"}
_TYPES = {form: media_type for media_type, form in _FORMS.items()}
# Beyond these an answer is no longer useful, or takes more memory than it is worth.
N_MAX = {"png": 1024, "npz": 10_000, "json": 1000}
_BINARY = {"schema": {"type": "string", "format": "binary"}}

Seed = Annotated[
    int, Query(ge=0, le=SEED_MAX, description="Seed of the latents; row i depends on it and i.")
]


@router.get(
    "/{job_id}/samples",
    operation_id="get_samples",
    summary="Samples of the model",
    response_model=bodies.SamplesBody,
    responses={
        200: {
            "description": "The samples: a grid (vectors: a scatter plot), an array named "
            "``samples`` in an npz file, or numbers.",
            "content": {PNG: _BINARY, NPZ: _BINARY},
            "headers": {
                "ETag": {"schema": {"type": "string"}},
                "Content-Location": {"schema": {"type": "string"}},
            },
        },
        304: {"description": "If-None-Match names these samples; nothing was computed."},
        **documented(
            SERVICE_PROBLEMS[errors.JobNotFound],
            SERVICE_PROBLEMS[errors.CheckpointNotFound],
            NOT_ACCEPTABLE,
            INVALID_QUERY,
        ),
    },
)
def get_samples(
    job_id: JobId,
    request: Request,
    services: Given,
    n: Annotated[
        int,
        Query(ge=1, le=10_000, description="How many; 1024 at most as PNG, 1000 as JSON."),
    ] = 64,
    seed: Seed = 0,
    checkpoint: Annotated[
        str, Query(max_length=200, description="Id of a checkpoint, or latest, or best.")
    ] = "latest",
    spread: Annotated[
        bool, Query(description="Add the spread's noise: y = g(z) + k, not g(z).")
    ] = False,
    format: Annotated[
        Literal["png", "npz", "json"] | None, Query(description="Overrides Accept.")
    ] = None,
) -> Response:
    """Draw samples. The same checkpoint, seed and n give the same bytes.

    A checkpoint named by its id answers for ever; ``latest`` and ``best`` say in Content-Location
    which one they are now.
    """
    form = format or _FORMS[choose(request.headers.get("accept"), _FORMS)]
    if n > N_MAX[form]:
        message = f"must be at most {N_MAX[form]} as {form}; format=npz has up to {N_MAX['npz']}"
        raise RefusedError(
            INVALID_QUERY, f"/query/n {message}.", errors=[FieldError("/query/n", message)]
        )
    source = services.sampling.checkpoint(job_id, checkpoint)
    wanted = SampleRequest(n=n, seed=seed, spread=spread)
    etag = quoted(services.sampling.etag(source, wanted, form))
    headers = {"ETag": etag, **VARY, "Cache-Control": "max-age=31536000, immutable"}
    if source.id != checkpoint:
        headers["Cache-Control"] = "no-cache"
        query = {"n": n, "seed": seed, "checkpoint": source.id, "format": form}
        query |= {"spread": "true"} if spread else {}
        headers["Content-Location"] = f"{render.job_path(job_id)}/samples?{urlencode(query)}"
    if is_unchanged(request, etag):
        return Response(status_code=304, headers=headers)
    samples = services.sampling.draw(source, wanted)
    return Response(
        _content(samples, form, source, wanted), headers=headers, media_type=_TYPES[form]
    )


def _content(
    samples: Samples, form: str, source: CheckpointInfo, wanted: SampleRequest
) -> bytes | str:
    if form == "png":
        return samples.png()
    if form == "npz":
        return samples.npz()
    return bodies.SamplesBody(
        checkpoint=source.id,
        step=source.step,
        seed=wanted.seed,
        n=wanted.n,
        spread=wanted.spread,
        shape=list(samples.array.shape),
        samples=samples.rows(),
    ).model_dump_json()


@router.get(
    "/{job_id}/filmstrip",
    operation_id="get_filmstrip",
    summary="The same latents over all checkpoints",
    response_class=Response,
    responses={
        200: {
            "description": "One row for each checkpoint, and real data in the last.",
            "content": {PNG: _BINARY},
        },
        **documented(
            SERVICE_PROBLEMS[errors.JobNotFound],
            SERVICE_PROBLEMS[errors.CheckpointNotFound],
            INVALID_QUERY,
        ),
    },
)
def get_filmstrip(
    job_id: JobId,
    services: Given,
    epochs: Annotated[
        str | None,
        Query(
            pattern=r"^[0-9]{1,6}(,[0-9]{1,6}){0,63}$",
            description="Only these epochs, as 1,5,10; all checkpoints without it.",
        ),
    ] = None,
    n: Annotated[int, Query(ge=1, le=64, description="Latents, one column each.")] = 8,
    seed: Seed = 0,
) -> Response:
    """Draw a film strip of how the samples came about."""
    wanted = [int(epoch) for epoch in epochs.split(",")] if epochs else None
    picture = services.sampling.filmstrip(job_id, wanted, n, seed)
    return Response(picture, headers={"Cache-Control": "no-cache"}, media_type=PNG)
