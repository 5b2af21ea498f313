"""Why a request was not served."""

from pydantic import Field

from api.bodies.base import Body
from api.bodies.jobs import State


class ProblemField(Body):
    """One field that is wrong."""

    pointer: str
    """JSON pointer (RFC 6901) into the body, or /query/<name>, or /header/<name>."""
    message: str
    """What is wrong, and what is allowed."""


class Problem(Body):
    """Why a request was not served (RFC 9457)."""

    type: str
    """Stable name of the kind of problem, a URI reference."""
    title: str
    """The kind of problem in words."""
    status: int
    """The HTTP status."""
    detail: str
    """What happened, and what to do."""
    instance: str = ""
    """The path that was asked for."""
    errors: list[ProblemField] = Field(default_factory=list)
    """The fields that are wrong, where fields are."""
    retryable: bool = False
    """Whether the same request may succeed later."""
    request_id: str = ""
    """Name of the request in the service's log; also the header X-Request-ID."""
    state: State | None = None
    """The job's state, where the state forbids the request."""
    jobs: list[str] | None = None
    """The jobs that use the data set, where they forbid the request; the first hundred."""
    studies: list[str] | None = None
    """The studies that use the data set, in the same way."""
    metrics: list[str] | None = None
    """The metrics that a study could be ranked by, where its objective depends on what it tunes."""
