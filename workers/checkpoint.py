"""Checkpoints as bytes: two safetensors files and a JSON manifest. No pickle is ever read.

The weights file describes itself: its metadata holds, under the one key ``spreadtrain``, what a
generator needs, so that a file fetched by itself is enough to draw samples offline. (One key,
because safetensors writes several in an order that changes from process to process, and equal
weights must have equal digests.)
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

import workers
from workers.data import DatasetInfo
from workers.errors import CheckpointError
from workers.events import Checkpoint
from workers.spec import TrainSpec

MAX_FILE_BYTES = 16 * 2**30
_MAX_HEADER_BYTES = 16 * 2**20
_MAX_MANIFEST_BYTES = 16 * 2**20
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
    spec: TrainSpec
    dataset: DatasetFacts
    step: int
    epoch: float


class FileFacts(_Stored):
    """Identity of a file."""

    digest: str
    size_bytes: int

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Digest and size of the content."""
        return cls(digest=_digest(content), size_bytes=len(content))


class Versions(_Stored):
    """What wrote the checkpoint."""

    spreadtrain: str = workers.__version__
    torch: str = torch.__version__
    python: str = platform.python_version()


class Manifest(Description):
    """What a checkpoint is and where it comes from."""

    versions: Versions = Versions()
    metrics: dict[str, float]
    weights: FileFacts
    train_state: FileFacts


def encode_weights(checkpoint: Checkpoint, spec: TrainSpec, info: DatasetInfo) -> bytes:
    """The weights as safetensors; ``safetensors.torch.load_file`` reads them."""
    description = Description(
        spec=spec, dataset=DatasetFacts.of(info), step=checkpoint.step, epoch=checkpoint.epoch
    )
    return safetensors.torch.save(
        dict(checkpoint.weights), {_METADATA_KEY: description.model_dump_json()}
    )


def encode_train_state(checkpoint: Checkpoint) -> bytes:
    """What resuming needs besides the spec, as safetensors."""
    return safetensors.torch.save(dict(checkpoint.train_state))


def encode_manifest(
    checkpoint: Checkpoint, spec: TrainSpec, info: DatasetInfo, weights: bytes, train_state: bytes
) -> bytes:
    """The manifest of a checkpoint whose files have this content."""
    manifest = Manifest(
        spec=spec,
        dataset=DatasetFacts.of(info),
        step=checkpoint.step,
        epoch=checkpoint.epoch,
        metrics=dict(checkpoint.metrics),
        weights=FileFacts.of(weights),
        train_state=FileFacts.of(train_state),
    )
    return manifest.model_dump_json(indent=1).encode()


def parse_manifest(content: bytes) -> Manifest:
    """The manifest in a file's content; raises CheckpointError."""
    if len(content) > _MAX_MANIFEST_BYTES:
        raise CheckpointError("the manifest is larger than any that was ever written")
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise CheckpointError(
            f"the manifest cannot be read: {_first(error)}; choose another checkpoint"
        ) from error


def parse_description(weights: bytes) -> Description:
    """What a weights file says of itself; raises CheckpointError."""
    header_bytes = int.from_bytes(weights[:8], "little")
    if len(weights) < 8 or header_bytes > min(_MAX_HEADER_BYTES, len(weights) - 8):
        raise CheckpointError("this is not a safetensors file, or it is cut short; fetch it again")
    try:
        header = json.loads(weights[8 : 8 + header_bytes])
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


def decode_tensors(content: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises CheckpointError for anything else."""
    if len(content) > MAX_FILE_BYTES:
        raise CheckpointError(f"a checkpoint file of {len(content)} bytes is too large to load")
    try:
        return dict(safetensors.torch.load(content))
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            "this is not a safetensors file, or it is damaged; choose another checkpoint"
        ) from error


def verify(content: bytes, facts: FileFacts) -> None:
    """Raise CheckpointError unless the content is what the manifest names."""
    if len(content) != facts.size_bytes or _digest(content) != facts.digest:
        raise CheckpointError("the file is not the one that its manifest names; fetch it again")


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


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
