"""A service that asks for keys, and the people who have some."""

from collections.abc import Mapping
from typing import Any

import httpx2

from service.access.keys import NO_LIMITS, KeyLimits, Scope, new_secret
from service.access.making import stored_key
from service.jobstore import JobStore
from tests.factories import request
from tests.unit.api.conftest import Quiet


class Holder:
    """Who has a key."""

    def __init__(self, quiet: Quiet, key_id: str, secret: str) -> None:
        self._quiet = quiet
        self.key_id = key_id
        self.secret = secret
        self.headers = {"Authorization": f"Bearer {secret}"}

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **how: Any
    ) -> httpx2.Response:
        return self._quiet.http.request(
            method, path, headers={**self.headers, **(headers or {})}, **how
        )

    def submit(self, **fields: Any) -> str:
        """The id of a new job."""
        answer = self.ask("POST", "/v1/jobs", json=body(**fields))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


def body(**fields: Any) -> dict[str, Any]:
    """A job's request."""
    return request(**fields).model_dump(mode="json")


def holder(
    quiet: Quiet, owner: str, scope: Scope = Scope.WRITE, limits: KeyLimits = NO_LIMITS
) -> Holder:
    """Somebody with a new key."""
    key_id, secret = made(quiet.jobs, owner, scope, limits)
    return Holder(quiet, key_id, secret)


def made(
    jobs: JobStore, owner: str, scope: Scope = Scope.WRITE, limits: KeyLimits = NO_LIMITS
) -> tuple[str, str]:
    """The id and the secret of a new key."""
    secret = new_secret()
    key = stored_key(secret, owner, scope, limits)
    jobs.keys.add(key)
    return key.id, secret
