"""MixUp and CutMix: what is left of each image is what is said of its label."""

import numpy as np
import pytest

from tlbench.data import augmentations, mixing
from tlbench.networks.hardware import tf

# Each image of one level, from 0 to 198: what is left of it can be read from its mean.
LEVELS = np.arange(100, dtype=np.uint8) * 2
IMAGES = np.broadcast_to(LEVELS[:, None, None, None], (100, 20, 20, 3))


def mixed(name: str, value: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    mix = augmentations.chosen({name: value})[name].mix
    assert mix is not None
    images, share = mix(tf.constant(IMAGES), [seed, tf.constant(7, tf.int64)])
    return images.numpy(), share.numpy()


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_shares_are_of_the_pixels(name: str) -> None:
    images, share = mixed(name, 1.0)
    assert images.dtype == np.uint8
    own, other = LEVELS.astype(float), LEVELS[::-1].astype(float)
    np.testing.assert_allclose(images.mean((1, 2, 3)), share * own + (1 - share) * other, atol=0.51)
    assert np.array_equal(images, mixed(name, 1.0)[0])
    assert not np.array_equal(images, mixed(name, 1.0, seed=1)[0])
    assert 0.4 < share.mean() < 0.6
    assert np.std(share) == pytest.approx(1 / np.sqrt(12), rel=0.2)  # Beta(1, 1) is uniform


def test_a_small_parameter_leaves_most_images_almost_whole() -> None:
    _, share = mixed("mixup", 0.1)
    assert np.mean((share < 0.1) | (share > 0.9)) > 0.6  # 0.76 of Beta(0.1, 0.1), 0.2 of Beta(1, 1)


def test_a_rectangle_of_the_other_is_whole() -> None:
    images, share = mixed("cutmix", 1.0)
    for image, own, left in zip(images[:50], LEVELS, share, strict=False):
        other = (image != own).any(-1)
        rows, columns = other.any(1).sum(), other.any(0).sum()
        assert other.sum() == rows * columns == round(400 * (1 - left))


def test_labels_blend_as_shares() -> None:
    labels = tf.constant([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    found = mixing.blended(labels, tf.constant([0.75, 0.5, 0.9])).numpy()
    np.testing.assert_allclose(found, [[0.75, 0, 0.25], [0, 1, 0], [0.1, 0, 0.9]], rtol=1e-6)
    weights = mixing.blended(tf.constant([1.0, 2.0, 3.0]), tf.constant([0.75, 0.5, 0.9])).numpy()
    np.testing.assert_allclose(weights, [1.5, 2.0, 2.8], rtol=1e-6)
