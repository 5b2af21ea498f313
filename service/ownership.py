"""Which installation an artifact store belongs to.

A sweep takes for an orphan what its database does not know. With another database before the same
store that would be everything, so database and store carry the same id, and nothing is swept where
they differ.
"""

import json
import logging

from service.jobstore import JobStore
from workers.artifacts import INSTALLATION_KEY, ArtifactStore
from workers.errors import ArtifactExists, ArtifactNotFound, StoreError

log = logging.getLogger(__name__)

_FOREIGN = (
    f"the artifact store belongs to another installation: its {INSTALLATION_KEY} names another "
    "database. Correct the settings; or, if that database is gone for good, delete that object "
    "and start this service again"
)


def claim(jobs: JobStore, artifacts: ArtifactStore) -> None:
    """Let the store belong to this database; one that belongs to another stays so, with a warning.

    Raises StoreError and NotReady as the store and the database do.
    """
    ours = jobs.installation()
    try:
        artifacts.put(INSTALLATION_KEY, json.dumps({"installation": ours}).encode())
    except ArtifactExists:
        log.warning("nothing will be swept: %s", _FOREIGN)


def check_owner(jobs: JobStore, artifacts: ArtifactStore) -> None:
    """Raise StoreError unless the store is known to belong to this database."""
    try:
        content = json.loads(artifacts.get(INSTALLATION_KEY))
        is_ours = content == {"installation": jobs.installation()}
    except (ArtifactNotFound, ValueError):
        is_ours = False
    if not is_ours:
        raise StoreError(_FOREIGN)
