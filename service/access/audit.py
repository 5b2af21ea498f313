"""The record of who did what, as values."""

from dataclasses import dataclass
from datetime import datetime

KEPT_MOST = 1_000_000  # entries, some 200 bytes each
BY_COMMAND = 0  # the status of what was done on the command line


@dataclass(frozen=True, slots=True)
class Deed:
    """What is about to be done, and by whom.

    ``action`` is a method of HTTP with ``target`` the path, or a command with what it is about.
    ``owner`` and ``key_id`` are None for the command line; ``client`` is an address or its name.
    """

    owner: str | None
    key_id: str | None
    action: str
    target: str
    request_id: str
    client: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A deed as it is stored, numbered from 1.

    ``status`` is the answer's, ``BY_COMMAND`` for a command that did it, and None where none was
    given: it is under way, or the service ended, and it is not known how far the deed came.
    ``made`` is the path of what is new.
    """

    seq: int
    at: datetime
    deed: Deed
    status: int | None
    made: str | None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Some entries, newest first; ``next_before`` is None on the last page."""

    entries: tuple[AuditEntry, ...]
    next_before: int | None
