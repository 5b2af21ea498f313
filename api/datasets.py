"""Data sets: list, read, upload, delete."""

import hashlib
from collections.abc import AsyncIterator
from email.message import Message
from functools import partial
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Header, Path, Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from api import bodies
from api.conditions import dataset_condition, is_unchanged, quoted
from api.dependencies import Asking, Given
from api.errors import (
    BODY_TOO_LARGE,
    INVALID_QUERY,
    MALFORMED_BODY,
    NO_SUCH_ROUTE,
    NOT_AN_UPLOAD,
    SERVICE_PROBLEMS,
    RefusedError,
    documented,
)
from api.jobs import json_answer
from api.routes import StrictRoute
from service import errors
from service.datasets import Entry
from service.uploads import Change

router = APIRouter(prefix="/v1/datasets", tags=["data sets"], route_class=StrictRoute)

PIECE_BYTES = 1 << 20
# More at once would only make each slower: a check reads and writes as fast as the disk does.
CHECKS_AT_ONCE = 2
MEDIA_TYPES = (
    "application/octet-stream",
    "application/x-npz",
    "application/zip",
    "application/gzip",
    "text/csv",
)
_ALIASES = ("application/x-gzip", "application/x-zip-compressed", "application/csv")
_MISSING = SERVICE_PROBLEMS[errors.DatasetNotFound]
_BUILT_IN = SERVICE_PROBLEMS[errors.DatasetBuiltIn]
_NOT_YOURS = SERVICE_PROBLEMS[errors.NotYours]
_CHANGED = SERVICE_PROBLEMS[errors.DatasetChanged]
_ETAG = {"schema": {"type": "string"}, "description": "Version and content of the data set."}

Name = Annotated[str, Path(description="Name of the data set.", examples=["our-faces"])]
IfMatch = Annotated[
    str | None,
    Header(description="Change the name only where it has this ETag; * for any.", examples=["*"]),
]


def _body(entry: Entry) -> bodies.DatasetBody:
    info, upload = entry.info, entry.upload
    return bodies.DatasetBody(
        name=info.name,
        title=info.title,
        shape=list(info.shape),
        count=info.count,
        is_image=info.is_image,
        digest=info.digest,
        available=info.available,
        detail=info.detail,
        size_bytes=info.size_bytes,
        uploaded=upload is not None,
        created_at=None if upload is None else upload.created_at,
        version=None if upload is None else upload.version,
        owner=None if upload is None else upload.owner,
    )


def _etag(entry: Entry) -> dict[str, str]:
    if entry.upload is not None:
        tag = entry.upload.revision
    else:
        tag = hashlib.sha256(repr(entry.info).encode()).hexdigest()[:32]
    return {"ETag": quoted(tag), "Cache-Control": "no-cache"}


@router.get(
    "",
    operation_id="list_datasets",
    summary="Data sets",
    response_model=bodies.DatasetList,
    responses=documented(INVALID_QUERY),
)
def list_datasets(services: Given) -> Response:
    """List the data sets, also those whose files are not here, with what to do about it."""
    found = services.datasets.list()
    return json_answer(bodies.DatasetList(datasets=[_body(entry) for entry in found]))


@router.get(
    "/{name}",
    operation_id="get_dataset",
    summary="Read what is known of a data set",
    response_model=bodies.DatasetBody,
    responses={
        200: {"description": "The data set.", "headers": {"ETag": _ETAG}},
        304: {"description": "If-None-Match names what is here."},
        **documented(_MISSING, INVALID_QUERY),
    },
)
def get_dataset(name: Name, request: Request, services: Given) -> Response:
    """Read a data set. The ETag of an upload is what If-Match takes to move or delete the name."""
    entry = services.datasets.get(name)
    headers = _etag(entry)
    if is_unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return json_answer(_body(entry), headers=headers)


@router.put(
    "/{name}",
    operation_id="put_dataset",
    summary="Upload a data set",
    status_code=201,
    response_model=bodies.DatasetBody,
    responses={
        201: {
            "description": "The name is new.",
            "headers": {"Location": {"schema": {"type": "string"}}, "ETag": _ETAG},
        },
        200: {
            "model": bodies.DatasetBody,
            "description": "The name had this content already, or has moved to it.",
            "headers": {"ETag": _ETAG},
        },
        **documented(
            MALFORMED_BODY,
            NO_SUCH_ROUTE,
            _NOT_YOURS,
            _BUILT_IN,
            _CHANGED,
            SERVICE_PROBLEMS[errors.StorageLimit],
            BODY_TOO_LARGE,
            NOT_AN_UPLOAD,
            SERVICE_PROBLEMS[errors.InvalidDataset],
            INVALID_QUERY,
            SERVICE_PROBLEMS[errors.DatasetExists],
            SERVICE_PROBLEMS[errors.NotReady],
            SERVICE_PROBLEMS[errors.OutOfStorage],
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The file itself. Its format is told by its content: npz (array images, "
            "data, or the only one), idx (also gzipped), csv, or a zip of PNG or JPEG pictures.",
            "content": {
                media_type: {"schema": {"type": "string", "format": "binary"}}
                for media_type in MEDIA_TYPES
            },
        }
    },
)
async def put_dataset(
    name: Name,
    request: Request,
    services: Given,
    caller: Asking,
    if_match: IfMatch = None,
    if_none_match: Annotated[
        str | None, Header(description="With *, only where the name is new.", examples=["*"])
    ] = None,
) -> Response:
    """Upload a file as a data set. It is checked before the name has it.

    Data are N×D numbers, pictures N×H×W or N×H×W×3 of uint8, turned as their EXIF orientation
    says; a csv may begin with a line of names. The content never changes; a name
    that has other content moves only with If-Match.
    """
    _check_media_type(request)
    length = request.headers.get("content-length")
    incoming = await run_in_threadpool(
        services.datasets.receive, name, None if length is None else int(length), caller
    )
    try:
        async for piece in _pieces(request):
            await run_in_threadpool(incoming.write, piece)
        condition = dataset_condition(request)
        entry, change = await anyio.to_thread.run_sync(
            partial(services.datasets.take_in, name, incoming, condition, caller),
            limiter=request.app.state.checks,
            abandon_on_cancel=True,  # a service that stops does not wait for a check
        )
    except ClientDisconnect as error:
        raise RefusedError(MALFORMED_BODY, "The body did not come to its end.") from error
    finally:
        # Here and not in a thread: a cancelled request would not wait for one.
        incoming.discard()
    headers = _etag(entry)
    if change is Change.CREATED:
        headers["Location"] = f"/v1/datasets/{name}"
    return json_answer(_body(entry), 201 if change is Change.CREATED else 200, headers)


@router.delete(
    "/{name}",
    operation_id="delete_dataset",
    summary="Delete an uploaded data set",
    status_code=204,
    responses={
        204: {"description": "The name is forgotten."},
        **documented(
            _MISSING,
            _NOT_YOURS,
            _BUILT_IN,
            SERVICE_PROBLEMS[errors.DatasetInUse],
            _CHANGED,
            INVALID_QUERY,
        ),
    },
)
def delete_dataset(
    name: Name, request: Request, services: Given, caller: Asking, if_match: IfMatch = None
) -> Response:
    """Forget a name and its content, unless jobs or studies use it."""
    services.datasets.delete(name, dataset_condition(request), caller)
    return Response(status_code=204)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """The body, in pieces that are worth a thread each."""
    piece = bytearray()
    async for chunk in request.stream():
        piece += chunk
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _check_media_type(request: Request) -> None:
    message = Message()
    message["content-type"] = request.headers.get("content-type", MEDIA_TYPES[0])
    if message.get_content_type() not in (*MEDIA_TYPES, *_ALIASES):
        raise RefusedError(
            NOT_AN_UPLOAD,
            "Send the file itself as the body, not a form; its Content-Type is "
            "application/octet-stream or what it is.",
            headers={"Accept": ", ".join(MEDIA_TYPES)},
        )
