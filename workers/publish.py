"""What an attempt writes: its events in numbered chunks, its checkpoints and its files.

Writing happens in background threads so that training does not wait for the disk; a checkpoint
waits only while the one before it is still being written.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from workers.artifacts import ArtifactStore, chunk_key, outcome_key
from workers.checkpoint import encode_manifest, encode_train_state, encode_weights
from workers.data import DatasetInfo
from workers.errors import ArtifactExists, ClaimLost, StoreError
from workers.events import (
    ArtifactRecord,
    Checkpoint,
    CheckpointRecord,
    CheckpointRemovedRecord,
    ProgressRecord,
    Record,
)
from workers.spec import TrainSpec

FLUSH_INTERVAL_S = 1.0
STORE_PATIENCE_S = 60.0  # a store that is away for longer ends the attempt
TRAIN_STATES_KEPT = 2


class Ledger:
    """The attempt's event log: appended to in memory, written in chunks at most once a second.

    A chunk is written if its key is free; a taken key, or an outcome that somebody else wrote,
    means that the service has given this attempt up: ``check`` then raises ClaimLost.
    """

    def __init__(self, store: ArtifactStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._pending: list[Record] = []
        self._appended = 0
        self._hurry = False
        self._progress: ProgressRecord | None = None
        self._chunk = 0
        self._failure: ClaimLost | StoreError | None = None
        self._wake = threading.Condition()
        self._closing = False
        self.written = 0
        self.last_step = 0
        self._thread = threading.Thread(target=self._write_chunks, name="ledger", daemon=True)
        self._thread.start()

    def append(self, record: Record) -> int:
        """Add a record to the next chunk; it is durable once ``written`` is the number returned."""
        with self._wake:
            self._pending.append(record)
            self._appended += 1
            self._wake.notify_all()
            return self._appended

    def progress(self, record: ProgressRecord) -> None:
        """Note how far training is; only the last note before a flush is written."""
        self.last_step = record.step
        with self._wake:
            self._progress = record
            self._wake.notify_all()

    def check(self) -> None:
        """Raise ClaimLost or StoreError if the log can no longer be written."""
        if self._failure is not None:
            raise self._failure

    def flush(self) -> None:
        """Write what there is now and wait until it is durable. Raises as ``check`` does."""
        with self._wake:
            self._hurry = True
            self._wake.notify_all()
            self._wake.wait_for(lambda: self.written == self._appended or self._failure is not None)
            self._hurry = False
        self.check()

    def close(self) -> int:
        """Write what is left; returns the number of chunks. Raises as ``check`` does."""
        self._end()
        self.check()
        return self._chunk

    def abandon(self) -> None:
        """Stop without writing any more."""
        with self._wake:
            self._pending.clear()
            self._progress = None
        self._end()

    def _end(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join()

    def _take(self) -> tuple[list[Record], int] | None:
        """The records of the next chunk and how many were appended with them, or None at the end;
        waits while there are none."""
        with self._wake:
            while not self._pending and self._progress is None:
                if self._closing:
                    return None
                self._wake.wait()
            records, self._pending = self._pending, []
            if self._progress is not None:
                records.append(self._progress)
                self._progress = None
            return records, self._appended

    def _write_chunks(self) -> None:
        while (taken := self._take()) is not None:
            records, appended = taken
            content = "".join(record.model_dump_json() + "\n" for record in records)
            try:
                self._write(content.encode())
            except (ClaimLost, StoreError) as error:
                with self._wake:
                    self._failure = error
                    self._wake.notify_all()
                return
            with self._wake:
                self.written = appended
                self._wake.notify_all()
                self._wake.wait_for(lambda: self._closing or self._hurry, timeout=FLUSH_INTERVAL_S)

    def _write(self, content: bytes) -> None:
        key = chunk_key(self._prefix, self._chunk)
        try:
            put_patiently(self._store, self._prefix, key, content)
        except ArtifactExists as error:
            # An answer lost after a completed write looks like a foreign writer: compare.
            if self._store.get(key) != content:
                raise ClaimLost from error
        self._chunk += 1


def put_patiently(store: ArtifactStore, prefix: str, key: str, content: bytes | Path) -> None:
    """Write an object of the attempt with this prefix, and wait for a store that is away.

    A path stands for the content of its file.

    Raises ClaimLost once the attempt has an outcome, ArtifactExists for a taken key, and
    StoreError when the store was away for ``STORE_PATIENCE_S``.
    """
    give_up_at = time.monotonic() + STORE_PATIENCE_S
    while True:
        try:
            if store.exists(outcome_key(prefix)):
                raise ClaimLost
            if isinstance(content, Path):
                store.put_file(key, content)
            else:
                store.put(key, content)
        except ArtifactExists:
            raise
        except StoreError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(FLUSH_INTERVAL_S)
        else:
            return


class KeptCheckpoint(BaseModel):
    """A checkpoint that takes up space, as the keep policy sees it."""

    model_config = ConfigDict(frozen=True)

    id: str
    prefix: str
    step: int
    is_best: bool
    is_named: bool
    has_train_state: bool


def surplus(checkpoints: Sequence[KeptCheckpoint], keep: int) -> set[str]:
    """The ids to remove so that at most ``keep`` regular checkpoints stay.

    The first, the last two, named ones and the latest best one stay. Of the others, the one that
    leaves the smallest gap goes first, which thins a long run evenly.
    """
    ordered = sorted(checkpoints, key=lambda checkpoint: checkpoint.step)
    best = next((c.id for c in reversed(ordered) if c.is_best), None)
    removed: set[str] = set()

    def is_regular(index: int) -> bool:
        checkpoint = ordered[index]
        inner = 0 < index < len(ordered) - TRAIN_STATES_KEPT
        return inner and not checkpoint.is_named and checkpoint.id != best

    while True:
        regular = [index for index in range(len(ordered)) if is_regular(index)]
        if len(regular) <= keep - 1 - TRAIN_STATES_KEPT:
            return removed
        gaps = {index: ordered[index + 1].step - ordered[index - 1].step for index in regular}
        index = min(regular, key=lambda i: (gaps[i], i))
        removed.add(ordered.pop(index).id)


class Publisher:
    """Writes checkpoints and files in the background, one at a time, and records each.

    Leaving the block waits for what is being written; an error of the background surfaces at the
    next call or there.
    """

    def __init__(
        self,
        store: ArtifactStore,
        prefix: str,
        spec: TrainSpec,
        info: DatasetInfo,
        ledger: Ledger,
        earlier: Sequence[KeptCheckpoint] = (),
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._spec = spec
        self._info = info
        self._ledger = ledger
        self._kept = list(earlier)
        self._doomed: list[tuple[int, str]] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publish")
        self._in_flight: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True)
        if error is None:
            self._settle()
            self._ledger.flush()
            self._bury()

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Publish a checkpoint; waits for the one before it."""
        self._start(lambda: self._write_checkpoint(checkpoint))

    def file(self, name: str, content: bytes, media_type: str, step: int, epoch: float) -> None:
        """Publish a file of the run."""
        self._start(lambda: self._write_file(name, content, media_type, step, epoch))

    def _start(self, work: Callable[[], None]) -> None:
        self._settle()
        self._in_flight = self._thread.submit(work)

    def _settle(self) -> None:
        if self._in_flight is not None:
            self._in_flight.result()
            self._in_flight = None

    def _write_file(
        self, name: str, content: bytes, media_type: str, step: int, epoch: float
    ) -> None:
        key = f"{self._prefix}/files/{name}"
        put_patiently(self._store, self._prefix, key, content)
        self._ledger.append(
            ArtifactRecord(
                at=datetime.now(UTC),
                name=name,
                key=key,
                media_type=media_type,
                digest=_digest(content),
                size_bytes=len(content),
                step=step,
                epoch=epoch,
            )
        )

    def _write_checkpoint(self, checkpoint: Checkpoint) -> None:
        identifier = f"{checkpoint.step:08d}"
        if any(kept.id == identifier and kept.has_train_state for kept in self._kept):
            return  # stopped right after a checkpoint, or before the first step
        prefix = f"{self._prefix}/checkpoints/{identifier}"
        with self._store.staging() as folder:
            weights_path, train_state_path = folder / "weights", folder / "train_state"
            weights = encode_weights(checkpoint, self._spec, self._info, weights_path)
            train_state = encode_train_state(checkpoint, train_state_path)
            put_patiently(self._store, self._prefix, f"{prefix}/weights.safetensors", weights_path)
            put_patiently(
                self._store, self._prefix, f"{prefix}/train_state.safetensors", train_state_path
            )
        manifest = encode_manifest(checkpoint, self._spec, self._info, weights, train_state)
        put_patiently(self._store, self._prefix, f"{prefix}/manifest.json", manifest)
        self._ledger.append(
            CheckpointRecord(
                at=datetime.now(UTC),
                id=identifier,
                step=checkpoint.step,
                epoch=checkpoint.epoch,
                prefix=prefix,
                digest=weights.digest,
                size_bytes=weights.size_bytes,
                metrics=dict(checkpoint.metrics),
                is_best=checkpoint.is_best,
            )
        )
        self._kept = [kept for kept in self._kept if kept.id != identifier]
        self._kept.append(
            KeptCheckpoint(
                id=identifier,
                prefix=prefix,
                step=checkpoint.step,
                is_best=checkpoint.is_best,
                is_named=checkpoint.is_named,
                has_train_state=True,
            )
        )
        self._thin()

    def _thin(self) -> None:
        """Apply the keep policy.

        A file goes only after the record that announces it is durable: whoever reads the events
        of a killed run is never sent to a checkpoint that is gone.
        """
        gone = surplus(self._kept, self._spec.keep_checkpoints)
        latest = sorted(self._kept, key=lambda kept: kept.step)[-TRAIN_STATES_KEPT:]
        with_state = {kept.id for kept in latest}
        kept_after: list[KeptCheckpoint] = []
        for kept in self._kept:
            if kept.id in gone:
                self._doom(kept, "all", ("manifest.json", "weights.safetensors"))
            elif kept.has_train_state and kept.id not in with_state:
                self._doom(kept, "train_state", ())
                kept_after.append(kept.model_copy(update={"has_train_state": False}))
            else:
                kept_after.append(kept)
        self._kept = kept_after
        self._bury()

    def _doom(
        self, kept: KeptCheckpoint, what: Literal["all", "train_state"], files: tuple[str, ...]
    ) -> None:
        record = CheckpointRemovedRecord(at=datetime.now(UTC), id=kept.id, what=what)
        announced = self._ledger.append(record)
        for name in (*files, "train_state.safetensors"):
            self._doomed.append((announced, f"{kept.prefix}/{name}"))

    def _bury(self) -> None:
        """Delete what was announced long enough ago."""
        written = self._ledger.written
        self._store.delete_many(key for announced, key in self._doomed if announced <= written)
        self._doomed = [doomed for doomed in self._doomed if doomed[0] > written]


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
