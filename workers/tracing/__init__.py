"""Traces in W3C's form (Trace Context, level 1), through OpenTelemetry; off unless asked for.

A trace begins with a request, or goes on from the caller's ``traceparent``. It crosses to other
processes as that text: in the job's row, and in the run that a worker is given. Spans go to a
collector, by OTLP over HTTP, or into a folder, as a file of JSON lines for each process. Where
tracing is off, nothing of OpenTelemetry's SDK is imported. No failure to deliver a span fails what
it is about.
"""

from workers.tracing.base import OFF, Kind, Span, Tracing, trace_id
from workers.tracing.opening import attempt_span, open_tracing, stage, try_tracing

__all__ = [
    "OFF",
    "Kind",
    "Span",
    "Tracing",
    "attempt_span",
    "open_tracing",
    "stage",
    "trace_id",
    "try_tracing",
]
