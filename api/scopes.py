"""What each request needs: no key, or a key with a scope."""

import re

from service.access.keys import Scope

# What says whether the service lives and how it is: no name and no id is in it.
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
# The document is in the repository, and its pages hold nothing else.
_DOCUMENTS = frozenset({"/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"})
_FOR_ADMINS = ("/v1/sweep", "/v1/audit")
_COMPUTATION = re.compile(r"/v1/jobs/[^/]+/sources")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def needed_scope(method: str, path: str) -> Scope | None:
    """The scope that a request needs; None where no key is needed.

    Reading needs ``read``, also where data are posted to be computed with; whatever changes
    something needs ``write``; and what is about all that there is, ``admin``.
    """
    if path in PROBES or path in _DOCUMENTS:
        return None
    if any(path == page or path.startswith(f"{page}/") for page in _FOR_ADMINS):
        return Scope.ADMIN
    return Scope.WRITE if changes_something(method, path) else Scope.READ


def changes_something(method: str, path: str) -> bool:
    """Whether a request may change what is stored, so that it is recorded."""
    if method in _SAFE_METHODS:
        return False
    return method != "POST" or _COMPUTATION.fullmatch(path) is None
