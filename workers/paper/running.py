"""The parts of a figure in order, from where they stand, and the state from which they go on."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from workers.errors import CheckpointError
from workers.paper.base import Keep, Kept, Part, Row

STATE_VERSION = 1
_KEPT = "kept."  # what the names of kept tensors begin with
_BREATH_S = 0.2  # between two signs of life of a part


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a figure stands: the parts that are done, their rows, and what else they kept."""

    parts: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    kept: Kept = field(default_factory=dict)

    @property
    def done(self) -> int:
        """How many parts are done."""
        return len(self.parts)

    def tensors(self) -> dict[str, Tensor]:
        """As a train state: JSON in bytes, which keeps every float exactly."""
        content = json.dumps({"parts": self.parts, "rows": [dict(row) for row in self.rows]})
        return {
            "version": torch.tensor(STATE_VERSION),
            "step": torch.tensor(self.done),
            "rows": torch.frombuffer(bytearray(content.encode()), dtype=torch.uint8),
            **{f"{_KEPT}{name}": values for name, values in self.kept.items()},
        }

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor] | None, plan: Sequence[Part]) -> Self:
        """From a train state, nothing done without one; raises CheckpointError for another plan."""
        if not tensors:
            return cls()
        if int(tensors["version"]) != STATE_VERSION:
            raise CheckpointError("the train state was written in another format; start anew")
        content = json.loads(tensors["rows"].numpy().tobytes())
        kept = {
            name.removeprefix(_KEPT): values
            for name, values in tensors.items()
            if name.startswith(_KEPT)
        }
        standing = cls(tuple(content["parts"]), tuple(content["rows"]), kept)
        if standing.parts != tuple(part.name for part in plan[: standing.done]):
            raise CheckpointError("the parts of this figure are others by now; start it anew")
        return standing


@dataclass(frozen=True, slots=True)
class Done:
    """A part is done: its own ``rows``, and where the figure stands with them."""

    rows: tuple[Row, ...]
    standing: Standing


def run_parts(
    plan: Sequence[Part], standing: Standing, is_over: Callable[[], bool]
) -> Iterator[Done | None]:
    """Compute what is left of a plan; None is a sign of life.

    Once ``is_over`` it ends, within a part too, whose rows so far are then forgotten.
    """
    for part in plan[standing.done :]:
        found: list[Row] = []
        kept = {**standing.kept}
        spoke_at = time.monotonic()
        if is_over():
            return
        for said in part.compute():
            if is_over():
                return
            if isinstance(said, Keep):
                kept[said.name] = said.values
            elif said is not None:
                found.append(dict(said))
            if time.monotonic() - spoke_at > _BREATH_S:
                yield None
                spoke_at = time.monotonic()
        standing = Standing((*standing.parts, part.name), (*standing.rows, *found), kept)
        yield Done(tuple(found), standing)
