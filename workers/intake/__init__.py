"""Checks what a stranger uploads and brings it into normal form, in bounded memory.

Nothing is unpickled, extracted or believed: every size is checked against a limit before memory or
disk is used for it. This package needs neither torch nor the network, and runs in a process of its
own (:mod:`workers.intake.process`).
"""

from workers.intake.checking import take_in
from workers.intake.limits import Limits

__all__ = ["Limits", "take_in"]
