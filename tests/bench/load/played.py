"""A cluster whose attempts only speak: nothing is trained, so that the service alone is measured.

The cluster lives in the service's process and writes down which attempts it was asked for; the
writer, a process of its own, writes a chunk of events a second for each of them, as a real attempt
does: ``python -m tests.bench.load.played FOLDER EVENTS VALUES``.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from service.cluster.base import Capacity, Heard, Node, Sighting, Unclaimed
from workers.artifacts import ArtifactStore, chunk_key, open_store
from workers.events import FirstStepRecord, MetricsRecord, ProgressRecord, Record, StartedRecord
from workers.run import Run, StopReason
from workers.spec import Resources

TOTAL_STEPS = 1_000_000
STEPS_PER_EPOCH = 100


class PlayedCluster:
    """See :class:`service.cluster.base.Cluster`; its attempts run until they are killed."""

    own = True
    session = "played"

    def __init__(self, folder: Path, cores: int) -> None:
        self._folder = folder
        self._capacity = Capacity((Node(float(cores), 0.0, 1 << 40),))
        self._names = (f"played-{number}" for number in count(1))
        self._running: set[str] = set()

    def capacity(self) -> Capacity:
        """As it was made."""
        return self._capacity

    def unclaimed(self) -> Unclaimed | None:
        """Nobody else uses it."""
        return None

    def reserve(self, resources: Resources) -> str:
        """The next name."""
        return next(self._names)

    def launch(self, executor_id: str, run: Run) -> None:
        """Let the writer know."""
        self._running.add(executor_id)
        part = self._folder / f".{executor_id}"
        part.write_text(f"{run.artifacts_uri}\n{run.prefix}")
        part.rename(self._folder / executor_id)

    def look(self, executor_id: str) -> Sighting:
        """At work, or gone."""
        if executor_id not in self._running:
            return Sighting("gone")
        return Sighting("running", os.getpid(), "played")

    def request_stop(self, executor_id: str, reason: StopReason) -> None:
        """It does not listen."""

    def kill(self, executor_id: str) -> None:
        """It is gone."""
        self._running.discard(executor_id)

    def release(self, executor_id: str, *, reusable: bool) -> None:
        """It is gone."""
        self._running.discard(executor_id)

    def tend(self, known: frozenset[str], spares: int = 1) -> None:
        """There is nothing to tend."""

    def rejoin(self) -> None:
        """It was never left."""

    def close(self) -> None:
        """There is nothing to end."""

    def start_driver(self, name: str, setup: str) -> None:
        """No studies."""

    def exchange(self, name: str, lines: Sequence[str]) -> Heard:
        """No studies."""
        return Heard(is_gone=True)

    def end_driver(self, name: str) -> None:
        """No studies."""

    def listen(self, *, spoken: Callable[[], None], ended: Callable[[], None]) -> None:
        """No studies."""


class _Voice:
    """One attempt that speaks."""

    def __init__(self, store: ArtifactStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._chunk = self._step = 0

    def speak(self, events: int, values: int) -> None:
        """Write the next second's chunk."""
        now = datetime.now(UTC)
        records: list[Record] = []
        if self._chunk == 0:
            records += [
                StartedRecord(
                    at=now,
                    pid=os.getpid(),
                    host="played",
                    total_steps=TOTAL_STEPS,
                    steps_per_epoch=STEPS_PER_EPOCH,
                ),
                FirstStepRecord(at=now, step=1),
            ]
        for number in range(events):
            self._step += 1
            at = now - timedelta(seconds=(events - 1 - number) / events)
            named = {f"measure_{k}_nats": self._step * 1e-3 + k for k in range(values)}
            epoch = self._step / STEPS_PER_EPOCH
            records.append(MetricsRecord(at=at, step=self._step, epoch=epoch, values=named))
        records.append(ProgressRecord(at=now, step=self._step, epoch=self._step / STEPS_PER_EPOCH))
        content = "".join(record.model_dump_json() + "\n" for record in records)
        self._store.put(chunk_key(self._prefix, self._chunk), content.encode())
        self._chunk += 1


def main() -> None:
    """Speak for every attempt that the folder names, at phases spread over each second."""
    folder, events, values = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    voices: dict[str, _Voice] = {}
    due: dict[str, float] = {}
    while True:
        for path in sorted(folder.glob("played-*")):
            if path.name not in voices:
                uri, prefix = path.read_text().split("\n")
                voices[path.name] = _Voice(open_store(uri), prefix)
                due[path.name] = time.monotonic() + 0.1 * (len(voices) % 10)
        for name, at in due.items():
            if time.monotonic() >= at:
                voices[name].speak(events, values)
                due[name] = at + 1.0
        time.sleep(max(min(due.values(), default=0) - time.monotonic(), 0.01))


if __name__ == "__main__":
    main()
