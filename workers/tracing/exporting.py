"""Spans by OpenTelemetry's SDK, an optional extra: only who traces imports this."""

import logging
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span as VendorSpan
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from workers import __version__
from workers.errors import TracingUnavailable
from workers.tracing.base import Kind, Span, Tracing, trace_id

EXPORT_TIMEOUT_S = 3.0  # a collector that is silent holds up the end of an attempt no longer


class OpenTelemetry(Tracing):
    """Tracing to a place, see :func:`workers.tracing.open_tracing`; raises OSError."""

    def __init__(self, location: str, role: str) -> None:
        self.location = location
        about: dict[str, str | int] = {
            "service.name": "spreadtrain",
            "service.version": __version__,
            "spreadtrain.role": role,
            "process.pid": os.getpid(),
        }
        exporter = _exporter(location, role)
        self._provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("spreadtrain", __version__)

    @contextmanager
    def span(
        self,
        name: str,
        parent: str | None = None,
        kind: Kind = "internal",
        **attributes: str | int,
    ) -> Iterator[Span]:
        """See the base class."""
        context = None
        if parent is not None and trace_id(parent) is not None:
            context = TraceContextTextMapPropagator().extract({"traceparent": parent})
        with self._tracer.start_as_current_span(
            name, context=context, kind=SpanKind[kind.upper()], attributes=_named(attributes)
        ) as span:
            yield _Traced(span)

    def current(self) -> str | None:
        """See the base class."""
        return _traceparent(get_current_span())

    def close(self) -> None:
        """See the base class."""
        self._provider.shutdown()


class _Traced(Span):
    def __init__(self, span: VendorSpan) -> None:
        self._span = span
        self.traceparent = _traceparent(span)

    def set(self, **attributes: str | int) -> None:
        """See the base class."""
        self._span.set_attributes(_named(attributes))

    def rename(self, name: str) -> None:
        """See the base class."""
        self._span.update_name(name)

    def failed(self, why: str) -> None:
        """See the base class."""
        self._span.set_status(StatusCode.ERROR, why)


def _named(attributes: Mapping[str, str | int]) -> dict[str, str | int]:
    return {name.replace("__", "."): value for name, value in attributes.items()}


def _traceparent(span: VendorSpan) -> str | None:
    found = span.get_span_context()
    if not found.is_valid:
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


class _JsonLines(SpanExporter):
    """Spans as JSON lines in a file of this process's own."""

    def __init__(self, folder: Path, role: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{role}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self._file = (folder / name).open("a", encoding="utf-8")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See the base class."""
        try:
            for span in spans:
                self._file.write(f"{span.to_json(indent=None)}\n")
            self._file.flush()
        except OSError:
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """See the base class."""
        self._file.close()


class _Complaints(logging.Handler):
    """What the exporter says instead of raising it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See the base class."""
        self.said.append(record.getMessage())


def deliver_nothing(location: str) -> None:
    """Deliver no spans to a place; raises TracingUnavailable with what came of it."""
    complaints, logger = _Complaints(), logging.getLogger("opentelemetry")
    logger.addHandler(complaints)
    logger.propagate = False
    try:
        exporter = _exporter(location, "check")
        result = exporter.export(())
        exporter.shutdown()
    except OSError as error:
        raise TracingUnavailable(f"{location} cannot be written: {error.strerror}") from error
    finally:
        logger.removeHandler(complaints)
        logger.propagate = True
    if result is not SpanExportResult.SUCCESS:
        why = complaints.said[-1] if complaints.said else "it does not answer"
        raise TracingUnavailable(
            f"{location} takes no spans: {why}; see that a collector listens there for OTLP over "
            "HTTP, and what it wants in OTEL_EXPORTER_OTLP_HEADERS"
        )


def _exporter(location: str, role: str) -> SpanExporter:
    url = urlsplit(location)
    if url.scheme == "file":
        return _JsonLines(Path(unquote(url.path)), role)
    # Headers and certificates come from OTEL_EXPORTER_OTLP_…, which each node has for itself.
    return OTLPSpanExporter(f"{location.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
