import io

import numpy as np
import pytest
from PIL import Image

from workers.images import filmstrip_png, grid_png, render, scatter_png


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_a_grid_has_a_tile_for_each_picture_and_gaps_between() -> None:
    images = np.random.default_rng(0).uniform(0, 1, (64, 28, 28))
    picture = opened(grid_png(images, scale=1))
    assert picture.size == (8 * 30 + 2, 8 * 30 + 2)
    pixels = np.asarray(picture)
    tile = pixels[2 + 30 : 2 + 30 + 28, 2 + 60 : 2 + 60 + 28]  # row 1, column 2
    np.testing.assert_array_equal(tile, np.rint(images[10] * 255))


def test_a_grid_can_have_other_columns_and_an_unfinished_row() -> None:
    picture = opened(grid_png(np.zeros((5, 4, 6)), columns=3, scale=1))
    assert picture.size == (3 * 8 + 2, 2 * 6 + 2)


def test_small_pictures_are_enlarged_by_a_whole_factor() -> None:
    images = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    assert opened(grid_png(images)).size == (60, 60)
    pixels = np.asarray(opened(grid_png(images, scale=3)))[2:-2, 2:-2]
    np.testing.assert_array_equal(pixels, np.kron([[0, 255], [255, 0]], np.ones((3, 3))))
    assert opened(grid_png(np.zeros((1, 100, 100)))).size == (104, 104)


def test_values_beyond_the_range_are_clipped_for_drawing_only() -> None:
    images = np.array([[[-0.5, 1.5]]])
    pixels = np.asarray(opened(grid_png(images, scale=1)))
    assert pixels[2, 2:4].tolist() == [0, 255]
    assert images.tolist() == [[[-0.5, 1.5]]]


def test_colour_pictures_stay_in_colour() -> None:
    images = np.zeros((2, 4, 4, 3))
    images[0, :, :, 0] = 1.0
    picture = opened(grid_png(images, scale=1))
    assert picture.mode == "RGB"
    assert picture.getpixel((3, 3)) == (255, 0, 0)
    assert opened(grid_png(np.zeros((2, 4, 4, 1)))).mode == "L"


@pytest.mark.parametrize("dimensions", [1, 2, 3, 7])
def test_vectors_become_a_scatter_plot(dimensions: int) -> None:
    points = np.random.default_rng(0).normal(size=(50, dimensions))
    picture = opened(render(points, is_image=False))
    assert picture.size == (480, 480)
    assert np.asarray(picture.convert("L")).min() < 200  # something is drawn


def test_the_same_samples_give_the_same_bytes() -> None:
    images = np.random.default_rng(0).uniform(0, 1, (9, 8, 8))
    assert render(images, is_image=True) == render(images.copy(), is_image=True)
    points = images.reshape(-1, 2)
    assert scatter_png(points) == scatter_png(points.copy())


def test_a_film_strip_has_a_labelled_row_for_each_checkpoint() -> None:
    rows = [(label, np.zeros((8, 28, 28))) for label in ("epoch 5", "epoch 10", "data")]
    picture = opened(filmstrip_png(rows))
    assert picture.size == (84 + 8 * (56 + 2) + 2, 3 * (56 + 4))
    labels = np.asarray(picture.convert("L"))[:, :84].reshape(3, 60, 84)
    assert all((label < 100).any() for label in labels)  # ink in each
    assert not np.array_equal(labels[0], labels[1])
    assert (labels[:, :, -1] == 255).all()  # no label runs into the pictures


def test_a_film_strip_of_vectors_has_a_panel_for_each_checkpoint() -> None:
    points = np.random.default_rng(0).normal(size=(50, 2))
    picture = opened(filmstrip_png([("epoch 1", points), ("epoch 2", points), ("data", points)]))
    assert picture.size == (720, 260)
