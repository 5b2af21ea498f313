import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from service.drawings import SampleRequest
from service.errors import (
    CheckpointNotFound,
    InvalidQuery,
    JobNotFound,
    ServiceError,
)
from service.sampling import Sampling
from tests.unit.service.trained import (
    Trained,
    convolution_spec,
    picture_spec,
    train,
    vector_spec,
)
from workers.errors import CheckpointError

FOUR = SampleRequest(n=4, seed=0, spread=False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    trained = train(tmp_path_factory.mktemp("pictures"), picture_spec())
    yield trained
    trained.jobs.close()


@pytest.fixture
def vectors(tmp_path: Path) -> Iterator[Trained]:
    trained = train(tmp_path, vector_spec())
    yield trained
    trained.jobs.close()


def fresh(trained: Trained) -> Sampling:
    """As after a restart of the service."""
    return Sampling(trained.results, trained.artifacts, Path("/nowhere"))


def test_the_same_request_gives_the_same_bytes_in_another_service(pictures: Trained) -> None:
    latest = pictures.sampling.checkpoint(pictures.job_id, "latest")
    first = pictures.sampling.draw(latest, FOUR)
    second = fresh(pictures).draw(latest, FOUR)
    assert first.png() == second.png()
    assert first.npz() == second.npz()
    assert first.rows() == second.rows()


def test_more_samples_than_an_answer_may_hold_are_refused(pictures: Trained) -> None:
    latest = pictures.sampling.checkpoint(pictures.job_id, "latest")
    size = pictures.sampling.draw(latest, FOUR).array[0].size
    assert pictures.sampling.draw(latest, FOUR, values_max=4 * size).array.shape[0] == 4
    with pytest.raises(InvalidQuery, match="too much"):
        pictures.sampling.draw(latest, FOUR, values_max=4 * size - 1)


def test_a_convolutional_job_is_sampled_by_its_running_statistics(tmp_path: Path) -> None:
    trained = train(tmp_path, convolution_spec())
    latest = trained.sampling.checkpoint(trained.job_id, "latest")
    many = trained.sampling.draw(latest, replace(FOUR, n=70)).array
    assert many.shape == (70, 8, 8)
    assert np.array_equal(many[:4], fresh(trained).draw(latest, FOUR).array)
    trained.jobs.close()


def test_fewer_samples_are_the_first_of_more(pictures: Trained) -> None:
    latest = pictures.sampling.checkpoint(pictures.job_id, "latest")
    many = pictures.sampling.draw(latest, replace(FOUR, n=70)).array
    assert np.array_equal(many[:4], pictures.sampling.draw(latest, FOUR).array)


def test_seeds_checkpoints_and_spread_give_other_samples(pictures: Trained) -> None:
    first, *_, last = pictures.results.checkpoints(pictures.job_id)
    draw = pictures.sampling.draw
    arrays = [
        draw(last, FOUR).array,
        draw(first, FOUR).array,
        draw(last, replace(FOUR, seed=1)).array,
        draw(last, replace(FOUR, spread=True)).array,
    ]
    for index, array in enumerate(arrays):
        assert array.shape == (4, 28, 28)
        assert all(not np.array_equal(array, other) for other in arrays[index + 1 :])
    assert 0 <= arrays[0].min() <= arrays[0].max() <= 1


def test_pictures_come_as_a_grid_an_archive_and_numbers(pictures: Trained) -> None:
    latest = pictures.sampling.checkpoint(pictures.job_id, "latest")
    samples = pictures.sampling.draw(latest, FOUR)
    assert samples.is_image
    with Image.open(io.BytesIO(samples.png())) as picture:
        assert min(picture.size) >= 2 * 28
    with np.load(io.BytesIO(samples.npz()), allow_pickle=False) as archive:
        assert np.array_equal(archive["samples"], samples.array)
    rows = json.loads(json.dumps(samples.rows(), allow_nan=False))
    assert np.array_equal(np.asarray(rows, np.float32), samples.array)


def test_an_archive_does_not_hold_the_time_of_day(pictures: Trained) -> None:
    latest = pictures.sampling.checkpoint(pictures.job_id, "latest")
    with ZipFile(io.BytesIO(pictures.sampling.draw(latest, FOUR).npz())) as archive:
        assert [entry.date_time for entry in archive.infolist()] == [(1980, 1, 1, 0, 0, 0)]


def test_vectors_come_as_numbers_and_as_a_scatter_plot(vectors: Trained) -> None:
    latest = vectors.sampling.checkpoint(vectors.job_id, "latest")
    samples = vectors.sampling.draw(latest, FOUR)
    assert (samples.array.shape, samples.is_image) == ((4, 2), False)
    assert samples.png().startswith(b"\x89PNG")


def test_the_etag_tells_apart_what_gives_other_bytes_and_nothing_else(pictures: Trained) -> None:
    first, *_, last = pictures.results.checkpoints(pictures.job_id)
    etag = pictures.sampling.etag
    tags = {
        etag(last, FOUR, "png"),
        etag(last, FOUR, "npz"),
        etag(first, FOUR, "png"),
        etag(last, replace(FOUR, n=5), "png"),
        etag(last, replace(FOUR, seed=5), "png"),
        etag(last, replace(FOUR, spread=True), "png"),
    }
    assert len(tags) == 6
    again = replace(last, attempt=2, id="another", is_best=not last.is_best)
    assert etag(again, FOUR, "png") in tags


def test_the_etag_needs_no_file(vectors: Trained) -> None:
    latest = vectors.sampling.checkpoint(vectors.job_id, "latest")
    vectors.artifacts.delete(f"{latest.prefix}/weights.safetensors")
    assert len(fresh(vectors).etag(latest, FOUR, "png")) == 64


def test_a_generator_that_was_used_is_ready_without_its_files(vectors: Trained) -> None:
    latest = vectors.sampling.checkpoint(vectors.job_id, "latest")
    drawn = vectors.sampling.draw(latest, FOUR)
    for name in ("weights.safetensors", "manifest.json"):
        vectors.artifacts.delete(f"{latest.prefix}/{name}")
    assert np.array_equal(vectors.sampling.draw(latest, FOUR).array, drawn.array)
    with pytest.raises(CheckpointNotFound, match="are gone"):
        fresh(vectors).draw(latest, FOUR)


def overwrite(trained: Trained, key: str, content: bytes) -> None:
    trained.artifacts.delete(key)
    trained.artifacts.put(key, content)


@pytest.mark.parametrize("damage", ["shorter", "one bit", "longer", "empty"])
def test_weights_that_are_not_the_recorded_ones_are_refused(vectors: Trained, damage: str) -> None:
    latest = vectors.sampling.checkpoint(vectors.job_id, "latest")
    key = f"{latest.prefix}/weights.safetensors"
    content = vectors.artifacts.get(key)
    damaged = {
        "shorter": content[:-1],
        "one bit": content[:-1] + bytes([content[-1] ^ 1]),
        "longer": content + b"\0",
        "empty": b"",
    }[damage]
    overwrite(vectors, key, damaged)
    with pytest.raises(ServiceError, match="is damaged") as refusal:
        vectors.sampling.draw(latest, FOUR)
    assert isinstance(refusal.value.__cause__, CheckpointError)
    assert type(refusal.value) is ServiceError
    overwrite(vectors, key, content)
    assert len(vectors.sampling.draw(latest, FOUR).array) == 4


def test_weights_and_manifest_that_agree_but_are_not_the_recorded_ones_are_refused(
    vectors: Trained,
) -> None:
    first, *_, last = vectors.results.checkpoints(vectors.job_id)
    for name in ("weights.safetensors", "manifest.json"):
        overwrite(vectors, f"{last.prefix}/{name}", vectors.artifacts.get(f"{first.prefix}/{name}"))
    with pytest.raises(ServiceError, match="is damaged"):
        vectors.sampling.draw(last, FOUR)


def test_a_manifest_that_cannot_be_read_is_refused(vectors: Trained) -> None:
    latest = vectors.sampling.checkpoint(vectors.job_id, "latest")
    overwrite(vectors, f"{latest.prefix}/manifest.json", b"{}")
    with pytest.raises(ServiceError, match="is damaged"):
        vectors.sampling.draw(latest, FOUR)


def size_of(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.size


def test_a_film_strip_has_a_row_for_each_checkpoint_and_one_of_data(pictures: Trained) -> None:
    strip = pictures.sampling.filmstrip
    two = size_of(strip(pictures.job_id, [1], 5, 0))
    four = size_of(strip(pictures.job_id, None, 5, 0))
    assert four == size_of(strip(pictures.job_id, [1, 2, 3], 5, 0))
    assert four[0] == two[0]
    assert four[1] == 2 * two[1]
    assert size_of(strip(pictures.job_id, [1], 6, 0))[0] > two[0]


def test_a_film_strip_is_the_same_each_time_and_follows_its_seed(pictures: Trained) -> None:
    strip = pictures.sampling.filmstrip
    first = strip(pictures.job_id, None, 4, 0)
    assert strip(pictures.job_id, None, 4, 0) == first
    assert strip(pictures.job_id, None, 4, 1) != first


def test_vectors_have_a_film_strip_too(vectors: Trained) -> None:
    assert vectors.sampling.filmstrip(vectors.job_id, None, 20, 0).startswith(b"\x89PNG")


def test_epochs_without_a_checkpoint_are_refused_with_the_ones_that_have_one(
    pictures: Trained,
) -> None:
    with pytest.raises(InvalidQuery) as refusal:
        pictures.sampling.filmstrip(pictures.job_id, [1, 7], 4, 0)
    [error] = refusal.value.errors
    assert error.pointer == "/query/epochs"
    assert "epoch 7" in error.message
    assert "1, 2, 3" in error.message


@pytest.mark.parametrize("epochs", [[], [1] * 17])
def test_a_film_strip_has_a_bounded_number_of_rows(pictures: Trained, epochs: list[int]) -> None:
    with pytest.raises(InvalidQuery):
        pictures.sampling.filmstrip(pictures.job_id, epochs, 4, 0)


def test_a_film_strip_of_an_unknown_job_is_not_found(vectors: Trained) -> None:
    with pytest.raises(JobNotFound):
        vectors.sampling.filmstrip("job-none", None, 4, 0)
