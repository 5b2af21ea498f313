"""How the document says that keys are needed, and with which scope."""

from typing import Any

from api.scopes import needed_scope

SCHEME = "api_key"


def add_security(document: dict[str, Any]) -> None:
    """Name the scheme, and the scope that each operation needs.

    An installation without keys needs none, so that the empty requirement stands first.
    """
    document["components"].setdefault("securitySchemes", {})[SCHEME] = {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, made by: spreadtrain keys create. Needed once there is one.",
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scope = needed_scope(method.upper(), path)
            if scope is None:
                operation["security"] = []
                for status in ("401", "429"):
                    operation["responses"].pop(status, None)
            else:
                operation["security"] = [{}, {SCHEME: [scope.value]}]
