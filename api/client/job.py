"""One job, from the client's side."""

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import httpx2

from api import bodies
from api.client.connection import TIMEOUT_S, Connection, Event, job_path
from api.client.errors import ApiError, JobFailed, Unreachable

if TYPE_CHECKING:
    import numpy as np

RECONNECT_S = 0.5
SampleForm = Literal["png", "npz", "json"]
_FINAL = ("succeeded", "failed", "cancelled")


class JobHandle:
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

    def wait(self, timeout_s: float | None = None) -> "JobHandle":
        """Until it has succeeded; raises JobFailed, or TimeoutError."""
        for _ in self._events(timeout_s, patience_s=TIMEOUT_S):
            pass
        self.refresh()
        if self.state not in _FINAL:
            raise TimeoutError(f"{self.id} is {self.state} after {timeout_s:g} s")
        if self.state != "succeeded":
            raise JobFailed(self.id, self.state, self.body.reason, self.body.message)
        return self

    def watch(self, patience_s: float = TIMEOUT_S) -> Iterator[Event]:
        """Its events from the first to the ``end``, over broken connections.

        Raises Unreachable when nothing answered for ``patience_s``.
        """
        return self._events(None, patience_s)

    def logs(
        self, *, attempt: int | None = None, tail: int | None = None, follow: bool = False
    ) -> Iterator[bodies.LogLineBody]:
        """What its attempts said, or one of them, or the last lines; ``follow`` goes on until the
        job ends, over broken connections. Raises as :meth:`watch` does."""
        params: dict[str, str | int | None] = {"attempt": attempt, "tail": tail, "format": "json"}
        while True:
            page = self._connection.get(bodies.LogPageBody, self._path("logs"), params)
            yield from page.lines
            if not page.has_more:
                break
            params |= {"tail": None, "after": page.next_after}
        if not follow or page.is_ended:
            return
        after = int(page.next_after.partition("-")[0])
        for event in self._events(None, TIMEOUT_S, after, ("log",)):
            if event.kind == "log" and attempt in (None, event.attempt):
                rank = event.data["rank"]
                for entry in event.data["entries"]:
                    line = {**entry, "attempt": event.attempt, "rank": rank}
                    yield bodies.LogLineBody.model_validate(line)

    def _events(
        self,
        timeout_s: float | None,
        patience_s: float,
        after: int = 0,
        kinds: Sequence[str] | None = None,
    ) -> Iterator[Event]:
        now = time.monotonic()
        deadline = None if timeout_s is None else now + timeout_s
        heard_at = now
        while deadline is None or now < deadline:
            cause: Exception | None = None
            try:
                left = None if deadline is None else max(deadline - now, 0.001)
                for event in self._connection.follow(self.id, after, left, kinds):
                    heard_at = time.monotonic()
                    if event.kind == "gap":
                        after = int(event.data["resumed_after"])
                    after = event.seq or after
                    yield event
                    if event.kind == "end":
                        return
            except httpx2.TransportError as error:
                cause = error
            except ApiError as error:
                if not error.problem.retryable:
                    raise
                cause = error
            now = time.monotonic()
            if now - heard_at > patience_s and cause is not None:
                raise Unreachable(self._connection.url, cause) from cause
            if deadline is None or now < deadline:
                time.sleep(RECONNECT_S)
                now = time.monotonic()

    def cancel(self) -> "JobHandle":
        """Ask it to end; asking twice is safe."""
        answer = self._connection.request("POST", self._path("cancel"))
        self.body = bodies.CancelBody.model_validate_json(answer.content).job
        return self

    def set_labels(self, labels: Mapping[str, str]) -> "JobHandle":
        """Replace its labels, unless it has changed since it was read."""
        answer = self._connection.request(
            "PATCH",
            self._path(),
            json={"labels": dict(labels)},
            headers={"If-Match": f'"{self.body.version}"'},
        )
        self.body = bodies.JobBody.model_validate_json(answer.content)
        return self

    # --- results ----------------------------------------------------------------------------------

    def samples(
        self, n: int = 64, seed: int = 0, checkpoint: str = "latest", *, spread: bool = False
    ) -> "np.ndarray[Any, np.dtype[np.float32]]":
        """Samples as an array of shape (n, *shape of one datum)."""
        import numpy as np

        content = self.samples_bytes("npz", n, seed, checkpoint, spread=spread)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            samples: np.ndarray[Any, np.dtype[np.float32]] = arrays["samples"]
        return samples

    def samples_png(
        self, n: int = 64, seed: int = 0, checkpoint: str = "latest", *, spread: bool = False
    ) -> bytes:
        """Samples as a grid (vectors: a scatter plot)."""
        return self.samples_bytes("png", n, seed, checkpoint, spread=spread)

    def samples_bytes(
        self,
        form: SampleForm,
        n: int = 64,
        seed: int = 0,
        checkpoint: str = "latest",
        *,
        spread: bool = False,
    ) -> bytes:
        """Samples as the bytes of a png, npz or JSON file."""
        params: dict[str, str | int] = {
            "n": n,
            "seed": seed,
            "checkpoint": checkpoint,
            "format": form,
        }
        if spread:
            params["spread"] = "true"
        return self._connection.request("GET", self._path("samples"), params=params).content

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

    def download_weights(self, path: str | Path, checkpoint: str = "latest") -> Path:
        """Write a checkpoint's weights into a file, checked against their digest."""
        target = Path(path)
        self._connection.download(
            self._path(f"checkpoints/{quote(checkpoint, safe='')}/weights"), target
        )
        return target

    def _path(self, below: str = "") -> str:
        return f"{job_path(self.id)}/{below}" if below else job_path(self.id)
