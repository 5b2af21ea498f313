"""The layout of every key in the artifact store.

::

    jobs/<job>/attempts/<n>/events/<chunk>.jsonl            one record a line
    jobs/<job>/attempts/<n>/logs/<rank>/<chunk>.jsonl        what its processes said
                                       /end.json             of a worker other than 0: that was all
    jobs/<job>/attempts/<n>/checkpoints/<id>/weights.safetensors
                                            /train_state.safetensors
                                            /manifest.json   written last: the checkpoint exists
    jobs/<job>/attempts/<n>/files/<name>                     grids/<step>.png and the like
    jobs/<job>/attempts/<n>/failures/<rank>.json             why a worker other than 0 gave up
    jobs/<job>/attempts/<n>/outcome.json                     written once: the attempt has ended
    jobs/<job>/parent/manifest.json                          a fork's copy of a checkpoint of its
                     /weights.safetensors                    parent: one of the two files, as it
                     /train_state.safetensors                begins, and its manifest last
    datasets/<sha256>/data.npy                               an uploaded data set
                     /facts.json                             written last: the content is complete
    installation.json                                        whose database knows the jobs
    probes/<random>/...                                      short-lived: what the store can do

In S3 a key stands below the prefix of the store's URI. A run's keys have one writer, which is
worker 0 where there are several; the others write their logs and failures alone. Content goes
first, then the object that names it.
"""

import re
import secrets

from workers.errors import ArtifactNotFound

# Everything that is ours in a store; what else is there is somebody else's.
PREFIXES = ("jobs", "datasets", "probes")
INSTALLATION_KEY = "installation.json"
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=-]*(/[A-Za-z0-9_][A-Za-z0-9_.=-]*)*")


def checked(key: str) -> str:
    """The key; raises ArtifactNotFound if it is none, so that no key leaves the store."""
    if not _KEY.fullmatch(key):
        raise ArtifactNotFound(f"{key!r} is not an artifact key")
    return key


def job_prefix(job_id: str) -> str:
    """Prefix of everything that belongs to a job."""
    return f"jobs/{job_id}"


def attempt_prefix(job_id: str, attempt: int) -> str:
    """Prefix of everything that one attempt writes."""
    return f"{job_prefix(job_id)}/attempts/{attempt}"


def parent_prefix(job_id: str) -> str:
    """Prefix of a fork's own copy of the checkpoint that it begins from."""
    return f"{job_prefix(job_id)}/parent"


def chunk_key(prefix: str, chunk: int) -> str:
    """Key of an attempt's event chunk, numbered from 0."""
    return f"{prefix}/events/{chunk:08d}.jsonl"


def log_key(prefix: str, rank: int, chunk: int) -> str:
    """Key of a chunk of what one of the attempt's processes said, numbered from 0."""
    return f"{logs_prefix(prefix, rank)}/{chunk:08d}.jsonl"


def logs_prefix(prefix: str, rank: int) -> str:
    """Prefix of what one of the attempt's processes said."""
    return f"{prefix}/logs/{rank}"


def log_end_key(prefix: str, rank: int) -> str:
    """Key that says that a worker other than 0 has shipped all of its log."""
    return f"{logs_prefix(prefix, rank)}/end.json"


def failures_prefix(prefix: str) -> str:
    """Prefix of what an attempt's workers other than 0 say of their failures."""
    return f"{prefix}/failures"


def failure_key(prefix: str, rank: int) -> str:
    """Key of the reason for which one worker of an attempt gave up."""
    return f"{failures_prefix(prefix)}/{rank:04d}.json"


def outcome_key(prefix: str) -> str:
    """Key of an attempt's outcome."""
    return f"{prefix}/outcome.json"


def probe_prefix() -> str:
    """A prefix that nobody else uses, for finding out what a store can do."""
    return f"probes/{secrets.token_hex(8)}"
