"""What an attempt publishes: its checkpoints and its files, and which of them are kept.

Writing happens in background threads so that training does not wait for the disk; a checkpoint
waits only while the one before it is still being written.
"""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from workers.artifacts import ArtifactStore
from workers.checkpoint import FileFacts, encode_manifest, encode_train_state, encode_weights
from workers.data import DatasetInfo
from workers.events import (
    ArtifactRecord,
    Checkpoint,
    CheckpointRecord,
    CheckpointRemovedRecord,
)
from workers.ledger import Ledger, patiently, put_patiently
from workers.spec import JobSpec

TRAIN_STATES_KEPT = 2
_TRAIN_STATE = "train_state.safetensors"
_FILES = ("manifest.json", "weights.safetensors", _TRAIN_STATE)


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
        spec: JobSpec,
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
        replaced = [kept for kept in self._kept if kept.id == identifier and kept.has_train_state]
        if replaced and not checkpoint.replaces:
            return  # stopped right after a checkpoint, or before the first step
        prefix = f"{self._prefix}/checkpoints/{identifier}"
        with ExitStack() as staged:
            weights_path, train_state_path, weights, train_state = patiently(
                lambda: self._encode(checkpoint, staged)
            )
            put_patiently(self._store, self._prefix, f"{prefix}/weights.safetensors", weights_path)
            put_patiently(
                self._store, self._prefix, f"{prefix}/train_state.safetensors", train_state_path
            )
        manifest = encode_manifest(checkpoint, self._spec, self._info, weights, train_state)
        put_patiently(self._store, self._prefix, f"{prefix}/manifest.json", manifest)
        announced = self._ledger.append(
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
        for kept in replaced:
            self._doomed += [(announced, f"{kept.prefix}/{name}") for name in _FILES]
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

    def _encode(
        self, checkpoint: Checkpoint, staged: ExitStack
    ) -> tuple[Path, Path, FileFacts, FileFacts]:
        """Weights and train state as files, on the store's own disk where it has one."""
        self._ledger.check()  # or a run that was given up would wait for room
        with ExitStack() as attempt:  # what was written until an error takes no room while we wait
            folder = attempt.enter_context(self._store.staging())
            weights_path, train_state_path = folder / "weights", folder / "train_state"
            weights = encode_weights(checkpoint, self._spec, self._info, weights_path)
            train_state = encode_train_state(checkpoint, train_state_path)
            staged.push(attempt.pop_all())
        return weights_path, train_state_path, weights, train_state

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
                self._doom(kept, "all", _FILES)
            elif kept.has_train_state and kept.id not in with_state:
                self._doom(kept, "train_state", (_TRAIN_STATE,))
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
        self._doomed += [(announced, f"{kept.prefix}/{name}") for name in files]

    def _bury(self) -> None:
        """Delete what was announced long enough ago."""
        written = self._ledger.written
        keys = [key for announced, key in self._doomed if announced <= written]
        patiently(lambda: self._store.delete_many(keys))
        self._doomed = [doomed for doomed in self._doomed if doomed[0] > written]


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
