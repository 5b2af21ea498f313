"""What the rows of a job know of its objects, and which of its objects nobody knows."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_IN_ATTEMPT = re.compile(r"jobs/[^/]+/attempts/([0-9]+)/(checkpoints|files)/(.+)")
_TRAIN_STATE = "train_state.safetensors"


@dataclass(frozen=True, slots=True)
class Custody:
    """What is known of one job's objects.

    ``ended`` are the attempts that have ended, ``checkpoints`` the prefixes of those that are
    kept, each with whether its train state is, and ``files`` the keys of its files.
    """

    is_deleted: bool
    ended: frozenset[int]
    checkpoints: Mapping[str, bool]
    files: frozenset[str]

    def why_orphaned(self, key: str) -> str | None:
        """Why nobody needs an object of this job, or None where somebody may.

        Only checkpoints and files of attempts that have ended are ever judged: events, logs,
        outcomes, and what a later version may write, stay with their job.
        """
        match = _IN_ATTEMPT.fullmatch(key)
        if self.is_deleted or match is None or int(match[1]) not in self.ended:
            return None
        if match[2] == "files":
            return None if key in self.files else "no row knows the file"
        prefix, _, name = key.rpartition("/")
        has_train_state = self.checkpoints.get(prefix)
        if has_train_state is None:
            return "no row knows the checkpoint"
        if name == _TRAIN_STATE and not has_train_state:
            return "the checkpoint was thinned to its weights"
        return None
