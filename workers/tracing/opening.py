"""Opens tracing, for a process and for an attempt."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from workers.errors import TracingUnavailable
from workers.tracing.base import OFF, Span, Tracing

log = logging.getLogger(__name__)

# Of the attempt that a thread works on, so that its stages need not be handed it.
_of_the_attempt: ContextVar[Tracing] = ContextVar("tracing", default=OFF)


def open_tracing(location: str, role: str) -> Tracing:
    """Tracing to a place: ``http(s)://collector:4318``, ``file:///folder``, or "" for none.

    ``role`` says what this process is. Raises TracingUnavailable.
    """
    if not location:
        return OFF
    try:
        from workers.tracing.exporting import OpenTelemetry

        return OpenTelemetry(location, role)
    except ImportError as error:
        raise TracingUnavailable from error
    except OSError as error:
        raise TracingUnavailable(f"{location} cannot be written: {error.strerror}") from error


def try_tracing(location: str) -> None:
    """Deliver nothing to a place, to see whether it takes it; raises TracingUnavailable."""
    try:
        from workers.tracing.exporting import deliver_nothing
    except ImportError as error:
        raise TracingUnavailable from error
    deliver_nothing(location)


@contextmanager
def attempt_span(
    location: str, traceparent: str | None, job_id: str, attempt: int, rank: int
) -> Iterator[Span]:
    """A span around one worker's part in an attempt; its stages are spans within it.

    An attempt that cannot be traced is run all the same.
    """
    tracing = OFF
    try:
        tracing = open_tracing(location, "worker")
    except TracingUnavailable as error:
        log.warning("this attempt is not traced: %s", error)
    token = _of_the_attempt.set(tracing)
    try:
        with tracing.span(
            "attempt",
            traceparent,
            "consumer",
            spreadtrain__job=job_id,
            spreadtrain__attempt=attempt,
            spreadtrain__rank=rank,
        ) as span:
            yield span
    finally:
        _of_the_attempt.reset(token)
        tracing.close()


@contextmanager
def stage(name: str) -> Iterator[Span]:
    """A span around a stage of the attempt that this thread works on."""
    with _of_the_attempt.get().span(name) as span:
        yield span
