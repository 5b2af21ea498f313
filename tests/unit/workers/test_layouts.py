import io

import numpy as np
import pytest
from PIL import Image

from workers.layouts import paths_png, rows_png

DRAW = np.random.default_rng(0)
LABELS = ("x  data", "y  noise", "g  reconstruction")


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def rows(n: int, side: int = 28) -> list[tuple[str, np.ndarray]]:
    return [(label, DRAW.uniform(0, 1, (n, side, side))) for label in LABELS]


def test_a_datum_and_what_becomes_of_it_are_in_one_column() -> None:
    shown = rows(5)
    picture = opened(rows_png(shown, is_image=True)).convert("L")
    width = picture.width - 5 * 58 - 2  # of the words
    assert picture.height == 3 * 60
    pixels = np.asarray(picture)
    for row, (_, images) in enumerate(shown):
        for column, image in enumerate(images):
            top, left = row * 60 + 2, width + column * 58 + 2
            expected = np.rint(image * 255).repeat(2, 0).repeat(2, 1)
            np.testing.assert_array_equal(pixels[top : top + 56, left : left + 56], expected)
        words = pixels[row * 60 : row * 60 + 60, :width]
        assert (words < 100).any()
        assert (words[:, -1] == 255).all()  # no word runs into the pictures


def test_many_data_go_into_bands_of_which_the_last_ends_with_its_last_picture() -> None:
    shown = rows(20)
    picture = opened(rows_png(shown, is_image=True)).convert("L")
    assert picture.height == 2 * 180 + 8
    assert picture.width < 1200
    pixels = np.asarray(picture)
    words = picture.width - 16 * 58 - 2
    last = np.rint(shown[0][1][19] * 255).repeat(2, 0).repeat(2, 1)
    left = words + 3 * 58 + 2
    np.testing.assert_array_equal(pixels[188 + 2 : 188 + 58, left : left + 56], last)
    assert (pixels[188:, left + 58 :] == 255).all()


@pytest.mark.parametrize("side", [1, 8, 64, 300])
def test_pictures_of_every_size_can_be_laid_out(side: int) -> None:
    picture = opened(rows_png(rows(3, side), is_image=True))
    assert picture.width > 3 * side
    g = DRAW.uniform(0, 1, (2, 4, side, side, 3))
    assert opened(paths_png(g, None, is_image=True)).width >= 4 * side


def test_a_path_is_a_row_between_its_data() -> None:
    g, x = DRAW.uniform(0, 1, (3, 5, 28, 28)), DRAW.uniform(0, 1, (3, 2, 28, 28))
    alone = opened(paths_png(g, None, is_image=True)).convert("L")
    assert alone.size == (5 * 58 + 2, 22 + 3 * 58 + 2)
    between = np.asarray(opened(paths_png(g, x, is_image=True)).convert("L"))
    np.testing.assert_array_equal(between[:, 68:-68], np.asarray(alone))
    for row in range(3):
        top = 22 + row * 58 + 2
        for end, left in ((0, 2), (1, between.shape[1] - 58)):
            expected = np.rint(x[row, end] * 255).repeat(2, 0).repeat(2, 1)
            np.testing.assert_array_equal(between[top : top + 56, left : left + 56], expected)
    assert (between[:22] < 100).any()  # the words above


@pytest.mark.parametrize("dimensions", [1, 2, 3, 7])
def test_vectors_become_panels_on_the_same_axes_and_lines(dimensions: int) -> None:
    vectors = [(label, DRAW.normal(size=(50, dimensions))) for label in LABELS]
    panels = opened(rows_png(vectors, is_image=False))
    assert panels.size == (1200, 420)
    ink = np.asarray(panels.convert("L")).reshape(420, 3, 400)
    assert all((ink[:, panel] < 200).any() for panel in range(3))
    g, x = DRAW.normal(size=(4, 6, dimensions)), DRAW.normal(size=(4, 2, dimensions))
    for data in (None, x):
        lines = opened(paths_png(g, data, is_image=False))
        assert lines.size == (600, 620)
        assert np.asarray(lines.convert("L")).min() < 200


def test_the_same_numbers_give_the_same_bytes() -> None:
    for is_image, shape in ((True, (28, 28)), (False, (2,))):
        g, x = DRAW.uniform(0, 1, (3, 4, *shape)), DRAW.uniform(0, 1, (3, 2, *shape))
        assert paths_png(g, x, is_image) == paths_png(g.copy(), x.copy(), is_image)
        shown = [("x", g[:, 0]), ("g", g[:, 1])]
        assert rows_png(shown, is_image) == rows_png([(n, v.copy()) for n, v in shown], is_image)


def test_one_point_can_be_drawn() -> None:
    point = np.zeros((1, 2))
    assert rows_png([("x", point), ("g", point)], is_image=False).startswith(b"\x89PNG")
