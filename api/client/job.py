"""One job, from the client's side."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

from api import bodies
from api.client.arrays import Array, Interpolations, Reconstructions, arrays_in
from api.client.connection import Connection, Event, job_path
from api.client.errors import JobFailed
from api.client.figure import FigureResults
from api.client.following import events_of
from api.client.ica import IcaResults
from api.client.patience import PATIENCE_S, Patience
from api.client.verbs import Verbs

Form = Literal["png", "npz", "json"]
Between = Literal["prior", "data"]
PathKind = Literal["spherical", "linear"]
_FINAL = ("succeeded", "failed", "cancelled")


class JobHandle(Verbs):
    """One job. ``body`` is how it was when it was last read."""

    def __init__(self, connection: Connection, body: bodies.JobBody) -> None:
        self._connection = connection
        self.body = body

    def __repr__(self) -> str:
        """Id and state."""
        return f"<JobHandle {self.id} {self.state}>"

    @property
    def id(self) -> str:
        """The job's id."""
        return self.body.id

    @property
    def state(self) -> bodies.State:
        """The state when it was last read."""
        return self.body.state

    def refresh(self) -> "JobHandle":
        """Read it again."""
        self.body = self._connection.get(bodies.JobBody, self._path())
        return self

    def explain(self) -> bodies.ExplanationBody:
        """Why it waits, is slow, or has ended so, and what would change it."""
        return self._connection.get(bodies.ExplanationBody, self._path("explain"))

    def wait(
        self,
        timeout_s: float | None = None,
        *,
        patience_s: float = PATIENCE_S,
        told: Callable[[], None] | None = None,
    ) -> "JobHandle":
        """Until it has succeeded; raises JobFailed, or TimeoutError, or as :meth:`watch` does."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        patience = Patience(patience_s, told, deadline)
        while True:
            for _ in events_of(self._connection, self.id, patience):
                pass
            patience.answer(self.refresh)
            if self.state in _FINAL:
                break
            if timeout_s is not None and patience.left_s == 0:
                raise TimeoutError(f"{self.id} is {self.state} after {timeout_s:g} s")
            # It was retried behind its end; what it does now is waited for.
        if self.state != "succeeded":
            raise JobFailed(self.id, self.state, self.body.reason, self.body.message)
        return self

    def watch(
        self, patience_s: float = PATIENCE_S, *, told: Callable[[], None] | None = None
    ) -> Iterator[Event]:
        """Its events from the first to the ``end``, over broken connections.

        A service that does not answer is waited for, from the first failed attempt on, for
        ``patience_s``; ``told`` is called each time that this begins. Raises Unreachable, or
        ApiError, when that is over.
        """
        return events_of(self._connection, self.id, Patience(patience_s, told))

    def logs(
        self,
        *,
        attempt: int | None = None,
        rank: int | None = None,
        tail: int | None = None,
        follow: bool = False,
        patience_s: float = PATIENCE_S,
        told: Callable[[], None] | None = None,
    ) -> Iterator[bodies.LogLineBody]:
        """What its attempts said, or one of them, or the worker ``rank`` of each, or the last
        lines; ``follow`` goes on until the job ends, over broken connections. Raises as
        :meth:`watch` does."""
        params: dict[str, str | int | None] = {"attempt": attempt, "rank": rank}
        params |= {"tail": tail, "format": "json"}
        # Without ``follow`` it is one question, which is answered or not.
        patience = Patience(patience_s, told)

        def read() -> bodies.LogPageBody:
            return self._connection.get(bodies.LogPageBody, self._path("logs"), params)

        while True:
            page = patience.answer(read) if follow else read()
            yield from page.lines
            if not page.has_more:
                break
            params |= {"tail": None, "after": page.next_after}
        if not follow or page.is_ended:
            return
        after = int(page.next_after.partition("-")[0])
        for event in events_of(self._connection, self.id, patience, after=after, kinds=("log",)):
            if event.kind == "log" and attempt in (None, event.attempt):
                speaker = event.data["rank"]
                if rank not in (None, speaker):
                    continue
                for entry in event.data["entries"]:
                    line = {**entry, "attempt": event.attempt, "rank": speaker}
                    yield bodies.LogLineBody.model_validate(line)

    def retry(self, limits: Mapping[str, Any] | None = None) -> Self:
        """Let it go on as a new attempt after it failed or was cancelled; ``limits`` (such as
        ``max_wall_s``) replace the job's where they are named."""
        return self._ask("retry", {"limits": dict(limits)} if limits else None)

    def fork(
        self,
        spec: Mapping[str, Any] | None = None,
        *,
        checkpoint: str = "latest",
        start: Literal["train_state", "weights"] = "train_state",
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int | None = None,
        limits: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> "JobHandle":
        """A new job from one of its checkpoints; ``spec`` holds the changes (RFC 7396).

        ``train_state`` goes on with optimiser and step, ``weights`` begins at step 0.
        """
        changes = {"name": name, "labels": labels, "priority": priority, "limits": limits}
        body = {"checkpoint": checkpoint, "start": start, "spec": spec or {}} | {
            key: value for key, value in changes.items() if value is not None
        }
        key = idempotency_key or uuid.uuid4().hex
        answer = self._connection.request(
            "POST", self._path("fork"), json=body, headers={"Idempotency-Key": key}
        )
        forked = self._connection.parsed(bodies.IntentBody, answer.content).job
        return JobHandle(self._connection, forked)

    def _ask(self, verb: str, body: Mapping[str, Any] | None = None) -> Self:
        answer = self._connection.request("POST", self._path(verb), json=body)
        self.body = self._connection.parsed(bodies.IntentBody, answer.content).job
        return self

    def delete(self) -> None:
        """Delete it with all that it has; it must have ended."""
        self._connection.delete(self._path())

    def set_labels(self, labels: Mapping[str, str]) -> "JobHandle":
        """Replace its labels, unless it has changed since it was read."""
        answer = self._connection.request(
            "PATCH",
            self._path(),
            json={"labels": dict(labels)},
            headers={"If-Match": f'"{self.body.version}"'},
        )
        self.body = self._connection.parsed(bodies.JobBody, answer.content)
        return self

    @property
    def ica(self) -> IcaResults:
        """The mixing matrix and sources of a job of the trainer ``ica``."""
        return IcaResults(self._connection, self._path())

    @property
    def figure(self) -> FigureResults:
        """Picture, table, numbers and verdicts of a job of the trainer ``paper``."""
        return FigureResults(self._connection, self._path())

    # --- results ----------------------------------------------------------------------------------

    def samples(
        self, n: int = 64, seed: int = 0, checkpoint: str = "latest", *, spread: bool = False
    ) -> Array:
        """Samples as an array of shape (n, *shape of one datum)."""
        content = self.samples_bytes("npz", n, seed, checkpoint, spread=spread)
        return arrays_in(content)["samples"]

    def samples_png(
        self, n: int = 64, seed: int = 0, checkpoint: str = "latest", *, spread: bool = False
    ) -> bytes:
        """Samples as a grid (vectors: a scatter plot)."""
        return self.samples_bytes("png", n, seed, checkpoint, spread=spread)

    def samples_bytes(
        self,
        form: Form,
        n: int = 64,
        seed: int = 0,
        checkpoint: str = "latest",
        *,
        spread: bool = False,
    ) -> bytes:
        """Samples as the bytes of a png, npz or JSON file."""
        more = {"spread": "true"} if spread else {}
        return self._drawn("samples", form, n, seed, checkpoint, more)

    def reconstructions(
        self, n: int = 16, seed: int = 0, checkpoint: str = "latest"
    ) -> Reconstructions:
        """Held-out data, what the encoder sees of them, and their reconstructions."""
        arrays = arrays_in(self.reconstructions_bytes("npz", n, seed, checkpoint))
        return Reconstructions(arrays["x"], arrays["y"], arrays["z"], arrays["g"])

    def reconstructions_png(self, n: int = 16, seed: int = 0, checkpoint: str = "latest") -> bytes:
        """Data, what the encoder sees of them, and reconstructions, in labelled rows."""
        return self.reconstructions_bytes("png", n, seed, checkpoint)

    def reconstructions_bytes(
        self, form: Form, n: int = 16, seed: int = 0, checkpoint: str = "latest"
    ) -> bytes:
        """Reconstructions as the bytes of a png, npz or JSON file."""
        return self._drawn("reconstructions", form, n, seed, checkpoint, {})

    def interpolations(
        self,
        n: int = 8,
        seed: int = 0,
        checkpoint: str = "latest",
        *,
        steps: int = 10,
        between: Between = "prior",
        path: PathKind = "spherical",
    ) -> Interpolations:
        """n paths between draws of the prior, or between encoded held-out data, decoded."""
        content = self.interpolations_bytes(
            "npz", n, seed, checkpoint, steps=steps, between=between, path=path
        )
        arrays = arrays_in(content)
        return Interpolations(arrays["z"], arrays["g"], arrays.get("x"))

    def interpolations_png(
        self,
        n: int = 8,
        seed: int = 0,
        checkpoint: str = "latest",
        *,
        steps: int = 10,
        between: Between = "prior",
        path: PathKind = "spherical",
    ) -> bytes:
        """One path in a row (vectors: lines in a plot)."""
        return self.interpolations_bytes(
            "png", n, seed, checkpoint, steps=steps, between=between, path=path
        )

    def interpolations_bytes(
        self,
        form: Form,
        n: int = 8,
        seed: int = 0,
        checkpoint: str = "latest",
        *,
        steps: int = 10,
        between: Between = "prior",
        path: PathKind = "spherical",
    ) -> bytes:
        """Interpolations as the bytes of a png, npz or JSON file."""
        more = {"steps": steps, "between": between, "path": path}
        return self._drawn("interpolations", form, n, seed, checkpoint, more)

    def _drawn(
        self,
        what: str,
        form: Form,
        n: int,
        seed: int,
        checkpoint: str,
        more: Mapping[str, str | int],
    ) -> bytes:
        params = {"n": n, "seed": seed, "checkpoint": checkpoint, "format": form, **more}
        return self._connection.request("GET", self._path(what), params=params).content

    def filmstrip_png(
        self, epochs: Sequence[int] | None = None, n: int = 8, seed: int = 0
    ) -> bytes:
        """The same latents over the checkpoints, real data in the last row."""
        params: dict[str, str | int | None] = {
            "epochs": ",".join(str(epoch) for epoch in epochs) if epochs else None,
            "n": n,
            "seed": seed,
        }
        return self._connection.request("GET", self._path("filmstrip"), params=params).content

    def metrics(
        self, names: Sequence[str] | None = None, max_points: int = 1000
    ) -> dict[str, list[bodies.MetricPointBody]]:
        """Metrics by name, each in the order of steps."""
        params = {"name": names, "max_points": max_points}
        return self._connection.get(bodies.MetricsBody, self._path("metrics"), params).metrics

    def checkpoints(self) -> list[bodies.CheckpointBody]:
        """Checkpoints by step."""
        path = self._path("checkpoints")
        return self._connection.get(bodies.CheckpointList, path).checkpoints

    def download_weights(
        self, path: str | Path, checkpoint: str = "latest", *, redirect: bool = False
    ) -> Path:
        """Write a checkpoint's weights into a file, checked against their digest.

        ``redirect`` fetches them from the store itself, where the service offers that.
        """
        weights = self._path(f"checkpoints/{quote(checkpoint, safe='')}/weights")
        return self._download(weights, path, redirect=redirect)

    def artifacts(self) -> list[bodies.ArtifactBody]:
        """The files that it published, by name."""
        return self._connection.get(bodies.ArtifactList, self._path("artifacts")).artifacts

    def download_artifact(self, name: str, path: str | Path, *, redirect: bool = False) -> Path:
        """Write one of its files into a file here; see :meth:`download_weights`."""
        return self._download(self._path(f"artifacts/{quote(name)}"), path, redirect=redirect)

    def _download(self, address: str, path: str | Path, *, redirect: bool) -> Path:
        target = Path(path)
        self._connection.download(address, target, redirect=redirect)
        return target

    def _path(self, below: str = "") -> str:
        return f"{job_path(self.id)}/{below}" if below else job_path(self.id)
