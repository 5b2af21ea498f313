import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.unit.workers.knowing import D, Z, linear_generator
from workers.decoding import Array
from workers.interpolate import PathKind, between_data, between_latents, latents_between
from workers.reconstruct import reconstruct

DRAW = np.random.default_rng(0)
A, B = (DRAW.normal(size=(50, 64)).astype(np.float32) for _ in range(2))
PATHS: tuple[PathKind, ...] = ("spherical", "linear")
HELD_OUT = torch.from_numpy(DRAW.normal(size=(40, D)).astype(np.float32))
WEIGHTS = (
    DRAW.normal(size=(D, Z)),
    DRAW.normal(size=D),
    DRAW.normal(size=(Z, D)),
    DRAW.normal(size=Z),
)


def norms(z: Array) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.sqrt((z.astype(np.float64) ** 2).sum(-1))
    return found


@pytest.mark.parametrize("path", PATHS)
def test_the_ends_are_the_latents_bit_for_bit(path: PathKind) -> None:
    for steps in (2, 3, 10):
        z = latents_between(A, B, steps, path)
        assert z.shape == (50, steps, 64)
        assert z.dtype == np.float32
        assert z[:, 0].tobytes() == A.tobytes()
        assert z[:, -1].tobytes() == B.tobytes()


def test_the_spherical_path_keeps_the_norm_and_turns_at_constant_speed() -> None:
    z = latents_between(A, B, 9, "spherical")
    t = np.linspace(0, 1, 9)
    expected = (1 - t) * norms(A)[:, None] + t * norms(B)[:, None]
    np.testing.assert_allclose(norms(z), expected, rtol=1e-6)
    unit = z / norms(z)[..., None]
    angles = np.arccos((unit[:, 1:] * unit[:, :-1]).sum(-1))
    np.testing.assert_allclose(angles, np.repeat(angles[:, :1], 8, 1), atol=1e-5)
    # In the plane of the ends: nothing is left of z without their components.
    for row, (a, b) in enumerate(zip(A, B, strict=True)):
        basis, _ = np.linalg.qr(np.stack((a, b), 1).astype(np.float64))
        np.testing.assert_allclose(z[row] @ basis @ basis.T, z[row], atol=1e-5)


def test_the_middle_of_a_straight_line_has_half_the_squared_norm_of_a_draw() -> None:
    """The reason for the spherical path: ‖(a + b)/2‖² is χ²/2, of mean Z/2 and variance Z/2."""
    count, latent_dim = 2000, 64
    a, b = DRAW.normal(size=(2, count, latent_dim)).astype(np.float32)
    line = norms(latents_between(a, b, 3, "linear")[:, 1])
    arc = norms(latents_between(a, b, 3, "spherical")[:, 1])
    assert abs((line**2).mean() - latent_dim / 2) < 6 * np.sqrt(latent_dim / 2 / count)
    np.testing.assert_allclose(arc, (norms(a) + norms(b)) / 2, rtol=1e-6)


def test_the_linear_path_is_the_straight_line() -> None:
    z = latents_between(A, B, 5, "linear")
    for index, t in enumerate((0, 0.25, 0.5, 0.75, 1)):
        np.testing.assert_allclose(z[:, index], (1 - t) * A + t * B, atol=1e-6)


@pytest.mark.parametrize(
    ("first", "last"),
    [([1, 0], [3, 0]), ([1, 0], [-2, 0]), ([0, 0], [1, 1]), ([0, 0], [0, 0]), ([2, 1], [2, 1])],
    ids=["same direction", "opposite", "from zero", "zero", "equal"],
)
def test_where_there_is_no_arc_the_path_is_straight(first: list[int], last: list[int]) -> None:
    a, b = np.array([first], np.float32), np.array([last], np.float32)
    np.testing.assert_allclose(
        latents_between(a, b, 7, "spherical"), latents_between(a, b, 7, "linear"), atol=1e-6
    )


def test_nearly_parallel_ends_have_a_path_of_finite_numbers_between_them() -> None:
    for turn in (1e-3, 1e-5, 1e-7, np.pi - 1e-3, np.pi - 1e-5, np.pi - 1e-7):
        b = np.array([[np.cos(turn), np.sin(turn)]], np.float32)
        z = latents_between(np.array([[1, 0]], np.float32), b, 9, "spherical")
        assert np.isfinite(z).all()
        assert norms(z).max() < 1 + 1e-6


def test_paths_between_latents_go_from_sample_to_sample() -> None:
    generator = linear_generator(WEIGHTS)
    found = between_latents(generator, 40, 6, seed=3)
    samples = generator.sample(80, seed=3).reshape(40, 2, D)
    assert found.x is None
    assert found.g.shape == (40, 6, D)
    np.testing.assert_allclose(found.g[:, [0, -1]], samples, atol=1e-6)
    a, b, _, _ = WEIGHTS
    np.testing.assert_allclose(found.g, found.z.astype(np.float64) @ a.T + b, atol=1e-5)


def test_paths_between_data_go_from_reconstruction_to_reconstruction() -> None:
    generator = linear_generator(WEIGHTS)
    found = between_data(generator, HELD_OUT, 15, 6, seed=3)
    ends = reconstruct(generator, HELD_OUT, 30, seed=3)
    assert found.x is not None
    assert found.x.tobytes() == ends.x.tobytes()
    assert found.z[:, [0, -1]].tobytes() == ends.z.tobytes()
    np.testing.assert_allclose(found.g[:, [0, -1]].reshape(30, D), ends.g, atol=1e-6)


def test_fewer_paths_are_the_first_of_more() -> None:
    generator = linear_generator(WEIGHTS)
    many, few = (between_latents(generator, n, 6, seed=3) for n in (30, 4))
    assert few.g.tobytes() == many.g[:4].tobytes()
    many, few = (between_data(generator, HELD_OUT, n, 6, seed=3) for n in (30, 4))
    assert few.g.tobytes() == many.g[:4].tobytes()
    assert not np.array_equal(between_latents(generator, 4, 6, seed=4).z, few.z)
