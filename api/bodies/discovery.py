"""What can be asked for, and whether the service can work, as they are answered."""

from datetime import datetime
from typing import Literal

from api.bodies.base import Body


class DatasetBody(Body):
    """A data set that a spec can name."""

    name: str
    title: str
    shape: list[int]
    """Shape of one datum: (28, 28) grey picture, (H, W, C) colour picture, (D,) vector."""
    count: int
    """Number of data."""
    is_image: bool
    digest: str
    """sha256 of the content; empty where it is not on this machine."""
    available: bool
    detail: str
    """Where it comes from, or why it is not available and what to do."""
    size_bytes: int
    """Size of the decoded data."""
    uploaded: bool
    """Whether somebody uploaded it; such names can be moved and deleted."""
    created_at: datetime | None
    """When the name got this content; null where it is not an upload."""
    version: int | None
    """Rises when the name moves to other content; null where it is not an upload."""
    owner: str | None
    """Whose key uploaded it; null where no key was needed, and where it is not an upload."""


class DatasetList(Body):
    """The data sets."""

    datasets: list[DatasetBody]


class TrainerBody(Body):
    """A trainer that a spec can name."""

    name: str
    title: str
    description: str
    links: dict[str, str]


class TrainerList(Body):
    """The trainers."""

    trainers: list[TrainerBody]


class PartBody(Body):
    """A part that the service relies on."""

    name: str
    ready: bool
    detail: str


class ReadyBody(Body):
    """Whether the service can do its work, part by part."""

    ready: bool
    parts: list[PartBody]


class LiveBody(Body):
    """The process answers."""

    alive: Literal[True] = True
