"""Tracing of the service's own process; see :mod:`workers.tracing`."""

from service.errors import ConfigurationError
from service.settings import Settings
from workers.errors import TracingUnavailable
from workers.tracing import OFF, Span, Tracing, open_tracing, trace_id

__all__ = ["OFF", "Span", "Tracing", "trace_id", "tracing_of"]


def tracing_of(settings: Settings) -> Tracing:
    """Tracing as the settings say; raises ConfigurationError."""
    try:
        return open_tracing(settings.tracing, "service")
    except TracingUnavailable as error:
        raise ConfigurationError(f"SPREADTRAIN_TRACING: {error}") from error
