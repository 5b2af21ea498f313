"""Whether an installation has what its settings promise, part by part, without a service."""

import contextlib
from collections.abc import Iterator

from service.checks.elsewhere import check_addresses, check_ray, check_tracing
from service.checks.finding import Finding
from service.checks.folders import check_folders, check_limits
from service.checks.keys import check_keys
from service.errors import ServiceError
from service.jobstore import JobStore
from service.settings import Settings
from workers.artifacts import WITHOUT, ArtifactStore, open_store
from workers.errors import StoreError

__all__ = ["Finding", "check_installation"]


def check_installation(settings: Settings, *, with_ray: bool = True) -> Iterator[Finding]:
    """Try every part that the settings name: folders and limits, the database and its keys, the
    storage and each thing that it can do, Ray, and where spans go.

    What is missing of the folders and the database is made, as the service would. An own Ray is
    started for a moment, beside that of a service that runs, unless it is to be left out.
    """
    yield from check_folders(settings)
    yield from check_limits(settings)
    yield from _database(settings)
    yield from _storage(settings)
    yield from check_addresses(settings)
    yield from check_tracing(settings)
    if with_ray:
        yield from check_ray(settings)


def _storage(settings: Settings) -> Iterator[Finding]:
    try:
        store = open_store(settings.artifacts)
        store.check()
    except StoreError as error:
        yield Finding("storage", "wrong", str(error))
        return
    yield Finding("storage", "ok", _room(store))
    try:
        capabilities = store.capabilities()
    except StoreError as error:
        yield Finding("storage: what it can do", "wrong", str(error))
        return
    for name, can in capabilities.rows():
        yield Finding(f"storage: {name}", "ok" if can else "fallback", "" if can else WITHOUT[name])


def _database(settings: Settings) -> Iterator[Finding]:
    try:
        with contextlib.closing(JobStore.open(settings.database)) as jobs:
            jobs.ping()
            is_shared = jobs.is_shared
            what = "PostgreSQL, which several services may share" if is_shared else "SQLite"
            yield Finding("database", "ok", what)
            yield from check_keys(settings, jobs)
    except ServiceError as error:
        yield Finding("database", "wrong", str(error))


def _room(store: ArtifactStore) -> str:
    try:
        free = store.free_bytes()
    except StoreError as error:
        return str(error)
    where = store.uri.partition("?")[0]
    return where if free is None else f"{where}, {free / 1e9:.1f} GB free"
