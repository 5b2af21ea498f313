"""The kill matrix as a table: what is hit, how, in which phase of a job, in which setting, and what
must happen then."""

from dataclasses import dataclass
from typing import Literal, assert_never

# own: a local Ray, artifacts in a folder. gang: the same with two workers. s3: artifacts in S3.
# s3 gang: both. joined: a Ray that somebody else started.
Setting = Literal["own", "gang", "s3", "s3 gang", "joined"]
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
    "gang": ("service", "attempt", "rank 1", "host", "raylet", "gcs", "ray"),
    "s3": ("service", "attempt", "s3"),
    "s3 gang": ("attempt", "rank 1", "s3"),
    "joined": ("service", "attempt", "host", "raylet", "gcs", "ray"),
}
# Victims that are hit in every phase elsewhere; here where they meet the most.
IN_PART: frozenset[tuple[Setting, Victim]] = frozenset(
    {
        ("gang", "gcs"),
        ("gang", "ray"),
        ("s3 gang", "attempt"),
        ("s3 gang", "rank 1"),
        ("s3 gang", "s3"),
        ("joined", "raylet"),
        ("joined", "gcs"),
    }
)
PART: tuple[Phase, ...] = ("training", "checkpoint", "cancelling")

# Shorter than every limit after which somebody is given up, and longer than all of them but the
# ledger's 60 s: the host's answer 15 s, Ray's health checks as the stage sets them 10 s, a read
# from S3 30 s.
SHORT_STOP_S, LONG_STOP_S, LONG_CUT_S = 4.0, 20.0, 35.0
LONG_EVERY = 3


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the matrix."""

    setting: Setting
    victim: Victim
    action: Action
    phase: Phase

    def __str__(self) -> str:
        return f"{self.setting}/{self.victim}/{self.action}/{self.phase}"

    def stop_s(self, seed: int) -> float:
        """How long a stop or a cut lasts: long in a third of the phases, other ones with each
        seed; 0 for a kill."""
        if self.action == "kill":
            return 0.0
        if (PHASES.index(self.phase) + seed) % LONG_EVERY != 2:
            return SHORT_STOP_S
        return LONG_CUT_S if self.victim == "s3" else LONG_STOP_S


@dataclass(frozen=True, slots=True)
class Must:
    """What must happen after a strike: the states that the job may end in, and how many attempts
    more than without the strike it may take."""

    ends: tuple[str, ...]
    more_attempts: int
    words: str


def must(cell: Cell, stop_s: float) -> Must:
    """What must happen after a strike whose stop lasted so long."""
    more = 1 if _may_cost_an_attempt(cell, stop_s) else 0
    how = "as one more attempt at most" if more else "as the same attempt"
    match cell.phase:
        case "queued":
            return Must(("succeeded",), more, "untouched, runs later")
        case "starting" | "training" | "checkpoint" | "finishing":
            return Must(("succeeded",), more, f"goes on from its last checkpoint, {how}")
        case "cancelling":
            # A last epoch may be done before the wish is heard.
            return Must(("cancelled", "succeeded"), more, "cancelled, no process left")
        case "pausing":
            return Must(("succeeded",), more + 1, f"paused; resumed, it goes on, {how}")
    assert_never(cell.phase)


def _may_cost_an_attempt(cell: Cell, stop_s: float) -> bool:
    """Whether the strike ends the attempt's process, or lasts until somebody gives it up."""
    if cell.phase == "queued" and cell.action == "kill":
        return False
    match cell.victim:
        case "service":
            # On a joined Ray attempts run on, but who is killed in the middle of a launch has told
            # no process to begin.
            is_between = cell.phase == "starting"
            return cell.action == "kill" and (cell.setting != "joined" or is_between)
        case "attempt" | "rank 1":
            return cell.action == "kill"
        case "host":
            return cell.setting != "joined" and (cell.action == "kill" or stop_s > SHORT_STOP_S)
        case "raylet" | "gcs" | "ray":
            return cell.action == "kill" or stop_s > SHORT_STOP_S
        case "s3":
            return False
    assert_never(cell.victim)


def _actions(victim: Victim) -> tuple[Action, ...]:
    return ("kill", "stop", "cut") if victim == "s3" else ("kill", "stop")


def _makes_sense(setting: Setting, victim: Victim, phase: Phase) -> bool:
    """A queued job has no process of its own yet."""
    if (setting, victim) in IN_PART and phase not in PART:
        return False
    return phase != "queued" or victim not in ("attempt", "rank 1")


MATRIX: tuple[Cell, ...] = tuple(
    Cell(setting, victim, action, phase)
    for setting, victims in VICTIMS.items()
    for victim in victims
    for action in _actions(victim)
    for phase in PHASES
    if _makes_sense(setting, victim, phase)
)
