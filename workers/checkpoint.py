"""Checkpoints as two safetensors files and a JSON manifest. No pickle is ever read.

The files may have gigabytes: they are written, hashed and mapped, never held in memory whole.

The weights file describes itself: its metadata holds, under the one key ``spreadtrain``, what a
generator needs, so that a file fetched by itself is enough to draw samples offline. (One key,
because safetensors writes several in an order that changes from process to process, and equal
weights must have equal digests.)
"""

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

import workers
from workers.data import DatasetInfo
from workers.errors import CheckpointError, StoreError, StoreFull
from workers.events import Checkpoint
from workers.spec import JobSpec

MAX_FILE_BYTES = 16 * 2**30
_MAX_HEADER_BYTES = 16 * 2**20
MAX_MANIFEST_BYTES = 16 * 2**20
_METADATA_KEY = "spreadtrain"


class _Stored(BaseModel):
    # Later versions may add fields, which older readers pass over.
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")


class DatasetFacts(_Stored):
    """What a generator must know of the data: ``shape`` is one datum's."""

    name: str
    digest: str
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(max_length=3)]
    is_image: bool

    @classmethod
    def of(cls, info: DatasetInfo) -> Self:
        """The facts of a described data set."""
        return cls(name=info.name, digest=info.digest, shape=info.shape, is_image=info.is_image)


class Description(_Stored):
    """What a weights file says of itself."""

    format_version: Literal[1] = 1
    spec: JobSpec
    dataset: DatasetFacts
    step: int
    epoch: float


class FileFacts(_Stored):
    """Identity of a file."""

    digest: str
    size_bytes: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Digest and size of a file; raises OSError."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(digest=f"sha256:{digest}", size_bytes=os.fstat(file.fileno()).st_size)


class Versions(_Stored):
    """What wrote the checkpoint."""

    spreadtrain: str = workers.__version__
    torch: str = torch.__version__
    python: str = platform.python_version()

    def agree(self, other: "Versions") -> bool:
        """Whether they are the same but for torch's build: nodes with GPUs have another (+cu130)
        than a service without (+cpu)."""

        def public(of: Versions) -> Versions:
            return of.model_copy(update={"torch": of.torch.partition("+")[0]})

        return public(self) == public(other)


class Manifest(Description):
    """What a checkpoint is and where it comes from."""

    versions: Versions = Versions()
    metrics: dict[str, float]
    weights: FileFacts
    train_state: FileFacts


def encode_weights(
    checkpoint: Checkpoint, spec: JobSpec, info: DatasetInfo, path: Path
) -> FileFacts:
    """Write the weights as safetensors, which ``safetensors.torch.load_file`` reads.

    Raises StoreError if the file cannot be written.
    """
    description = Description(
        spec=spec, dataset=DatasetFacts.of(info), step=checkpoint.step, epoch=checkpoint.epoch
    )
    return _write(checkpoint.weights, {_METADATA_KEY: description.model_dump_json()}, path)


def encode_train_state(checkpoint: Checkpoint, path: Path) -> FileFacts:
    """Write what resuming needs besides the spec, as safetensors; raises StoreError."""
    return _write(checkpoint.train_state, None, path)


def _write(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None, path: Path) -> FileFacts:
    try:
        safetensors.torch.save_file(dict(tensors), path, metadata)
        return FileFacts.of(path)
    except (OSError, safetensors.SafetensorError) as error:
        if "No space left" in str(error):  # safetensors says so in words alone
            raise StoreFull("the disk for a checkpoint on its way is full; make room") from error
        raise StoreError(
            "a checkpoint could not be written to a temporary file; make room on this node's disk"
        ) from error


def encode_manifest(
    checkpoint: Checkpoint,
    spec: JobSpec,
    info: DatasetInfo,
    weights: FileFacts,
    train_state: FileFacts,
) -> bytes:
    """The manifest of a checkpoint with these files."""
    manifest = Manifest(
        spec=spec,
        dataset=DatasetFacts.of(info),
        step=checkpoint.step,
        epoch=checkpoint.epoch,
        metrics=dict(checkpoint.metrics),
        weights=weights,
        train_state=train_state,
    )
    return manifest.model_dump_json(indent=1).encode()


def parse_manifest(content: bytes) -> Manifest:
    """The manifest in a file's content; raises CheckpointError."""
    if len(content) > MAX_MANIFEST_BYTES:
        raise CheckpointError("the manifest is larger than any that was ever written")
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise CheckpointError(
            f"the manifest cannot be read: {_first(error)}; choose another checkpoint"
        ) from error


def parse_description(path: Path) -> Description:
    """What a weights file says of itself; raises CheckpointError."""
    try:
        header = json.loads(_header(path))
        text = header["__metadata__"][_METADATA_KEY]
        return Description.model_validate_json(text)
    except ValidationError as error:
        raise CheckpointError(
            f"the weights file's own description cannot be read: {_first(error)}"
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            "this file does not describe itself as a checkpoint of spreadtrain; "
            "fetch it with GET /v1/jobs/{id}/checkpoints/{c}/weights"
        ) from error


def _header(path: Path) -> bytes:
    """A safetensors file's header: JSON, after its length in eight bytes."""
    with _readable(path), path.open("rb") as file:
        length = file.read(8)
        header_bytes = int.from_bytes(length, "little")
        if len(length) == 8 and header_bytes <= _MAX_HEADER_BYTES:
            header = file.read(header_bytes)
            if len(header) == header_bytes:
                return header
    raise CheckpointError("this is not a safetensors file, or it is cut short; fetch it again")


def decode_tensors(path: Path, *, is_verified: bool = False) -> dict[str, Tensor]:
    """The tensors of a safetensors file, mapped from it; raises CheckpointError for anything else.

    The file may be unlinked afterwards, but it must not be changed. Its size is bounded, unless it
    ``is_verified`` to be one that its manifest names.
    """
    with _readable(path):
        size_bytes = path.stat().st_size
    if size_bytes > MAX_FILE_BYTES and not is_verified:
        raise CheckpointError(f"a checkpoint file of {size_bytes} bytes is too large to load")
    try:
        return dict(safetensors.torch.load_file(path))
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(
            "this is not a safetensors file, or it is damaged; choose another checkpoint"
        ) from error


def verify(path: Path, facts: FileFacts) -> None:
    """Raise CheckpointError unless the file is the one that the manifest names."""
    with _readable(path):
        right = path.stat().st_size == facts.size_bytes and FileFacts.of(path) == facts
    if not right:
        raise CheckpointError("the file is not the one that its manifest names; fetch it again")


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}") from error


def check_weights(tensors: Mapping[str, Tensor], count: int) -> None:
    """Raise CheckpointError unless the tensors are float32 and hold ``count`` finite values."""
    if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise CheckpointError("the weights are not float32; choose another checkpoint")
    if sum(tensor.numel() for tensor in tensors.values()) != count:
        raise CheckpointError("the weights do not fit the network of their own spec")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise CheckpointError("the weights are not finite; choose an earlier checkpoint")


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, detail['loc'])) or 'content'}: {detail['msg']}"
