"""The application: routes, error handlers, and the services behind them."""

from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from api import (
    audit,
    bodies,
    datasets,
    events,
    explain,
    health,
    interpolations,
    jobs,
    lifecycle,
    logs,
    mixing,
    reconstructions,
    results,
    retention,
    samples,
    studies,
    study_answers,
    study_curves,
    study_plots,
    study_presets,
    study_samples,
    study_verbs,
    trainers,
)
from api.crowd import Crowd
from api.dependencies import Services
from api.errors import (
    CROSS_ORIGIN,
    FOREIGN_HOST,
    INSUFFICIENT_SCOPE,
    INTERNAL_ERROR,
    KEY_NEEDED,
    OVERLOADED,
    SERVICE_PROBLEMS,
    TOO_MANY_REQUESTS,
    UNKNOWN_KEY,
    add_error_handlers,
    documented,
)
from api.examples import add_examples
from api.figures import HttpFigures, ServiceFigures
from api.guard import Guard
from api.links import add_links
from api.middleware import Entrance, hosts_of
from api.security import add_security
from api.study_figures import StudyFigures
from service import __version__, errors
from service.settings import Settings
from service.tracing import OFF, Tracing

__all__ = ["Services", "create_app", "describe"]

_DESCRIPTION = """\
Training implicit generative models by spread divergence: submit a job, follow it, fetch samples.

Every error is `application/problem+json` (RFC 9457). Its `type` is stable, its `detail` says what
to do, and `errors` points at the fields. Query parameters that are not known are errors.

Once an API key was made, requests need one: `Authorization: Bearer KEY`. Its scope is `read`,
`write` (which includes `read`) or `admin` (everything); each operation names the one that it needs.
With `write` one changes what belongs to one's own key's owner.
"""


class _App(FastAPI):
    """FastAPI with problems and examples in its description."""

    def openapi(self) -> dict[str, Any]:
        """See FastAPI."""
        if self.openapi_schema is None:
            schema = super().openapi()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            problem = bodies.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= problem.pop("$defs")
            schemas["Problem"] = problem
            _sharpen_parameters(schema)
            add_examples(schema)
            add_links(schema)
            add_security(schema)
        assert self.openapi_schema is not None
        return self.openapi_schema


def _sharpen_parameters(document: dict[str, Any]) -> None:
    """Say of parameters what FastAPI does not: in a URL nothing is null, and no text holds NUL."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                schema = parameter["schema"]
                kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
                if len(kinds) == 1:
                    del schema["anyOf"]
                    schema = parameter["schema"] = kinds[0] | schema
                if parameter["in"] == "query":
                    for part in (schema, schema.get("items", {})):
                        if part.get("type") == "string" and "enum" not in part:
                            part.setdefault("pattern", r"^[^\u0000]*$")


def _application(settings: Settings, tracing: Tracing = OFF) -> _App:
    """The application without services behind it."""
    app = _App(
        title="spreadtrain",
        version=__version__,
        description=_DESCRIPTION,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        responses=documented(
            KEY_NEEDED,
            UNKNOWN_KEY,
            CROSS_ORIGIN,
            INSUFFICIENT_SCOPE,
            FOREIGN_HOST,
            TOO_MANY_REQUESTS,
            INTERNAL_ERROR,
            OVERLOADED,
            SERVICE_PROBLEMS[errors.NotReady],
        ),
    )
    add_error_handlers(app)
    app.add_middleware(Guard, crowd=Crowd(settings.max_requests, settings.max_followers))
    app.state.registry = registry = CollectorRegistry()
    app.add_middleware(
        Entrance,
        hosts=hosts_of(settings),
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
        figures=HttpFigures(registry),
        tracing=tracing,
    )
    app.state.checks = CapacityLimiter(datasets.CHECKS_AT_ONCE)
    for module in (
        jobs,
        explain,
        lifecycle,
        retention,
        events,
        logs,
        results,
        samples,
        reconstructions,
        interpolations,
        mixing,
        trainers,
        study_presets,  # before the study whose id would be "presets"
        studies,
        study_verbs,
        study_answers,
        study_curves,
        study_plots,
        study_samples,
        audit,
        health,
    ):
        # Inside the entrance, which answers to a declared length; this counts undeclared ones.
        app.include_router(module.router, max_body_size=settings.max_body_bytes)
    app.include_router(datasets.router, max_body_size=settings.max_upload_bytes)
    return app


def create_app(services: Services, settings: Settings) -> FastAPI:
    """The application in front of the services."""
    app = _application(settings, services.tracing)
    app.state.services = services
    app.state.registry.register(ServiceFigures(services))
    app.state.registry.register(services.measures.registry)
    app.state.registry.register(StudyFigures(services))
    return app


def describe() -> dict[str, Any]:
    """The OpenAPI document; it depends on nothing but the code."""
    return _application(Settings()).openapi()
