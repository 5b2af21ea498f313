"""The service as ``spreadtrain serve`` composes it, but over a played cluster:
``python -m tests.bench.load.server FOLDER DATABASE_URL PORT CORES``."""

import contextlib
import logging
import sys
from pathlib import Path

from api.main import _listen, answer, running_services
from service.jobstore import JobStore
from service.settings import Settings
from tests.bench.load.played import PlayedCluster
from workers.artifacts import open_store


def main() -> None:
    """Serve until SIGTERM."""
    folder, url, port, cores = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    logging.basicConfig(level=logging.WARNING)
    settings = Settings(data_dir=folder, database_url=url, port=port)
    played = folder / "played"
    played.mkdir(exist_ok=True)
    with (
        contextlib.closing(JobStore.open(url)) as jobs,
        contextlib.closing(PlayedCluster(played, cores)) as cluster,
        contextlib.closing(_listen(settings)) as listener,
        running_services(settings, jobs, open_store(settings.artifacts), cluster) as services,
    ):
        answer(services, settings, listener)


if __name__ == "__main__":
    main()
