"""When a learned spread is learned: rounds between epochs, and where a run stands in them.

A round begins where an epoch that it is due after has had its last step, and the epoch is reported
when the round is over. Its steps count among all steps, but not into epochs, which count steps of
the whole model alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from workers.spec import DeltaVae, TrainerSpec
from workers.spec.learned import LowRankCovariance


@dataclass(frozen=True, slots=True)
class Rounds:
    """Rounds after the epochs ``first``, ``first`` + ``every``, … up to ``last``."""

    every: int
    first: int
    last: int
    noise_steps: int
    encoder_steps: int

    @classmethod
    def of(cls, trainer: TrainerSpec) -> Self | None:
        """The rounds of a trainer; None where nothing of the spread is learned."""
        if not isinstance(trainer, DeltaVae) or trainer.learned_spread is None:
            return None
        learned = trainer.learned_spread
        least = max(learned.first_epoch, trainer.warm_up_epochs, 1)
        has_parameters = learned.mean_transform is not None or isinstance(
            learned.covariance, LowRankCovariance
        )
        return cls(
            every=learned.every_epochs,
            first=-(-least // learned.every_epochs) * learned.every_epochs,
            last=trainer.epochs - 1,
            noise_steps=learned.noise_steps if has_parameters else 0,
            encoder_steps=learned.encoder_steps,
        )

    @property
    def length(self) -> int:
        """Steps in one round."""
        return self.noise_steps + self.encoder_steps

    @property
    def final(self) -> int:
        """The epoch after which the last round comes."""
        return self.first + (self.last - self.first) // self.every * self.every

    def is_due(self, epoch: int) -> bool:
        """Whether a round comes after an epoch."""
        return self.first <= epoch <= self.last and epoch % self.every == 0

    def after(self, epoch: float) -> int:
        """How many rounds come after epochs beyond this one."""
        passed = max(0, int(epoch // self.every) - self.first // self.every + 1)
        return max(0, (self.last - self.first) // self.every + 1 - passed)

    def is_noise(self, left: int) -> bool:
        """Whether the noise learns in the step with which ``left`` steps of its round are left."""
        return left > self.encoder_steps


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: all steps, those of the noise and of the encoder alone among them, and
    how many are left of the round that it is in."""

    step: int = 0
    noise_steps: int = 0
    encoder_steps: int = 0
    round_left: int = 0

    @classmethod
    def of(cls, train_state: Mapping[str, Tensor]) -> Self:
        """The position in a train state, of a run with a learned spread or without."""
        names = ("step", "noise_steps", "encoder_steps", "round_left")
        return cls(*(int(train_state[name]) if name in train_state else 0 for name in names))

    @property
    def model_step(self) -> int:
        """Steps of the whole model."""
        return self.step - self.noise_steps - self.encoder_steps


def total_steps(trainer: TrainerSpec, steps_per_epoch: int, position: Position) -> int:
    """The number of the run's last step, seen from where it stands."""
    left = trainer.epochs * steps_per_epoch - position.model_step
    if (rounds := Rounds.of(trainer)) is not None:
        epoch = position.model_step / steps_per_epoch
        left += position.round_left + rounds.length * rounds.after(epoch)
    return position.step + left
