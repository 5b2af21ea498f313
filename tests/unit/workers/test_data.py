import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.factories import tiny_spec
from workers import toys
from workers.data import built_in, catalogue, celeba, describe, load, split
from workers.errors import DatasetChanged, DatasetUnavailable, UnknownDataset
from workers.kinds import advice
from workers.metrics import as_float, total_variance
from workers.spec import NamedDataset, ToyDataset

MNIST = NamedDataset(name="mnist-10k")


def write_idx(cache: Path, header: bytes, pixels: bytes) -> None:
    folder = cache / "fashion-mnist"
    folder.mkdir(exist_ok=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels))


def idx_header(count: int, rows: int, columns: int) -> bytes:
    return b"\x00\x00\x08\x03" + np.array([count, rows, columns], ">u4").tobytes()


def test_mnist_10k_is_shipped(tmp_path: Path) -> None:
    data = load(MNIST, tmp_path)
    assert data.info.shape == (28, 28)
    assert data.info.is_image
    assert data.train.shape == (9000, 784)
    assert data.held_out.shape == (1000, 784)
    assert data.train.dtype == torch.uint8
    assert data.train.max() == 255
    assert "CC BY-SA 3.0" in data.info.detail


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    info = describe(MNIST, tmp_path)
    data = load(MNIST, tmp_path)
    rows = torch.cat((data.train, data.held_out))
    assert len(rows) == info.count
    expected = hashlib.sha256(idx_header(10_000, 28, 28))
    with np.load(Path(toys.__file__).parent / "datasets" / "mnist10k.npz") as archive:
        expected.update(archive["images"].tobytes())
    assert info.digest == f"sha256:{expected.hexdigest()}"


def test_the_splits_are_a_partition_fixed_by_the_split_seed(tmp_path: Path) -> None:
    ref = ToyDataset(kind="line", samples=100, held_out_fraction=0.2)
    data = load(ref, tmp_path)
    assert (len(data.train), len(data.held_out)) == (80, 20)
    rows = {tuple(row) for row in torch.cat((data.train, data.held_out)).tolist()}
    assert rows == {tuple(row) for row in toys.draw(ref).tolist()}
    assert torch.equal(load(ref, tmp_path).held_out, data.held_out)
    other = load(ref.model_copy(update={"split_seed": 1}), tmp_path)
    assert not torch.equal(other.held_out, data.held_out)


def test_something_is_held_out_even_of_a_tiny_fraction(tmp_path: Path) -> None:
    ref = ToyDataset(kind="line", samples=20, held_out_fraction=0.001)
    assert len(load(ref, tmp_path).held_out) == 1


def test_of_few_held_out_data_one_is_told_before(tmp_path: Path) -> None:
    spec = tiny_spec()
    for samples, told in ((190, "Of 190 data 19 are held out"), (200, "")):
        ref = ToyDataset(kind="ring", samples=samples, held_out_fraction=0.1)
        found = advice(spec.model_copy(update={"dataset": ref}), describe(ref, tmp_path))
        assert len(found) == (told != "")
        assert all(told in text for text in found)


def test_a_changed_content_is_refused(tmp_path: Path) -> None:
    pinned = describe(MNIST, tmp_path).digest
    assert load(MNIST.model_copy(update={"digest": pinned}), tmp_path).info.digest == pinned
    with pytest.raises(DatasetChanged, match="submit the job again"):
        load(MNIST.model_copy(update={"digest": "sha256:" + "0" * 64}), tmp_path)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnknownDataset, match="mnist-10k, digits, mnist, fashion-mnist, celeba"):
        describe(NamedDataset(name="nothing"), tmp_path)
    with pytest.raises(UnknownDataset, match='"kind": "ring"'):
        describe(NamedDataset(name="ring"), tmp_path)


def test_the_catalogue_has_every_name_and_says_what_is_missing(tmp_path: Path) -> None:
    infos = {info.name: info for info in catalogue(tmp_path)}
    toy_names = ["ring", "line", "two-moons", "surface"]
    named = ["mnist-10k", "digits", "mnist", "fashion-mnist", "celeba"]
    assert list(infos) == [*named, *toy_names, "laplace-ica"]
    for name, info in infos.items():
        if info.available:
            assert info.digest.startswith("sha256:"), name
            assert info.count > 0
        else:
            assert name == "celeba"
            assert "img_align_celeba" in info.detail
            assert info.shape == (64, 64, 3)


def test_digits_are_scaled_to_bytes(tmp_path: Path) -> None:
    data = load(NamedDataset(name="digits"), tmp_path)
    assert data.info.shape == (8, 8)
    assert (data.train.min().item(), data.train.max().item()) == (0, 255)
    assert len(data.train) + len(data.held_out) == 1797


def test_fashion_mnist_is_read_from_the_cache(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    write_idx(tmp_path, idx_header(30, 28, 28), pixels.tobytes())
    data = load(NamedDataset(name="fashion-mnist", held_out_fraction=0.5), tmp_path)
    rows = torch.cat((data.train, data.held_out)).numpy()
    assert sorted(map(bytes, rows)) == sorted(map(bytes, pixels.reshape(30, -1)))


def test_a_rewritten_file_has_a_new_digest(tmp_path: Path) -> None:
    ref = NamedDataset(name="fashion-mnist")
    write_idx(tmp_path, idx_header(30, 2, 2), bytes(120))
    before = describe(ref, tmp_path).digest
    write_idx(tmp_path, idx_header(31, 2, 2), bytes(124))
    assert describe(ref, tmp_path).digest != before


@pytest.mark.parametrize(
    ("header", "pixels"),
    [
        (b"\x80\x04", b""),
        (b"\x00\x00\x08\x01" + bytes(12), b""),
        (idx_header(30, 28, 28), bytes(100)),
        (idx_header(2**32 - 1, 28, 28), bytes(100)),
        (idx_header(30, 2**20, 2**20), bytes(100)),
        (idx_header(0, 28, 28), b""),
    ],
)
def test_a_broken_idx_file_is_unavailable(tmp_path: Path, header: bytes, pixels: bytes) -> None:
    write_idx(tmp_path, header, pixels)
    with pytest.raises(DatasetUnavailable, match="replace it"):
        describe(NamedDataset(name="fashion-mnist"), tmp_path)


def test_a_file_that_is_not_gzip_is_unavailable(tmp_path: Path) -> None:
    write_idx(tmp_path, b"", b"")
    path = tmp_path / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    whole = gzip.compress(idx_header(30, 28, 28) + bytes(30 * 784))
    for content in (b"plain text", whole[:-20], whole[:20] + b"\xff" * 40):
        path.write_bytes(content)
        with pytest.raises(DatasetUnavailable, match="replace it"):
            describe(NamedDataset(name="fashion-mnist"), tmp_path)


def test_toys_lie_on_their_curves() -> None:
    ring = toys.draw(ToyDataset(kind="ring", samples=500))
    np.testing.assert_allclose((ring**2).sum(1), 1, atol=1e-5)
    line = toys.draw(ToyDataset(kind="line", samples=500))
    np.testing.assert_allclose(line[:, 1], line[:, 0] / 2, atol=1e-6)
    moons = toys.draw(ToyDataset(kind="two-moons", samples=500))
    radii = [np.hypot(*(moons - centre).T) for centre in ([-0.5, -0.25], [0.5, 0.25])]
    np.testing.assert_allclose(np.min(np.abs(np.array(radii) - 1), axis=0), 0, atol=1e-5)
    surface = toys.draw(ToyDataset(kind="surface", samples=500))
    expected = 0.5 * np.sin(2 * surface[:, 0]) * np.cos(surface[:, 1])
    np.testing.assert_allclose(surface[:, 2], expected, atol=1e-5)


def test_a_toys_digest_follows_from_its_recipe() -> None:
    ref = ToyDataset(kind="ring")
    variants = [
        ref,
        *(
            ref.model_copy(update=change)
            for change in ({"kind": "line"}, {"samples": 99}, {"noise_std": 0.1}, {"seed": 1})
        ),
    ]
    assert len({toys.digest(variant) for variant in variants}) == len(variants)
    # How it is split is not content.
    assert toys.digest(ref.model_copy(update={"split_seed": 9})) == toys.digest(ref)


def test_pixels_become_values_between_zero_and_one() -> None:
    values = as_float(torch.tensor([[0, 51, 255]], dtype=torch.uint8))
    torch.testing.assert_close(values, torch.tensor([[0.0, 0.2, 1.0]]))


def variance_of(rows: torch.Tensor, blocks: int) -> float:
    work = total_variance(rows)
    for _ in range(blocks):
        next(work)
    with pytest.raises(StopIteration) as end:
        next(work)
    return float(end.value.value)


def test_the_total_variance_is_the_sum_of_the_variances() -> None:
    rows = 100 + torch.randn(10_000, 3, generator=torch.Generator().manual_seed(0))
    expected = rows.double().var(0, correction=0).sum().item()
    assert variance_of(rows, blocks=3) == pytest.approx(expected, rel=1e-6)
    pixels = torch.randint(
        0, 256, (5000, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    expected = (pixels.double() / 255).var(0, correction=0).sum().item()
    assert variance_of(pixels, blocks=2) == pytest.approx(expected, rel=1e-6)
    wide = torch.zeros(3, 2**22, dtype=torch.uint8)  # a block is bounded in values too
    assert variance_of(wide, blocks=3) == 0


def test_public_sets_are_known_before_they_are_here(tmp_path: Path) -> None:
    info = describe(NamedDataset(name="mnist"), tmp_path)
    assert (info.shape, info.count, info.available) == ((28, 28), 60_000, True)
    assert "downloads https://" in info.detail
    # As published: SHA-256 of the decompressed file.
    assert info.digest.startswith("sha256:ba891046e6505d7a")
    assert not list(tmp_path.iterdir())


def test_a_files_digest_is_that_of_the_decompressed_file(tmp_path: Path) -> None:
    content = idx_header(30, 2, 2) + bytes(range(120))
    write_idx(tmp_path, idx_header(30, 2, 2), bytes(range(120)))
    expected = "sha256:" + hashlib.sha256(content).hexdigest()
    assert describe(NamedDataset(name="fashion-mnist"), tmp_path).digest == expected


def test_decoded_data_are_kept_and_mapped(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    write_idx(tmp_path, idx_header(30, 28, 28), pixels.tobytes())
    ref = NamedDataset(name="fashion-mnist", held_out_fraction=0.2, split_seed=3)
    first, second = load(ref, tmp_path), load(ref, tmp_path)
    [kept] = (tmp_path / "arrays").iterdir()
    train, held_out = split(30, 0.2, 3)
    np.testing.assert_array_equal(first.train.numpy(), pixels.reshape(30, -1)[train])
    np.testing.assert_array_equal(second.held_out.numpy(), pixels.reshape(30, -1)[held_out])
    assert Path("/proc/self/maps").read_text().count(kept.name) == 2
    # What a trainer would write stays with it.
    first.train[0] = 0
    np.testing.assert_array_equal(load(ref, tmp_path).train.numpy(), second.train.numpy())


def test_other_fractions_use_the_same_file(tmp_path: Path) -> None:
    write_idx(tmp_path, idx_header(30, 2, 2), bytes(range(120)))
    for fraction in (0.1, 0.5):
        ref = NamedDataset(name="fashion-mnist", held_out_fraction=fraction)
        assert len(load(ref, tmp_path).held_out) == round(30 * fraction)
    assert len(list((tmp_path / "arrays").iterdir())) == 1


def test_a_kept_array_tells_when_it_was_last_used(tmp_path: Path) -> None:
    write_idx(tmp_path, idx_header(30, 2, 2), bytes(range(120)))
    first = load(NamedDataset(name="fashion-mnist"), tmp_path)
    [kept] = (tmp_path / "arrays").iterdir()
    os.utime(kept, (0, 0))
    load(NamedDataset(name="fashion-mnist"), tmp_path)
    assert kept.stat().st_mtime > 0
    kept.unlink()  # a sweep may; who has it mapped reads on, and the next one makes it again
    assert torch.equal(load(NamedDataset(name="fashion-mnist"), tmp_path).train, first.train)


def test_a_kept_array_that_is_cut_off_is_made_again(tmp_path: Path) -> None:
    write_idx(tmp_path, idx_header(30, 2, 2), bytes(range(120)))
    ref = NamedDataset(name="fashion-mnist")
    expected = load(ref, tmp_path).train.clone()
    [kept] = (tmp_path / "arrays").iterdir()
    for damaged in (kept.read_bytes()[:-1], b"", b"x" * 300):
        kept.unlink()
        kept.write_bytes(damaged)
        assert torch.equal(load(ref, tmp_path).train, expected)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_idx(tmp_path, idx_header(30, 2, 2), bytes(range(120)))
    (tmp_path / "arrays").write_bytes(b"a file where the folder should be")
    with pytest.raises(DatasetUnavailable, match="SPREADTRAIN_CACHE_DIR"):
        load(NamedDataset(name="fashion-mnist"), tmp_path)


def test_a_folder_that_cannot_be_looked_into_has_no_files(tmp_path: Path) -> None:
    # Its name is too long; of one that is somebody else's the system says no in the same way.
    closed = tmp_path / ("x" * 300)
    info = describe(NamedDataset(name="mnist"), closed)
    assert "Not here yet" in info.detail
    infos = {info.name: info for info in catalogue(closed)}
    assert not infos["celeba"].available


def test_one_built_in_set_is_described_without_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for info in catalogue(tmp_path):
        assert built_in(info.name, tmp_path) == info
    # CelebA's folder has 200,000 files.
    monkeypatch.setattr(celeba, "find", lambda _: pytest.fail("the folder is listed"))
    built_in("digits", tmp_path)
