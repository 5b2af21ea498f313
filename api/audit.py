"""Who did what."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from api import bodies
from api.dependencies import Given
from api.errors import INVALID_QUERY, documented
from api.jobs import json_answer
from api.routes import StrictRoute
from service.access.audit import AuditEntry

router = APIRouter(prefix="/v1/audit", tags=["access"], route_class=StrictRoute)

SEQ_MAX = 2**63 - 1


@router.get(
    "",
    operation_id="list_audit",
    summary="Who did what, newest first",
    response_model=bodies.AuditPageBody,
    responses=documented(INVALID_QUERY),
)
def list_audit(
    services: Given,
    owner: Annotated[
        str | None, Query(max_length=64, description="Only what was done with this owner's keys.")
    ] = None,
    before: Annotated[
        int | None, Query(ge=1, le=SEQ_MAX, description="Only entries with a smaller number.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Entries on a page.")] = 100,
) -> Response:
    """List what was asked with keys that changes something, also where it was refused.

    An entry is stored before anything is done, and its answer before that is given. Entries are
    kept for SPREADTRAIN_AUDIT_KEEP_S seconds, at most a million.
    """
    page = services.access.audit(owner, before, limit)
    body = bodies.AuditPageBody(
        entries=[_body(entry) for entry in page.entries], next_before=page.next_before
    )
    return json_answer(body, headers={"Cache-Control": "no-store"})


def _body(entry: AuditEntry) -> bodies.AuditEntryBody:
    deed = entry.deed
    return bodies.AuditEntryBody(
        seq=entry.seq,
        at=entry.at,
        owner=deed.owner,
        key=deed.key_id,
        action=deed.action,
        target=deed.target,
        made=entry.made,
        status=entry.status,
        request_id=deed.request_id,
        client=deed.client,
    )
