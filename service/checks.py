"""Whether an installation has what its settings promise, part by part, without a service."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.errors import ServiceError
from service.jobstore import JobStore
from service.settings import Settings
from workers.artifacts import WITHOUT, ArtifactStore, open_store
from workers.errors import StoreError


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried: ``ok``, or ``wrong``, or a ``fallback`` that does instead."""

    part: str
    state: str
    detail: str


def check_installation(settings: Settings) -> Iterator[Finding]:
    """Try the data folder, the database and the storage, and each thing that the storage can do.

    What is missing of the data folder and the database is made, as the service would.
    """
    yield _data_folder(settings.data_dir)
    yield _database(settings)
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
        state, detail = ("ok", "") if can else ("fallback", WITHOUT[name])
        yield Finding(f"storage: {name}", state, detail)


def _data_folder(folder: Path) -> Finding:
    part = "data folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".check-") as file:
            file.write(b"spreadtrain")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(
            part,
            "wrong",
            f"{folder} cannot be written: {error.strerror}; choose another one "
            "(SPREADTRAIN_DATA_DIR) or change its permissions",
        )
    return Finding(part, "ok", f"{folder}, {free / 1e9:.1f} GB free")


def _database(settings: Settings) -> Finding:
    try:
        with contextlib.closing(JobStore.open(settings.database)) as jobs:
            jobs.ping()
    except ServiceError as error:
        return Finding("database", "wrong", str(error))
    return Finding("database", "ok", "")


def _room(store: ArtifactStore) -> str:
    try:
        free = store.free_bytes()
    except StoreError as error:
        return str(error)
    where = store.uri.partition("?")[0]
    return where if free is None else f"{where}, {free / 1e9:.1f} GB free"
