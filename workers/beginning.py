"""Where an attempt begins: at a checkpoint of its own job, at one of another, or at nothing."""

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from workers.artifacts import ArtifactStore
from workers.checkpoint import Manifest, decode_tensors, parse_manifest, verify
from workers.kinds import taken_over
from workers.spec import Start

Tensors = dict[str, Tensor]


class Origin(BaseModel):
    """Where a fork begins: its copy of a checkpoint of another job, and what it takes over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: str
    start: Start


def beginning(
    store: ArtifactStore, resume_from: str | None, origin: Origin | None
) -> Tensors | None:
    """The train state to go on from, or None to begin with the seed's weights.

    ``resume_from`` is the prefix of the job's own checkpoint, which goes before the origin.
    Raises CheckpointError, StoreError.
    """
    if resume_from is not None:
        return _file(store, resume_from, "train_state")[1]
    if origin is None:
        return None
    manifest, tensors = _file(store, origin.prefix, origin.start)
    return taken_over(manifest.spec, origin.start, tensors)


def _file(store: ArtifactStore, prefix: str, what: Start) -> tuple[Manifest, Tensors]:
    """A checkpoint's train state or weights, checked against its manifest."""
    manifest = parse_manifest(store.get(f"{prefix}/manifest.json"))
    with store.open_file(f"{prefix}/{what}.safetensors") as path:
        verify(path, manifest.train_state if what == "train_state" else manifest.weights)
        return manifest, decode_tensors(path)
