"""Who did what, as it is answered."""

from datetime import datetime

from api.bodies.base import Body


class AuditEntryBody(Body):
    """Something that was done with a key, or with one."""

    seq: int
    """Its number; later ones are greater."""
    at: datetime
    """When it was asked for."""
    owner: str | None
    """Whose key it was; null for the command line."""
    key: str | None
    """Id of the key; null for the command line."""
    action: str
    """The method of HTTP, or the command."""
    target: str
    """The path, or what the command was about."""
    made: str | None
    """Path of what is new; null where nothing is."""
    status: int | None
    """The answer's; 0 for a command that was carried out, null where none was given: it is under
    way, or the service ended meanwhile."""
    request_id: str
    """Name of the request in the service's log; empty for a command."""
    client: str
    """Address that it came from, or where the command was given."""


class AuditPageBody(Body):
    """Some entries, newest first."""

    entries: list[AuditEntryBody]
    next_before: int | None
    """Give it as ?before= to get the next page; null on the last."""
