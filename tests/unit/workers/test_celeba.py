import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workers.data import catalogue, describe, load
from workers.errors import DatasetUnavailable
from workers.spec import NamedDataset

REF = NamedDataset(name="celeba")


def drawn(number: int, size: tuple[int, int] = (178, 218)) -> Image.Image:
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 256, (8, 6, 3), np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.BICUBIC)


def draw(folder: Path, count: int = 24) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        drawn(number).save(folder / f"{number:06}.jpg", quality=95)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    draw(tmp_path / "celeba")
    return tmp_path


def test_faces_are_cropped_and_reduced(cache: Path) -> None:
    data = load(REF, cache)
    assert (data.info.shape, data.info.count) == ((64, 64, 3), 24)
    assert data.train.dtype == torch.uint8
    assert len(data.train) + len(data.held_out) == 24
    rows = torch.cat((data.held_out, data.train)).numpy().reshape(-1, 64, 64, 3)
    # The crop by other means: the square from column 19, row 39, reduced by Lanczos.
    order = np.argsort(np.random.PCG64(0).random_raw(24), kind="stable")
    for row, number in zip(rows, order, strict=True):
        with Image.open(cache / "celeba" / f"{number:06}.jpg") as image:
            square = np.asarray(image)[39:179, 19:159]
        expected = Image.fromarray(square).resize((64, 64), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(row, np.asarray(expected))


def test_they_are_decoded_once(cache: Path) -> None:
    first = load(REF, cache).train.clone()
    for path in (cache / "celeba").iterdir():
        stamp = path.stat()
        path.write_bytes(b"x" * stamp.st_size)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert torch.equal(load(REF, cache).train, first)


def test_the_folder_of_the_archive_is_found_too(tmp_path: Path) -> None:
    draw(tmp_path / "celeba" / "img_align_celeba")
    draw(tmp_path / "other" / "celeba")
    assert describe(REF, tmp_path).digest == describe(REF, tmp_path / "other").digest


def test_the_digest_follows_the_content(cache: Path) -> None:
    before = describe(REF, cache).digest
    assert describe(REF, cache).digest == before
    drawn(99).save(cache / "celeba" / "000003.jpg")
    changed = describe(REF, cache).digest
    drawn(100).save(cache / "celeba" / "000024.jpg")
    assert len({before, changed, describe(REF, cache).digest}) == 3


def test_nothing_is_decoded_to_describe_it(cache: Path) -> None:
    (cache / "celeba" / "000005.jpg").write_bytes(b"no picture")
    assert describe(REF, cache).count == 24
    with pytest.raises(DatasetUnavailable, match=r"000005\.jpg cannot be decoded"):
        load(REF, cache)
    assert not list((cache / "arrays").glob("*.npy"))


def test_a_picture_of_another_size_is_named(cache: Path) -> None:
    drawn(1, (218, 178)).save(cache / "celeba" / "000007.jpg")
    with pytest.raises(DatasetUnavailable, match=r"000007\.jpg is 218×178 RGB"):
        load(REF, cache)


def test_without_the_folder_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnavailable, match="into the folder celeba of the data cache"):
        describe(REF, tmp_path)


def test_a_picture_that_is_not_there_any_more_is_named(cache: Path) -> None:
    (cache / "celeba" / "000011.jpg").unlink()
    (cache / "celeba" / "000011.jpg").symlink_to(cache / "moved away")
    with pytest.raises(DatasetUnavailable, match=r"000011\.jpg cannot be read; replace it"):
        describe(REF, cache)
    [info] = (info for info in catalogue(cache) if info.name == "celeba")
    assert not info.available
    assert "000011.jpg cannot be read" in info.detail


def test_a_name_that_is_no_text_is_shown_as_far_as_it_is(cache: Path) -> None:
    (cache / "celeba" / "000011.jpg").rename(cache / "celeba" / os.fsdecode(b"11\xff.jpg"))
    with pytest.raises(DatasetUnavailable, match=r"'11\\udcff\.jpg' is no name in UTF-8"):
        describe(REF, cache)
