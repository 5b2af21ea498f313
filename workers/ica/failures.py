"""Why a decomposition could not be computed, each with a name and what to do about it."""

from typing import Literal

from workers.errors import WorkerError

Reason = Literal[
    "too_few_rows",
    "too_many_components",
    "constant_columns",
    "rank_deficient",
    "collapsed_component",
    "not_a_number",
]


class Unfit(WorkerError):
    """The data have no such decomposition; ask for fewer components."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
