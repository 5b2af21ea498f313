"""The client's front: submit, find, list."""

import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from api import bodies
from api.client.answers import check
from api.client.connection import (
    DEFAULT_URL,
    TIMEOUT_S,
    Connection,
    dataset_path,
    job_path,
)
from api.client.errors import ApiError, ClientError
from api.client.job import JobHandle
from api.client.study import Studies, StudyHandle
from service.errors import ConfigurationError
from service.settings import client_key

SWEEP_POLL_S = 0.2
NOT_FOUND, NOT_READY = 404, 503


class Client:
    """A service at an address; close it, or use it in a ``with`` block.

    Without an ``api_key`` that of the environment is used, where there is one:
    SPREADTRAIN_API_KEY, or the content of the file that SPREADTRAIN_API_KEY_FILE names. Raises
    ClientError for a key that cannot be one.
    """

    def __init__(
        self, url: str = DEFAULT_URL, *, timeout_s: float = TIMEOUT_S, api_key: str | None = None
    ) -> None:
        try:
            key = client_key() if api_key is None else api_key
        except ConfigurationError as error:
            raise ClientError(str(error)) from None
        self.connection = Connection(url, timeout_s, key)
        self.studies = Studies(self.connection)

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.connection.close()

    # --- jobs -----------------------------------------------------------------------------------

    def submit(
        self,
        spec: Mapping[str, Any],
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int | None = None,
        limits: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> "JobHandle":
        """Submit a spec, or a whole request (a mapping with the key ``spec``).

        The other arguments replace what the request says. Without an ``idempotency_key`` each
        call makes a new job.
        """
        request = _request_body(spec, name, labels, priority, limits)
        key = idempotency_key or uuid.uuid4().hex
        answer = self.connection.request(
            "POST", "/v1/jobs", json=request, headers={"Idempotency-Key": key}
        )
        return JobHandle(self.connection, self.connection.parsed(bodies.JobBody, answer.content))

    def plan(
        self,
        spec: Mapping[str, Any],
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> bodies.PlanBody:
        """What a submission would do, with the arguments of :meth:`submit`; nothing is stored."""
        request = _request_body(spec, name, labels, priority, limits)
        answer = self.connection.request("POST", "/v1/jobs", json=request, params={"dry_run": True})
        return self.connection.parsed(bodies.PlanBody, answer.content)

    def job(self, job_id: str) -> "JobHandle":
        """The job with that id."""
        return JobHandle(self.connection, self.connection.get(bodies.JobBody, job_path(job_id)))

    def jobs(
        self,
        *,
        state: bodies.State | None = None,
        trainer: str | None = None,
        dataset: str | None = None,
        label: str | None = None,
        study: str | None = None,
        page_size: int = 100,
    ) -> Iterator[bodies.JobSummary]:
        """All jobs that match, newest first; ``label`` is ``key`` or ``key=value``, ``study`` the
        id of the study of which they are trials."""
        params: dict[str, str | int | None] = {
            "state": state,
            "trainer": trainer,
            "dataset": dataset,
            "label": label,
            "study": study,
            "limit": page_size,
        }
        while True:
            page = self.connection.get(bodies.JobPage, "/v1/jobs", params)
            yield from page.jobs
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    def submit_study(
        self, request: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> StudyHandle:
        """Submit a study; see ``studies`` for what else there is."""
        return self.studies.submit(request, idempotency_key=idempotency_key)

    # --- discovery ------------------------------------------------------------------------------

    def datasets(self) -> list[bodies.DatasetBody]:
        """The data sets that a spec can name."""
        return self.connection.get(bodies.DatasetList, "/v1/datasets").datasets

    def dataset(self, name: str) -> bodies.DatasetBody:
        """What is known of one data set."""
        return self.connection.get(bodies.DatasetBody, dataset_path(name))

    def upload(self, name: str, path: str | Path, *, replace: bool = False) -> bodies.DatasetBody:
        """Upload a file (npz, idx, csv, or a zip of pictures) as a data set of that name.

        A name that has other content moves only with ``replace``, and then only from the content
        that it has now; jobs that pin the old content keep it.
        """
        headers = {}
        if replace:
            try:
                now = self.connection.request("GET", dataset_path(name))
                headers["If-Match"] = now.headers.get("etag", "")
            except ApiError as error:
                if error.problem.status != NOT_FOUND:
                    raise
        answer = self.connection.upload(dataset_path(name), Path(path), headers)
        return self.connection.parsed(bodies.DatasetBody, answer.content)

    def delete_dataset(self, name: str) -> None:
        """Forget an uploaded data set; refused while jobs or studies use it."""
        self.connection.delete(dataset_path(name))

    def sweep(self, *, dry_run: bool = False, wait: bool = True) -> bodies.SweepBody:
        """Remove what nobody needs from the stores, or only find it; what was found.

        Without ``wait`` it is as far as it is; :meth:`last_sweep` tells the rest.
        """
        answer = self.connection.request("POST", "/v1/sweep", params={"dry_run": dry_run})
        found = self.connection.parsed(bodies.SweepBody, answer.content)
        while wait and found.state == "running":
            time.sleep(SWEEP_POLL_S)
            found = self.last_sweep()
        return found

    def last_sweep(self) -> bodies.SweepBody:
        """The last sweep, also one of the service's own."""
        return self.connection.get(bodies.SweepBody, "/v1/sweep")

    def trainers(self) -> list[bodies.TrainerBody]:
        """The trainers that a spec can name."""
        return self.connection.get(bodies.TrainerList, "/v1/trainers").trainers

    def ready(self) -> bodies.ReadyBody:
        """Whether the service can do its work, part by part."""
        answer = self.connection.ask("GET", "/readyz")
        if answer.status_code == NOT_READY:
            try:
                return bodies.ReadyBody.model_validate_json(answer.content)
            except ValidationError:
                pass  # of a proxy
        check(self.connection.url, answer)
        return self.connection.parsed(bodies.ReadyBody, answer.content)


def _request_body(
    spec: Mapping[str, Any],
    name: str | None,
    labels: Mapping[str, str] | None,
    priority: int | None,
    limits: Mapping[str, Any] | None,
) -> dict[str, Any]:
    request = dict(spec) if "spec" in spec else {"spec": dict(spec)}
    given = {"name": name, "labels": labels, "priority": priority, "limits": limits}
    return request | {key: value for key, value in given.items() if value is not None}
