import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.drawings import InterpolationRequest, ReconstructionRequest, SampleRequest
from service.errors import InvalidQuery, ResultNotFound
from service.sampling import Sampling, Source
from tests.unit.service.trained import Trained, picture_spec, train, vector_spec
from workers.data import load
from workers.generate import Generator
from workers.reconstruct import reconstruct
from workers.spec import NamedDataset, TrainSpec

TEN = ReconstructionRequest(n=10, seed=0)
PATHS = InterpolationRequest(n=3, seed=0, steps=4, between="data", path="spherical")
MANY = 1 << 25


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    trained = train(tmp_path_factory.mktemp("pictures"), picture_spec())
    yield trained
    trained.jobs.close()


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    trained = train(tmp_path_factory.mktemp("vectors"), vector_spec())
    yield trained
    trained.jobs.close()


def source(trained: Trained) -> Source:
    return trained.sampling.source(trained.job_id, "latest")


def fresh(trained: Trained, folder: Path) -> Sampling:
    """As after a restart of the service."""
    return Sampling(trained.results, trained.artifacts, folder)


def test_the_service_reconstructs_as_a_fetched_checkpoint_does(
    pictures: Trained, tmp_path: Path
) -> None:
    latest = source(pictures).checkpoint
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(pictures.artifacts.get(f"{latest.prefix}/weights.safetensors"))
    held_out = load(pictures.results.spec(pictures.job_id).dataset, tmp_path).held_out
    offline = reconstruct(Generator.load(weights), held_out, 10)
    drawn = pictures.sampling.reconstruct(source(pictures), TEN, MANY)
    for name in ("x", "y", "z", "g"):
        assert getattr(drawn.found, name).tobytes() == getattr(offline, name).tobytes()
    assert (drawn.noise_scale, drawn.is_image) == (0.5, True)


def test_the_same_request_gives_the_same_bytes_in_another_service(
    pictures: Trained, vectors: Trained, tmp_path: Path
) -> None:
    for trained in (pictures, vectors):
        services = (trained.sampling, fresh(trained, tmp_path))
        for path in (PATHS, replace(PATHS, between="prior", path="linear")):
            first, second = (one.interpolate(source(trained), path, MANY) for one in services)
            assert first.png() == second.png()
            assert first.npz() == second.npz()
        one, other = (one.reconstruct(source(trained), TEN, MANY) for one in services)
        assert one.png() == other.png()
        assert one.npz() == other.npz()


def test_the_archive_holds_every_array(pictures: Trained) -> None:
    drawn = pictures.sampling.reconstruct(source(pictures), TEN, MANY)
    with np.load(io.BytesIO(drawn.npz()), allow_pickle=False) as archive:
        assert {name: archive[name].shape for name in archive.files} == {
            "x": (10, 28, 28),
            "y": (10, 28, 28),
            "z": (10, 2),
            "g": (10, 28, 28),
        }
    paths = pictures.sampling.interpolate(source(pictures), PATHS, MANY)
    with np.load(io.BytesIO(paths.npz()), allow_pickle=False) as archive:
        assert {name: archive[name].shape for name in archive.files} == {
            "x": (3, 2, 28, 28),
            "z": (3, 4, 2),
            "g": (3, 4, 28, 28),
        }
    with Image.open(io.BytesIO(paths.png())) as picture:
        assert picture.height > 3 * 56


def test_the_etag_tells_apart_what_gives_other_bytes_and_nothing_else(pictures: Trained) -> None:
    latest, data = source(pictures).checkpoint, source(pictures).data
    first = pictures.results.checkpoints(pictures.job_id)[0]
    assert isinstance(data, NamedDataset)
    etag = pictures.sampling.etag
    tags = {
        etag(latest, SampleRequest(n=10, seed=0, spread=False), "npz"),
        etag(latest, TEN, "npz", data),
        etag(latest, TEN, "png", data),
        etag(first, TEN, "npz", data),
        etag(latest, replace(TEN, n=11), "npz", data),
        etag(latest, replace(TEN, seed=1), "npz", data),
        etag(latest, TEN, "npz", data.model_copy(update={"digest": "sha256:" + "0" * 64})),
        etag(latest, TEN, "npz", data.model_copy(update={"split_seed": 1})),
        etag(latest, PATHS, "npz", data),
        etag(latest, PATHS, "npz"),
        etag(latest, replace(PATHS, steps=5), "npz", data),
        etag(latest, replace(PATHS, path="linear"), "npz", data),
        etag(latest, replace(PATHS, between="prior"), "npz", data),
    }
    assert len(tags) == 13
    again = replace(latest, attempt=2, id="another")
    assert etag(again, TEN, "npz", data) in tags


def test_more_numbers_than_an_answer_may_hold_are_refused_with_what_fits(
    pictures: Trained,
) -> None:
    each = 3 * 784
    assert len(pictures.sampling.reconstruct(source(pictures), TEN, 10 * each).found.x) == 10
    with pytest.raises(InvalidQuery) as refusal:
        pictures.sampling.reconstruct(source(pictures), TEN, 10 * each - 1)
    [error] = refusal.value.errors
    assert error.pointer == "/query/n"
    assert "at most 9 " in error.message
    for wanted, data in ((replace(PATHS, between="prior"), 4), (PATHS, 10)):
        pictures.sampling.interpolate(source(pictures), wanted, 3 * data * 784)
        with pytest.raises(InvalidQuery):
            pictures.sampling.interpolate(source(pictures), wanted, 3 * data * 784 - 1)


def test_paths_between_latents_need_no_data(vectors: Trained, tmp_path: Path) -> None:
    here = source(vectors)
    gone = replace(here, data=NamedDataset(name="celeba"))
    elsewhere = fresh(vectors, tmp_path)
    drawn = elsewhere.interpolate(gone, replace(PATHS, between="prior"), MANY)
    assert drawn.found.g.shape == (3, 4, 2)
    with pytest.raises(ResultNotFound, match="celeba is not on this machine"):
        elsewhere.interpolate(gone, PATHS, MANY)
    with pytest.raises(ResultNotFound, match="celeba is not on this machine"):
        elsewhere.reconstruct(gone, TEN, MANY)


def test_a_plain_vae_is_shown_without_noise(tmp_path: Path) -> None:
    of = vector_spec().model_dump()
    for field in ("spread", "learned_spread", "estimator", "warm_up_epochs"):
        del of["trainer"][field]
    of["trainer"]["kind"] = "vae"
    trained = train(tmp_path, TrainSpec.model_validate(of))
    drawn = trained.sampling.reconstruct(source(trained), TEN, MANY)
    assert drawn.noise_scale == 0
    assert np.array_equal(drawn.found.x, drawn.found.y)
    assert drawn.png().startswith(b"\x89PNG")
    trained.jobs.close()
