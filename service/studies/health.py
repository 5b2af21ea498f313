"""Whether a trial's model is past help: what its latents carry, evaluation after evaluation.

A model whose posterior has become the prior, or whose latents are dead but for a few, may still get
better, so one bad evaluation says nothing: as many in a row as the study asks for do. Numbers that
are no numbers end a training by themselves, as ``diverged``.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from service.studies.request import Unhealthy

if TYPE_CHECKING:
    from workers.run import StudyStop

ACTIVE, INFORMATIVE = "active_units", "informative_units"


class Vigil:
    """The evaluations of one trial, in the order of their epochs, one at each."""

    def __init__(self, unhealthy: Unhealthy, latent_dim: int) -> None:
        self._unhealthy = unhealthy
        self._latent_dim = latent_dim
        self._epoch = 0
        self._in_a_row = {"posterior_collapse": 0, "dead_latents": 0}

    def note(self, epoch: int, values: Mapping[str, float | None]) -> None:
        """An evaluation; one of an epoch that was noted before is passed over."""
        active, informative = values.get(ACTIVE), values.get(INFORMATIVE)
        if epoch <= self._epoch or active is None or informative is None:
            return
        self._epoch = epoch
        found = {
            "posterior_collapse": informative == 0,
            "dead_latents": active < self._unhealthy.active_share * self._latent_dim,
        }
        for what, is_bad in found.items():
            self._in_a_row[what] = self._in_a_row[what] + 1 if is_bad else 0

    @property
    def verdict(self) -> "StudyStop | None":
        """What the model died of; a collapse, where it is both."""
        if self._in_a_row["posterior_collapse"] >= self._unhealthy.evaluations:
            return "posterior_collapse"
        if self._in_a_row["dead_latents"] >= self._unhealthy.evaluations:
            return "dead_latents"
        return None
