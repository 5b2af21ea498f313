"""Files as answers: streamed, in part where a range is asked for, not at all where known."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Query, Request
from starlette.responses import Response, StreamingResponse

from api.conditions import asked_range, is_expected, is_head, is_unchanged, quoted
from api.errors import CONTENT_CHANGED, RefusedError
from service.results import Download

Redirect = Annotated[
    bool,
    Query(
        description="Answer 303 with an address at the store itself, valid for ten minutes, where "
        "the installation has one (S3 with a public endpoint); elsewhere the file as without it. "
        "HEAD is answered as without it."
    ),
]


def send_file(request: Request, file: Download, *, redirect: bool) -> Response:
    """The file, a range of it (206), 303 to the store, or 304; its digest is its ETag.

    Raises RefusedError (412) where If-Match names another one. HEAD has no ranges (RFC 9110, 14.2),
    and never leads to the store, whose addresses are signed for one method: it tells size and
    digest here, and a client that goes on with GET is led there then.
    """
    etag = quoted(file.digest)
    # The content behind the address may be replaced by a later attempt's; the tag tells.
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
    if not is_expected(request, etag):
        raise RefusedError(
            CONTENT_CHANGED,
            "The file is not the one that If-Match names; HEAD tells which there is now.",
            headers={"ETag": etag},
        )
    if is_unchanged(request, etag):
        return Response(status_code=304, headers=headers)
    if redirect and not is_head(request) and (url := file.presign()) is not None:
        # The address is a key to the file for its time: no cache may keep it.
        return Response(status_code=303, headers={"Location": url, "Cache-Control": "no-store"})
    part = None if is_head(request) else asked_range(request, file.size_bytes, etag)
    start, stop = (part.start, part.stop) if part else (0, file.size_bytes)
    headers |= {
        "Content-Length": str(stop - start),
        "Content-Disposition": _disposition(file.info_name),
        "X-Content-Type-Options": "nosniff",
    }
    if part:
        headers["Content-Range"] = part.content_range
    return StreamingResponse(
        () if is_head(request) else file.open(start, stop),
        status_code=206 if part else 200,
        headers=headers,
        media_type=file.media_type,
    )


def _disposition(name: str) -> str:
    last = name.rpartition("/")[2]
    return f"inline; filename*=UTF-8''{quote(last)}"


def documented_file(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of a route that answers with a file."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    tag = {"schema": {"type": "string"}, "description": "sha256 of the content."}
    headers = {"ETag": tag, "Accept-Ranges": {"schema": {"type": "string"}}}
    return {
        200: {"description": description, "content": content, "headers": headers},
        206: {
            "description": "The range that was asked for.",
            "content": content,
            "headers": {**headers, "Content-Range": {"schema": {"type": "string"}}},
        },
        303: {
            "description": "redirect=true, and the store hands the file out itself.",
            "headers": {
                "Location": {
                    "schema": {"type": "string", "format": "uri"},
                    "description": "Where the file is, for ten minutes; signed for GET alone.",
                }
            },
        },
        304: {"description": "If-None-Match names the present content."},
    }
