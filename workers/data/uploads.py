"""Uploaded data sets: found by digest in the artifact store, fetched once into the cache folder."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pydantic import ValidationError

from workers.artifacts import ArtifactStore
from workers.content import Facts, data_key, digest_of_file, facts_key
from workers.data.info import DatasetInfo
from workers.data.kept import mapped, replacing
from workers.errors import ArtifactNotFound, DatasetUnavailable


def describe_upload(name: str, digest: str, store: ArtifactStore) -> DatasetInfo:
    """What is known of an upload; raises DatasetUnavailable where its content is gone."""
    return upload_info(name, facts_of(digest, store))


def upload_info(name: str, facts: Facts) -> DatasetInfo:
    """The facts of an upload as those of a data set."""
    return DatasetInfo(
        name=name,
        title=_title(facts),
        shape=facts.shape,
        count=facts.count,
        is_image=facts.is_image,
        digest=facts.digest,
        available=True,
        detail=f"Uploaded as {facts.source_format}.",
    )


def _title(facts: Facts) -> str:
    if not facts.is_image:
        return f"{facts.count:,} vectors of {facts.shape[0]:,} numbers, uploaded"
    colour = "colour" if len(facts.shape) == 3 else "grey"
    return f"{facts.count:,} pictures, {facts.shape[0]}×{facts.shape[1]} {colour}, uploaded"


def facts_of(digest: str, store: ArtifactStore) -> Facts:
    """The facts of a complete content; raises DatasetUnavailable."""
    try:
        return Facts.model_validate_json(store.get(facts_key(digest)))
    except ArtifactNotFound as error:
        raise DatasetUnavailable(
            f"the uploaded content {digest} is not in the artifact store; upload it again"
        ) from error
    except ValidationError as error:
        raise DatasetUnavailable(
            f"the uploaded content {digest} is damaged in the artifact store; upload it again"
        ) from error


def read_upload(facts: Facts, cache_dir: Path, store: ArtifactStore) -> NDArray[Any]:
    """The array, mapped; fetched and compared with its digest where it is not in the cache yet."""
    path = cache_dir / "uploads" / f"{facts.digest.removeprefix('sha256:')}.npy"
    shape = (facts.count, *facts.shape)
    kept = mapped(path, shape, facts.dtype)
    if kept is not None:
        return kept
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            try:
                for piece in store.stream(data_key(facts.digest)):
                    file.write(piece)
            except ArtifactNotFound as error:
                raise DatasetUnavailable(
                    f"the uploaded content {facts.digest} is gone from the artifact store"
                ) from error
        is_whole = temporary.stat().st_size == facts.size_bytes
        if not is_whole or digest_of_file(temporary, shape, facts.dtype) != facts.digest:
            raise DatasetUnavailable(
                f"the uploaded content {facts.digest} is damaged in the artifact store; "
                "upload it again"
            )
    kept = mapped(path, shape, facts.dtype)
    if kept is None:
        raise DatasetUnavailable(f"the uploaded content {facts.digest} is damaged; upload it again")
    return kept
