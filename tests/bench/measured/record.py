"""The file of what was measured: one JSON line for each finished run."""

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

import workers


class Line(BaseModel):
    """One run that came to its end.

    ``spec`` is the digest of its resolved spec, ``begins_from`` what a fork began from: the digest
    of its parent's spec and the epoch. ``scale`` is the standard deviation of the noise, ``data``
    the digest of the data set, ``reference`` that of the held-out rows that samples were compared
    with. ``failed`` says why there are no metrics.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    arm: str
    seed: int
    scale: float
    spec: str
    begins_from: str | None
    data: str
    steps: int
    metrics: dict[str, float]
    samples: int
    reference_rows: int
    reference: str
    extractors: tuple[str, ...]
    seconds: float
    failed: str | None = None
    version: str = workers.__version__

    @property
    def key(self) -> tuple[str, str | None]:
        """Which computation it was, whatever it is called."""
        return self.spec, self.begins_from


class Record:
    """All lines of a file, and those that are added; a line that was cut short counts as none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Line] = []
        if path.exists():
            whole, newline, _ = path.read_bytes().rpartition(b"\n")
            self.lines = [Line.model_validate_json(line) for line in whole.splitlines()]
            self._end = len(whole + newline)
        else:
            self._end = 0

    def add(self, line: Line) -> None:
        """Append a line, and see it on the disk."""
        content = line.model_dump_json().encode() + b"\n"
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._end += len(content)
        self.lines.append(line)

    def holds(self, key: tuple[str, str | None]) -> bool:
        """Whether that computation has been done."""
        return any(line.key == key for line in self.lines)


def chosen(
    lines: Sequence[Line], study: str, arm: str, scale: float | None = None
) -> dict[int, Line]:
    """The lines of an arm by seed; ``scale`` None is any. The first line of a seed stays."""
    found: dict[int, Line] = {}
    for line in lines:
        is_asked = (line.study, line.arm) == (study, arm) and scale in (None, line.scale)
        if is_asked and line.failed is None:
            found.setdefault(line.seed, line)
    return found
