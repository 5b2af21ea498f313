"""One study, from the client's side."""

import builtins
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self
from urllib.parse import quote

from api import bodies
from api.client.arrays import Array, arrays_in
from api.client.connection import Connection, job_path, study_path
from api.client.errors import StudyFailed
from api.client.job import JobHandle
from api.client.patience import PATIENCE_S, Patience
from api.client.verbs import Verbs

POLL_S = 1.0
Table = Literal["json", "png", "csv"]
Picture = Literal["json", "png"]
Form = Literal["png", "npz", "json"]
_ENDED = ("succeeded", "failed", "cancelled")


class StudyHandle(Verbs):
    """One study. ``body`` is how it was when it was last read."""

    def __init__(self, connection: Connection, body: bodies.StudyBody) -> None:
        self._connection = connection
        self.body = body

    def __repr__(self) -> str:
        """Id and state."""
        return f"<StudyHandle {self.id} {self.state}>"

    @property
    def id(self) -> str:
        """The study's id."""
        return self.body.id

    @property
    def state(self) -> bodies.State:
        """The state when it was last read."""
        return self.body.state

    def refresh(self) -> "StudyHandle":
        """Read it again."""
        self.body = self._connection.get(bodies.StudyBody, self._path())
        return self

    def watch(
        self,
        poll_s: float = POLL_S,
        *,
        patience_s: float = PATIENCE_S,
        told: Callable[[], None] | None = None,
    ) -> Iterator[bodies.StudyBody]:
        """The study now and whenever it was read again, until it has ended.

        A service that does not answer is waited for, as :meth:`JobHandle.watch` does.
        """
        return self._watch(poll_s, Patience(patience_s, told))

    def _watch(self, poll_s: float, patience: Patience) -> Iterator[bodies.StudyBody]:
        while True:
            yield patience.answer(self.refresh).body
            if self.state in _ENDED:
                return
            patience.pause(poll_s)

    def wait(
        self,
        timeout_s: float | None = None,
        poll_s: float = POLL_S,
        *,
        patience_s: float = PATIENCE_S,
        told: Callable[[], None] | None = None,
    ) -> "StudyHandle":
        """Until it has succeeded; raises StudyFailed, or TimeoutError, or as :meth:`watch` does."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        patience = Patience(patience_s, told, deadline)
        for _ in self._watch(poll_s, patience):
            if timeout_s is not None and patience.left_s == 0 and self.state not in _ENDED:
                raise TimeoutError(f"{self.id} is {self.state} after {timeout_s:g} s")
        if self.state != "succeeded":
            raise StudyFailed(self.id, self.state, self.body.reason, self.body.message)
        return self

    # --- what becomes of it -----------------------------------------------------------------------

    def extend(self, **budget: float | None) -> "StudyHandle":
        """Raise limits of its budget (``trials``, ``max_wall_s``, ``max_epochs``), unless it has
        changed since it was read; None takes a limit away. Seconds and epochs are of the search,
        and the confirmation comes on top."""
        answer = self._connection.request(
            "PATCH",
            self._path(),
            json={"budget": budget},
            headers={"If-Match": f'"{self.body.version}"'},
        )
        self.body = self._connection.parsed(bodies.StudyBody, answer.content)
        return self

    def retry(self) -> Self:
        """Let it go on after it failed or was cancelled, from all that it knows."""
        return self._ask("retry")

    def _ask(self, verb: str) -> Self:
        answer = self._connection.request("POST", self._path(verb))
        self.body = self._connection.parsed(bodies.StudyIntentBody, answer.content).study
        return self

    def delete(self) -> None:
        """Delete it with its trials; it must have ended."""
        self._connection.delete(self._path())

    # --- what came of it --------------------------------------------------------------------------

    def trials(
        self,
        *,
        state: bodies.State | None = None,
        phase: bodies.Phase | None = None,
        configuration: int | None = None,
    ) -> Iterator[bodies.TrialBody]:
        """Its trials that match, in their order."""
        params: dict[str, str | int | None] = {
            "state": state,
            "phase": phase,
            "configuration": configuration,
            "limit": 100,
        }
        while True:
            page = self._connection.get(bodies.TrialPage, self._path("trials"), params)
            yield from page.trials
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    def trials_csv(self) -> str:
        """All trials as a table."""
        return self._content("trials", {"format": "csv"}).decode()

    def job(self, trial: bodies.TrialBody) -> JobHandle:
        """The job that a trial is."""
        path = job_path(trial.job)
        return JobHandle(self._connection, self._connection.get(bodies.JobBody, path))

    def best(self) -> bodies.BestBody:
        """The best as far as it is known; ``stage`` says whether it is confirmed."""
        return self._connection.get(bodies.BestBody, self._path("best"))

    def curve(self, *parameters: str, metric: str | None = None) -> bodies.CurveBody:
        """A metric, or the objective, against one or two parameters by JSON pointer."""
        content = self.curve_bytes("json", *parameters, metric=metric)
        return self._connection.parsed(bodies.CurveBody, content)

    def curve_bytes(self, form: Table, *parameters: str, metric: str | None = None) -> bytes:
        """The curve as the bytes of a png, csv or JSON file."""
        params: dict[str, str | Sequence[str] | None] = {"parameter": parameters}
        return self._content("curve", {**params, "metric": metric, "format": form})

    def pareto(self, second: str | None = None) -> bodies.ParetoBody:
        """The objective against the second one, or against the metric that is named."""
        return self._connection.parsed(bodies.ParetoBody, self.pareto_bytes("json", second))

    def pareto_bytes(self, form: Picture, second: str | None = None) -> bytes:
        """The front as the bytes of a png or JSON file."""
        return self._content("pareto", {"second": second, "format": form})

    def importance(
        self, metric: str | None = None, evaluator: str = "ped_anova"
    ) -> bodies.ImportanceBody:
        """How much each parameter matters, by an evaluator of Optuna."""
        content = self.importance_bytes("json", metric, evaluator)
        return self._connection.parsed(bodies.ImportanceBody, content)

    def importance_bytes(
        self, form: Picture, metric: str | None = None, evaluator: str = "ped_anova"
    ) -> bytes:
        """The importances as the bytes of a png or JSON file."""
        asked = {"metric": metric, "evaluator": evaluator, "format": form}
        return self._content("importance", asked)

    def parallel(self, metric: str | None = None) -> bodies.ParallelBody:
        """Every trial as a line through its values."""
        return self._connection.parsed(bodies.ParallelBody, self.parallel_bytes("json", metric))

    def parallel_bytes(self, form: Picture, metric: str | None = None) -> bytes:
        """Parallel coordinates as the bytes of a png or JSON file."""
        return self._content("parallel", {"metric": metric, "format": form})

    def samples(self, n: int = 8, seed: int = 0, k: int = 3) -> Array:
        """The same n latents over the best k trials, (k, n, *shape of one datum)."""
        return arrays_in(self.samples_bytes("npz", n, seed, k))["samples"]

    def samples_bytes(self, form: Form, n: int = 8, seed: int = 0, k: int = 3) -> bytes:
        """The samples as the bytes of a png, npz or JSON file."""
        return self._content("samples", {"n": n, "seed": seed, "k": k, "format": form})

    def promote(
        self,
        configuration: int | None = None,
        *,
        epochs: int | None = None,
        name: str | None = None,
        start: Literal["train_state", "weights", "scratch"] | None = None,
        idempotency_key: str | None = None,
    ) -> JobHandle:
        """A new job that goes on from the last checkpoint of a configuration's best trial, or from
        ``scratch`` trains what it did; of the best one, once it is confirmed, without a number.
        A trial that came to its end goes on with more ``epochs`` in all than it has made."""
        answer = self._connection.request(
            "POST",
            self._path("promote"),
            json={"configuration": configuration, "epochs": epochs, "name": name, "start": start},
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        promoted = self._connection.parsed(bodies.IntentBody, answer.content).job
        return JobHandle(self._connection, promoted)

    def _content(self, below: str, params: Mapping[str, str | int | Sequence[str] | None]) -> bytes:
        return self._connection.request("GET", self._path(below), params=params).content

    def _path(self, below: str = "") -> str:
        return f"{study_path(self.id)}/{below}" if below else study_path(self.id)


class Studies:
    """The studies of a service: ``client.studies``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def submit(
        self, request: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> StudyHandle:
        """Submit a study; without an ``idempotency_key`` each call makes a new one."""
        answer = self._connection.request(
            "POST",
            "/v1/studies",
            json=dict(request),
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
        )
        return StudyHandle(
            self._connection, self._connection.parsed(bodies.StudyBody, answer.content)
        )

    def plan(self, request: Mapping[str, Any]) -> bodies.StudyPlanBody:
        """What a submission would do at most; nothing is stored."""
        answer = self._connection.request(
            "POST", "/v1/studies", json=dict(request), params={"dry_run": True}
        )
        return self._connection.parsed(bodies.StudyPlanBody, answer.content)

    def presets(self) -> builtins.list[bodies.PresetSummary]:
        """The standing questions that there are."""
        return self._connection.get(bodies.PresetList, "/v1/studies/presets").presets

    def preset(self, name: str, **options: str | int | float | bool | None) -> bodies.PresetBody:
        """A standing question for a data set: ``preset("spread-scale", dataset="mnist-10k")``.

        Its ``request`` can be changed and submitted; the interface's document has the options.
        """
        path = f"/v1/studies/presets/{quote(name, safe='')}"
        return self._connection.get(bodies.PresetBody, path, options)

    def get(self, study_id: str) -> StudyHandle:
        """The study with that id."""
        body = self._connection.get(bodies.StudyBody, study_path(study_id))
        return StudyHandle(self._connection, body)

    def list(
        self, *, state: bodies.State | None = None, page_size: int = 100
    ) -> Iterator[bodies.StudySummary]:
        """All studies that match, newest first."""
        params: dict[str, str | int | None] = {"state": state, "limit": page_size}
        while True:
            page = self._connection.get(bodies.StudyPageBody, "/v1/studies", params)
            yield from page.studies
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor
