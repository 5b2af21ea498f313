"""What a check has found."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "fallback", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried: ``ok``; a ``fallback`` does instead; a ``warning`` is of what may
    go wrong later; ``wrong`` keeps the service from its work. ``detail`` says what to do."""

    part: str
    state: State
    detail: str
