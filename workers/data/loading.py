"""From a reference to a data set: built in, drawn, or uploaded."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from workers import toys
from workers.artifacts import ArtifactStore
from workers.content import DType, digest_of
from workers.data import celeba, named
from workers.data.idx_files import PublicIdx, read_idx_pictures
from workers.data.info import NO_DATA, Dataset, DatasetInfo, held_out_count, split
from workers.data.kept import in_split_order
from workers.data.mixtures import describe_mixture, draw_mixture
from workers.data.uploads import describe_upload, facts_of, read_upload, upload_info
from workers.errors import DatasetChanged, DatasetUnavailable, UnknownDataset
from workers.spec import AnyDataset, IcaDataset, NamedDataset, ToyDataset

_TOY_KINDS: tuple[str, ...] = get_args(ToyDataset.model_fields["kind"].annotation)
_DRAWN_KINDS = (*_TOY_KINDS, *get_args(IcaDataset.model_fields["kind"].annotation))


def built_in_names() -> tuple[str, ...]:
    """The names that no upload may take."""
    return (*named.SHIPPED, *named.PUBLIC, celeba.NAME, *_DRAWN_KINDS)


def describe(
    ref: AnyDataset | None, cache_dir: Path, store: ArtifactStore | None = None
) -> DatasetInfo:
    """What is known of a data set, or of none; cheap after the first call, and never downloads.

    A name that is not built in is an upload, found in ``store`` by the digest that the reference
    pins. Raises UnknownDataset, DatasetUnavailable, StoreError, and SpecMismatch for data that
    cannot be drawn.
    """
    match ref:
        case None:
            return NO_DATA.info
        case ToyDataset():
            return _describe_toy(ref)
        case IcaDataset():
            return describe_mixture(ref)
        case NamedDataset(name=name) if name in named.SHIPPED:
            return _describe_shipped(name)
        case NamedDataset(name=name) if name in named.PUBLIC:
            return _describe_public(named.PUBLIC[name], cache_dir)
        case NamedDataset(name=celeba.NAME):
            return celeba.describe(cache_dir)
        case NamedDataset(name=name, digest=str(digest)) if store is not None:
            _refuse_toy(name)
            return describe_upload(name, digest, store)
    _refuse_toy(ref.name)
    names = ", ".join(built_in_names())
    raise UnknownDataset(f"there is no data set {ref.name!r}; the built-in ones are {names}")


def load(ref: AnyDataset | None, cache_dir: Path, store: ArtifactStore | None = None) -> Dataset:
    """The data set, or none, split by a permutation of ``split_seed``.

    Downloads and fetches what it needs.

    Raises UnknownDataset, DatasetUnavailable, StoreError, and DatasetChanged where the content is
    not what ``ref.digest`` pins.
    """
    if ref is None:
        return NO_DATA
    if isinstance(ref, ToyDataset):
        return _in_memory(ref, _describe_toy(ref), toys.draw(ref))
    if isinstance(ref, IcaDataset):
        info, drawn = describe_mixture(ref), draw_mixture(ref)
        data = _in_memory(ref, info, drawn.rows)
        return replace(data, mixing=torch.from_numpy(drawn.mixing))
    if ref.name in named.SHIPPED:
        return _in_memory(ref, _describe_shipped(ref.name), named.SHIPPED[ref.name].read())
    if ref.name in named.PUBLIC:
        path = named.PUBLIC[ref.name].get(cache_dir)
        info = _describe_public(named.PUBLIC[ref.name], cache_dir)
        return _from_cache(ref, info, cache_dir, lambda: read_idx_pictures(path))
    if ref.name == celeba.NAME:
        info = celeba.describe(cache_dir)
        return _from_cache(ref, info, cache_dir, lambda: celeba.read(info, cache_dir))
    if ref.digest is None or store is None:
        describe(ref, cache_dir)  # says what is wrong
    assert ref.digest is not None
    assert store is not None
    return _uploaded(ref, ref.digest, cache_dir, store)


def catalogue(cache_dir: Path) -> list[DatasetInfo]:
    """Every built-in data set and every drawn one, also those whose files are not here."""
    return [built_in(name, cache_dir) for name in built_in_names()]


def built_in(name: str, cache_dir: Path) -> DatasetInfo:
    """What is known of one of :func:`built_in_names`; a drawn one is as it is by default."""
    if name in _TOY_KINDS:
        return _describe_toy(ToyDataset.model_validate({"kind": name}))
    if name in _DRAWN_KINDS:
        return describe_mixture(IcaDataset.model_validate({"kind": name}))
    try:
        return describe(NamedDataset(name=name), cache_dir)
    except DatasetUnavailable as error:
        is_celeba = name == celeba.NAME
        title = celeba.TITLE if is_celeba else named.TITLES[name]
        shape = (celeba.SIDE, celeba.SIDE, 3) if is_celeba else (28, 28)
        return DatasetInfo(name, title, shape, 0, True, "", False, str(error))


def _refuse_toy(name: str) -> None:
    if name in _DRAWN_KINDS:
        raise UnknownDataset(f'{name} is drawn, not named: refer to it as {{"kind": "{name}"}}')


def _require_pinned(ref: AnyDataset, info: DatasetInfo) -> None:
    if ref.digest is not None and ref.digest != info.digest:
        raise DatasetChanged(
            f"the content of {info.name} is {info.digest} here, the job is pinned to {ref.digest}; "
            "submit the job again to use the content that is here"
        )


def _in_memory(ref: AnyDataset, info: DatasetInfo, data: NDArray[Any]) -> Dataset:
    _require_pinned(ref, info)
    rows = data.reshape(info.count, -1)
    train, held_out = split(info.count, ref.held_out_fraction, ref.split_seed)
    return Dataset(info, torch.from_numpy(rows[train]), torch.from_numpy(rows[held_out]))


def _from_cache(
    ref: NamedDataset, info: DatasetInfo, cache_dir: Path, read: Callable[[], NDArray[Any]]
) -> Dataset:
    """A data set whose rows are kept in the order of the split, so that both parts are slices."""
    _require_pinned(ref, info)
    shape, held = (info.count, info.dimensions), held_out_count(info.count, ref.held_out_fraction)
    dtype: DType = "uint8" if info.is_image else "float32"
    rows = in_split_order(cache_dir, info.digest, shape, dtype, ref.split_seed, read)
    return Dataset(info, torch.from_numpy(rows[held:]), torch.from_numpy(rows[:held]))


def _uploaded(ref: NamedDataset, digest: str, cache_dir: Path, store: ArtifactStore) -> Dataset:
    _refuse_toy(ref.name)
    facts = facts_of(digest, store)
    info = upload_info(ref.name, facts)
    return _from_cache(ref, info, cache_dir, lambda: read_upload(facts, cache_dir, store))


def _describe_toy(ref: ToyDataset) -> DatasetInfo:
    return DatasetInfo(
        name=ref.kind,
        title=toys.TITLES[ref.kind],
        shape=(toys.dimensions(ref.kind),),
        count=ref.samples,
        is_image=False,
        digest=toys.digest(ref),
        available=True,
        detail="Drawn from its seed when a job needs it.",
    )


@lru_cache(maxsize=8)
def _describe_shipped(name: str) -> DatasetInfo:
    pictures = named.SHIPPED[name].read()
    return _pictures_info(name, pictures.shape, digest_of(pictures), named.SHIPPED[name].detail)


def _describe_public(source: PublicIdx, cache_dir: Path) -> DatasetInfo:
    """From the file where it is here, else from what is known of the published one."""
    path, detail = source.find(cache_dir), named.DETAILS[source.name]
    if path is None:
        detail += f" Not here yet: the first job that needs it downloads {source.file.url}."
        return _pictures_info(source.name, source.shape, source.digest, detail)
    try:
        status = path.stat()
    except OSError as error:
        raise DatasetUnavailable(f"{path.name} cannot be read; replace it") from error
    shape, digest = _fingerprint(path, status.st_size, status.st_mtime_ns)
    return _pictures_info(source.name, shape, digest, detail)


def _pictures_info(name: str, shape: tuple[int, ...], digest: str, detail: str) -> DatasetInfo:
    return DatasetInfo(name, named.TITLES[name], shape[1:], shape[0], True, digest, True, detail)


@lru_cache(maxsize=32)
def _fingerprint(path: Path, size_bytes: int, modified_ns: int) -> tuple[tuple[int, ...], str]:
    """Shape and digest of a file's pictures, read again only when the file has changed."""
    del size_bytes, modified_ns  # only part of the key
    pictures = read_idx_pictures(path)
    return pictures.shape, digest_of(np.ascontiguousarray(pictures))
