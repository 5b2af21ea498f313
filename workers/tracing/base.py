"""What tracing is to those who are traced; and none, which does nothing."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
Kind = Literal["internal", "server", "producer", "consumer"]


def trace_id(traceparent: str | None) -> str | None:
    """The id of the trace that a traceparent belongs to; None where it is none."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return None if match is None else match[1]


class Span:
    """A stretch of work in a trace; this one is of no trace, and does nothing."""

    traceparent: str | None = None

    def set(self, **attributes: str | int) -> None:
        """Say something of it; two underscores in a name become a point."""

    def rename(self, name: str) -> None:
        """Give it another name."""

    def failed(self, why: str) -> None:
        """It did not do what it should."""


class Tracing:
    """Makes spans. This one is off: it makes none."""

    location = ""

    @contextmanager
    def span(
        self,
        name: str,
        parent: str | None = None,
        kind: Kind = "internal",
        **attributes: str | int,
    ) -> Iterator[Span]:
        """A span around the block, in the trace of the traceparent, or else of the span around it.

        An exception marks it as failed.
        """
        yield Span()

    def current(self) -> str | None:
        """The traceparent of the span around the caller, for who goes on elsewhere."""
        return None

    def close(self) -> None:
        """Deliver what is left, for a few seconds at most."""


OFF = Tracing()
