"""The kill matrix as a table: what is hit, how, in which phase of a job, in which setting."""

from dataclasses import dataclass
from typing import Literal

# own: a local Ray, artifacts in a folder. gang: the same with two workers. s3: artifacts in S3.
# joined: a Ray that somebody else started.
Setting = Literal["own", "gang", "s3", "joined"]
Victim = Literal["service", "attempt", "rank 1", "host", "raylet", "gcs", "ray", "s3"]
Action = Literal["kill", "stop", "cut"]
Phase = Literal[
    "queued", "starting", "training", "checkpoint", "finishing", "cancelling", "pausing"
]

PHASES: tuple[Phase, ...] = (
    "queued",
    "starting",
    "training",
    "checkpoint",
    "finishing",
    "cancelling",
    "pausing",
)
VICTIMS: dict[Setting, tuple[Victim, ...]] = {
    "own": ("service", "attempt", "host", "raylet", "gcs", "ray"),
    "gang": ("service", "attempt", "rank 1", "host", "raylet"),
    "s3": ("service", "attempt", "s3"),
    "joined": ("service", "attempt", "host", "ray"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the matrix."""

    setting: Setting
    victim: Victim
    action: Action
    phase: Phase

    def __str__(self) -> str:
        return f"{self.setting}/{self.victim}/{self.action}/{self.phase}"


def _actions(victim: Victim) -> tuple[Action, ...]:
    return ("kill", "stop", "cut") if victim == "s3" else ("kill", "stop")


def _makes_sense(victim: Victim, phase: Phase) -> bool:
    """A queued job has no process of its own yet."""
    return phase != "queued" or victim not in ("attempt", "rank 1")


MATRIX: tuple[Cell, ...] = tuple(
    Cell(setting, victim, action, phase)
    for setting, victims in VICTIMS.items()
    for victim in victims
    for action in _actions(victim)
    for phase in PHASES
    if _makes_sense(victim, phase)
)
