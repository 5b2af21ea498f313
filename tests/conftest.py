"""What all tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from service.jobstore import JobStore
from tests import s3_servers
from tests.postgres import Postgres
from workers.artifacts import LocalStore

# Files of one to four minutes, then folders whose files take longer than those of others.
LONGEST_FIRST = (
    "e2e/test_gangs.py",
    "e2e/test_following.py",
    "e2e/test_restarts.py",
    "contract/test_tune_driver.py",
    "contract/test_studies.py",
    "e2e/test_lifecycle.py",
    "e2e/test_main_job.py",
    "e2e/test_external_ray.py",
    "e2e/test_leadership.py",
    "chaos/test_matrix.py",
    "e2e/test_studies.py",
    "fuzz/test_fuzz.py",
    "e2e",
    "contract",
    "chaos",
    "fuzz",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, the longest files begin, and short ones fill the end."""
    if not hasattr(config, "workerinput"):  # alone, what fails soonest is worth knowing first
        return

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(Path(__file__).parent)
        places = (at for at, name in enumerate(LONGEST_FIRST) if path.is_relative_to(name))
        return next(places, len(LONGEST_FIRST))

    items.sort(key=place)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small tensors are slower on several threads, and tests run beside other processes."""
    torch.set_num_threads(1)


@pytest.fixture
def artifacts(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


@pytest.fixture
def jobs() -> Iterator[JobStore]:
    store = JobStore.open("sqlite://")
    yield store
    store.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres_tables(postgres: Postgres) -> Iterator[str]:
    """The URL of a database that has the tables, for whoever empties them first."""
    with postgres.database() as name:
        JobStore.open(postgres.url(name)).close()
        yield postgres.url(name)


@pytest.fixture
def postgres_url(postgres: Postgres, postgres_tables: str) -> str:
    """The URL of a job store on PostgreSQL with no jobs in it."""
    postgres.empty(postgres_tables)
    return postgres_tables


@pytest.fixture(scope="session")
def seaweedfs_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    with s3_servers.moto() as endpoint:
        yield endpoint


@pytest.fixture
def moto_proxy(moto_endpoint: str) -> Iterator[s3_servers.Proxy]:
    with s3_servers.proxy_of(moto_endpoint) as proxy:
        yield proxy


@pytest.fixture
def s3_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What each node has in its environment."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_servers.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
