"""What keys cost a request: the same questions to a service without keys and to one with a key.

Both run in this process, on SQLite files, behind real servers; they are asked in turn.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2

from api.app import create_app
from api.main import running_services
from service.access.keys import Scope, new_secret
from service.access.making import make, stored_key
from service.cluster.inline import InlineCluster
from service.jobstore import JobStore
from service.settings import Settings
from tests.bench.bench_service import quantile, row
from tests.factories import ica_spec
from tests.serving import served
from workers.artifacts import LocalStore

ROUNDS = 500
OTHER_KEYS = 100


@dataclass(frozen=True, slots=True)
class Asked:
    """A service, and a job of it that has ended."""

    http: httpx2.Client
    job: str


def main() -> None:
    """Print the table."""
    row("", "with a key", "without", "ratio", "bar")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        plain = stack.enter_context(_service(Path(folder) / "open", has_keys=False))
        keyed = stack.enter_context(_service(Path(folder) / "keyed", has_keys=True))
        _compare("GET a job", plain, keyed, lambda of, _: of.http.get(of.job))
        _compare("GET /livez, which needs none", plain, keyed, lambda of, _: of.http.get("/livez"))
        _compare(
            "PATCH its labels, on record",
            plain,
            keyed,
            lambda of, k: of.http.patch(of.job, json={"labels": {"round": str(k)}}),
        )


def _compare(
    name: str, plain: Asked, keyed: Asked, ask: Callable[[Asked, int], httpx2.Response]
) -> None:
    """Ask both in turn; the median of each, and of the differences."""
    taken: dict[str, list[float]] = {"plain": [], "keyed": []}
    for number in range(ROUNDS):
        for which, of in (("plain", plain), ("keyed", keyed)):
            begun = time.perf_counter()
            assert ask(of, number).is_success
            taken[which].append(time.perf_counter() - begun)
    without, having = (statistics.median(taken[which]) for which in ("plain", "keyed"))
    difference = statistics.median(
        b - a for a, b in zip(taken["plain"], taken["keyed"], strict=True)
    )
    row(
        f"{name}: p50, and {difference * 1e6:+.0f} µs",
        f"{having * 1e3:.2f} ms",
        f"{without * 1e3:.2f} ms",
        f"{having / without:.2f}",
        "reported",
    )
    late, late_without = (
        f"{quantile(taken[which], 0.99) * 1e3:.2f} ms" for which in ("keyed", "plain")
    )
    row("  p99", late, late_without, "", "reported")


@contextlib.contextmanager
def _service(folder: Path, *, has_keys: bool) -> Iterator[Asked]:
    """A service whose watcher has nothing to do."""
    settings = Settings(data_dir=folder)
    folder.mkdir()
    artifacts = LocalStore(folder / "artifacts")
    with (
        contextlib.closing(JobStore.open(settings.database)) as jobs,
        contextlib.closing(InlineCluster()) as cluster,
        running_services(settings, jobs, artifacts, cluster) as services,
        served(create_app(services, settings)) as url,
        httpx2.Client(base_url=url) as http,
    ):
        if has_keys:
            secrets = [new_secret() for _ in range(OTHER_KEYS + 1)]
            for secret in secrets:
                make(jobs, stored_key(secret, "ana", Scope.WRITE), "bench", 60)
            http.headers["Authorization"] = f"Bearer {secrets[-1]}"
        made = http.post("/v1/jobs", json={"spec": ica_spec().model_dump(mode="json")})
        path = made.headers["location"]
        http.get(f"{path}/events", headers={"Accept": "text/event-stream"})  # to its end
        yield Asked(http, path)


if __name__ == "__main__":
    main()
