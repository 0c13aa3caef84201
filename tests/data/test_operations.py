"""Operations on training images: what each does to pixels, and that nothing but the seed decides what it draws."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tlbench.data import augmentations, operations, randaugment
from tlbench.networks.hardware import tf

VALUES = {
    **{"rotation": 30, "zoom": 0.3, "resized_crop": 0.3, "shift": 0.3, "brightness": 0.3},
    **{"contrast": 0.5, "saturation": 0.8, "hue": 0.2, "grayscale": 0.5, "blur": 0.05},
    **{"erasing": 0.8, "randaugment": 9},
}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """(12, 16, 20, 3) uint8: one picture twelve times, smooth, colourful, from black to white."""
    down, across = np.mgrid[0:1:16j, 0:1:20j]
    picture = np.stack([down, across, (1 - down) * across], axis=-1) * 255
    return np.repeat(np.round(picture).astype(np.uint8)[None], 12, axis=0)


def drawn(name: str, images: np.ndarray, *seeds: tuple[int, int], value: Any = None) -> Any:
    """What an augmentation makes of a batch, with each of the seeds, in a pipeline such as training has."""
    draw = augmentations.chosen({name: VALUES[name] if value is None else value})[name].draw
    assert draw is not None
    batches = tf.data.Dataset.from_tensor_slices(images).batch(len(images)).repeat()
    batches = tf.data.Dataset.zip(batches, tf.data.Dataset.from_tensor_slices([*seeds]))
    batches = batches.map(lambda batch, seed: draw(batch, tf.unstack(seed)))
    assert batches.element_spec.shape.as_list() == [None, *images.shape[1:]]
    return [batch.numpy() for batch in batches]


@pytest.mark.parametrize("name", VALUES)
def test_an_operation_changes_pixels_by_its_seed_alone(name: str, images: np.ndarray) -> None:
    found, another, later, again = drawn(name, images, (0, 0), (1, 0), (0, 1), (0, 0))
    assert found.dtype == np.uint8
    assert found.shape == images.shape
    assert np.array_equal(found, again)
    assert len({batch.tobytes() for batch in (images, found, another, later)}) == 4
    assert len({image.tobytes() for image in found}) > 1  # every image draws for itself


@pytest.mark.parametrize("name", sorted({*VALUES} - {"brightness", "erasing", "randaugment"}))
def test_a_blank_image_stays_blank(name: str) -> None:
    levels = np.array([0, 128, 255] * 4, np.uint8)
    blank = np.broadcast_to(levels[:, None, None, None], (12, 9, 9, 3))
    np.testing.assert_array_equal(drawn(name, blank, (0, 0)), [blank])


def test_a_quarter_turn_is_that_of_numpy(images: np.ndarray) -> None:
    squares = images[:2, :, :16].astype(np.float32)
    turned = operations.rotated(tf.constant(squares), 90, tf.constant([[0.0, 1.0]])).numpy()
    np.testing.assert_allclose(turned[0], np.rot90(squares[0], -1), atol=0.01)
    np.testing.assert_allclose(turned[1], np.rot90(squares[1], 1), atol=0.01)


def test_a_move_by_a_quarter_repeats_the_edge() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32)[None, None, :, None], (1, 8, 1, 3))
    found = operations.moved(tf.constant(ramp), 0.25, tf.constant([[1.0], [0.5]])).numpy()
    np.testing.assert_allclose(found[0, 3, :, 0], [2, 3, 4, 5, 6, 7, 7, 7])


def test_a_crop_shows_a_part_of_the_area(images: np.ndarray) -> None:
    """A ramp's range tells how much of it is seen."""
    many = np.tile(images, (20, 1, 1, 1))
    (found,) = drawn("resized_crop", many.astype(np.float32), (0, 0), value=0.5)
    seen = [np.ptp(found[..., channel], axis=(1, 2)) / 255 for channel in (0, 1)]
    areas = seen[0] * seen[1]
    assert 0.45 < areas.min() < 0.55  # a pixel's border less, or more
    assert 0.9 < areas.max() <= 1
    assert np.std(found[:, 8, 10], axis=0).min() > 1  # from other places


def test_colours_change_by_what_was_drawn() -> None:
    pixels = tf.constant(np.full((3, 1, 1, 3), [200, 100, 50], np.float32))
    draws = tf.constant([[0.0, 0.5, 1.0]])
    bright = operations.brightened(pixels, 0.1, draws).numpy()[:, 0, 0]
    np.testing.assert_allclose(bright[:, 0], [174.5, 200, 225.5])
    grays = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    vivid = operations.saturated(pixels, 1.0, draws).numpy()[:, 0, 0]
    np.testing.assert_allclose(vivid[0], [grays] * 3, rtol=1e-5)
    np.testing.assert_allclose(vivid[2, 0], 200 + (200 - grays), rtol=1e-5)
    two = tf.constant(
        np.tile(np.array([100.0, 140.0], np.float32)[None, None, :, None], (3, 1, 1, 3))
    )
    spread = operations.contrasted(two, 0.5, draws).numpy()[:, 0, :, 0]
    np.testing.assert_allclose(spread, [[110, 130], [100, 140], [90, 150]], rtol=1e-5)


def test_a_turn_of_the_colours_keeps_their_brightest_channel(images: np.ndarray) -> None:
    (found,) = drawn("hue", images, (0, 0), value=0.5)
    assert np.abs(found.max(-1).astype(int) - images.max(-1)).max() <= 1


def test_what_is_gray_is_pillows(images: np.ndarray) -> None:
    (found,) = drawn("grayscale", images, (0, 0), value=1)
    expected = np.asarray(Image.fromarray(images[0]).convert("L"), int)
    assert np.abs(found[0].astype(int) - expected[..., None]).max() <= 1


def test_a_blur_spreads_a_point_as_a_gaussian_does() -> None:
    point = np.zeros((1, 21, 21, 3), np.float32)
    point[0, 10, 10] = 1
    found = operations.blurred(tf.constant(point), tf.constant([2 / 21])).numpy()[0, ..., 0]
    places = np.arange(21) - 10
    assert found.sum() == pytest.approx(1, abs=1e-3)
    assert (found.sum(0) * places**2).sum() == pytest.approx(4, rel=0.01)  # two pixels, squared


def test_what_is_erased_is_one_rectangle_of_one_colour() -> None:
    images = np.tile(
        np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8), (60, 1, 1, 1)
    )
    (found,) = drawn("erasing", images, (0, 0), value=0.5)
    changed = (found != images).any(-1)
    hit = changed.any((1, 2))
    assert 18 < hit.sum() < 42
    for image, where in zip(found[hit], changed[hit], strict=True):
        rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
        inside = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].reshape(-1, 3)
        assert (inside == inside[0]).all()
        assert 0.01 < len(inside) / 1600 < 0.36


def test_operations_of_randaugment_are_pillows(images: np.ndarray) -> None:
    dull = (images[:1] // 2 + 40).astype(np.float32)
    photo = Image.fromarray(dull[0].astype(np.uint8))
    pixels, full = tf.constant(dull), tf.constant([[1.0]])
    pairs = (
        (randaugment._stretched(pixels), ImageOps.autocontrast(photo), 1),
        (randaugment._posterized(pixels, 4, full), ImageOps.posterize(photo, 4), 0),
        (randaugment._solarized(pixels, 0.5, full), ImageOps.solarize(photo, 128), 0),
    )
    for found, expected, tolerance in pairs:
        assert np.abs(found.numpy()[0] - np.asarray(expected, float)).max() <= tolerance


def test_equalizing_spreads_levels_by_how_many_lie_below() -> None:
    levels = np.array([[10, 10], [20, 30]], np.float32)  # two, three and four of four are not above
    pixels = np.stack([levels, np.full((2, 2), 77), 255 - levels], axis=-1)[None]
    found = randaugment._equalized(tf.constant(pixels, tf.float32)).numpy()[0]
    np.testing.assert_allclose(found[..., 0], [[0, 0], [127.5, 255]])
    np.testing.assert_allclose(found[..., 1], 77)
    np.testing.assert_allclose(found[..., 2], [[255, 255], [255 / 3, 0]], rtol=1e-6)


def test_randaugment_has_every_operation(images: np.ndarray) -> None:
    """Whichever is chosen, by draws that choose it first and then what leaves images as they are."""
    count = len(randaugment._changes(0.9))
    draws = [[(number + 0.5) / count, 0.9, 0.9, 0.0, 0.5, 0.5] for number in range(count)]
    pixels = tf.constant(images[:1].astype(np.float32) // 2 + 30)
    found = randaugment._augmented(
        tf.repeat(pixels, count, axis=0), randaugment._changes(0.9), tf.transpose(draws)
    ).numpy()
    assert np.array_equal(found[0], pixels[0])
    assert len({np.round(image, 2).tobytes() for image in found}) == count
