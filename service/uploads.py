"""Uploaded data sets: values only. A name points at a content; the content never changes."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from workers.content import Facts


@dataclass(frozen=True, slots=True)
class Upload:
    """A name and the content that it points at. ``version`` rises when the name moves, and
    ``owner`` may move it; None where no key was needed."""

    name: str
    facts: Facts
    created_at: datetime
    version: int = 1
    owner: str | None = None

    @property
    def revision(self) -> str:
        """What a client names to say which state it has seen: version and content."""
        return f"{self.version}-{self.facts.digest.removeprefix('sha256:')[:16]}"


@dataclass(frozen=True, slots=True)
class Condition:
    """What a client asks of a name before it is changed.

    ``revisions`` are those that it accepts (If-Match; None asks for nothing), ``exists`` that there
    is one at all (If-Match: *), ``is_new`` that there is none (If-None-Match: *).
    """

    revisions: frozenset[str] | None = None
    exists: bool = False
    is_new: bool = False

    @property
    def is_given(self) -> bool:
        """Whether the client has said which state it wants to change."""
        return self.exists or self.revisions is not None

    def holds(self, stored: Upload | None) -> bool:
        """Whether the name is as the client asks."""
        if stored is None:
            return not self.is_given
        if self.is_new:
            return False
        return self.revisions is None or stored.revision in self.revisions


class Change(StrEnum):
    """What an upload did to its name."""

    CREATED = "created"
    MOVED = "moved"
    UNCHANGED = "unchanged"
