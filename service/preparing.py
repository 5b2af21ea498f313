"""Before the first service of an installation: its tables, once, and every part there."""

import logging
import time
from collections.abc import Callable

from service.errors import ConfigurationError, ServiceError
from service.jobstore import JobStore
from service.settings import Settings
from workers.artifacts import ArtifactStore, open_store
from workers.errors import StoreError

log = logging.getLogger(__name__)

ASK_AGAIN_S = 1.0


def prepare(
    settings: Settings,
    wait_s: float,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Bring the database to this version's tables, and see that the artifact store answers.

    Parts that start beside this one have ``wait_s`` seconds to appear. Raises ConfigurationError
    with what was wrong last.
    """
    give_up_at = clock() + wait_s
    while (wrong := _try(settings)) is not None:
        if clock() >= give_up_at:
            raise ConfigurationError(wrong)
        sleep(ASK_AGAIN_S)


def _try(settings: Settings) -> str | None:
    try:
        JobStore.open(settings.database).close()
    except ServiceError as error:
        return str(error)
    try:
        try_out(open_store(settings.artifacts))
    except StoreError as error:
        return f"artifact store: {error}"
    return None


def try_out(artifacts: ArtifactStore) -> None:
    """See that the artifact store answers, and find out what it can do, which the log then says.

    What it cannot do has a fallback. Raises StoreError.
    """
    artifacts.check()
    log.info("the artifact store %s", artifacts.capabilities().sentence())
