"""RandAugment: two operations of a dozen, chosen anew for each image, with one strength for all of them.

Cubuk et al. 2019, https://arxiv.org/abs/1909.13719, whose ranges these are at strength 10; here a strength is the most
that is drawn, as everywhere in `augment`.
"""

from typing import Any

from tlbench.base.errors import ConfigError
from tlbench.data import operations
from tlbench.data.augmentations import Augmentation
from tlbench.data.operations import Change, Draws, Pixels, signed

ROUNDS = 2  # operations for an image
DRAWS = 2  # that an operation takes at most


def randaugment(value: Any) -> Augmentation:
    """Two random operations of a strength up to 10."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 10:
        raise ConfigError(
            f"augment.randaugment={value} is not valid. Expected a strength above 0, up to 10; 0 leaves it out."
        )
    changes = _changes(value / 10)
    return operations.endless(
        ROUNDS * (1 + DRAWS), lambda pixels, draws: _augmented(pixels, changes, draws)
    )


def _augmented(pixels: Pixels, changes: list[Change], draws: Draws) -> Pixels:
    """Image by image, so that only what was chosen is computed."""
    import tensorflow as tf

    def once(image: Pixels, numbers: Draws) -> Pixels:
        which = tf.cast(numbers[0] * len(changes), tf.int32)
        branches = [_branch(change, image, numbers[1:, None]) for change in changes]
        return tf.clip_by_value(tf.switch_case(which, branches), 0, 255)

    def one(given: tuple[Pixels, Draws]) -> Pixels:
        image, numbers = given
        return tf.foldl(once, tf.reshape(numbers, [ROUNDS, 1 + DRAWS]), image[None])[0]

    return tf.map_fn(one, (pixels, tf.transpose(draws)), fn_output_signature=tf.float32)


def _branch(change: Change, image: Pixels, draws: Draws) -> Any:
    import tensorflow as tf

    return lambda: tf.ensure_shape(change(image, draws), image.shape)


def _changes(strength: float) -> list[Change]:
    """The operations at a strength from 0 to 1."""
    return [
        lambda pixels, _: pixels,
        lambda pixels, draws: operations.rotated(pixels, 30 * strength, draws),
        lambda pixels, draws: operations.sheared(pixels, 0.3 * strength, draws),
        lambda pixels, draws: operations.moved(pixels, 0.3 * strength, draws),
        lambda pixels, draws: operations.brightened(pixels, 0.5 * strength, draws),
        lambda pixels, draws: operations.contrasted(pixels, 0.9 * strength, draws),
        lambda pixels, draws: operations.saturated(pixels, 0.9 * strength, draws),
        lambda pixels, draws: _sharpened(pixels, 0.9 * strength, draws),
        lambda pixels, draws: _solarized(pixels, strength, draws),
        lambda pixels, draws: _posterized(pixels, 4 * strength, draws),
        lambda pixels, _: _stretched(pixels),
        lambda pixels, _: _equalized(pixels),
    ]


def _sharpened(pixels: Pixels, share: float, draws: Draws) -> Pixels:
    import tensorflow as tf

    one_pixel = 1 / tf.cast(tf.reduce_max(tf.shape(pixels)[1:3]), tf.float32)
    details = pixels - operations.blurred(pixels, one_pixel[None])
    return pixels + share * signed(draws[0]) * details


def _solarized(pixels: Pixels, share: float, draws: Draws) -> Pixels:
    """Inverted above a threshold, which is the lower the stronger."""
    import tensorflow as tf

    return tf.where(pixels >= 256 * (1 - share * draws[0]), 255 - pixels, pixels)


def _posterized(pixels: Pixels, bits: float, draws: Draws) -> Pixels:
    """Fewer levels: up to so many of the eight bits dropped."""
    import tensorflow as tf

    step = 2.0 ** tf.round(bits * draws[0])
    return tf.floor(pixels / step) * step


def _stretched(pixels: Pixels) -> Pixels:
    """Each channel stretched to 0-255 (autocontrast); one of a single value stays."""
    import tensorflow as tf

    least, most = (
        find(pixels, axis=[1, 2], keepdims=True) for find in (tf.reduce_min, tf.reduce_max)
    )
    return tf.where(most > least, (pixels - least) * 255 / tf.maximum(most - least, 1), pixels)


def _equalized(pixels: Pixels) -> Pixels:
    """Each channel of the one image with as many pixels at every level; one of a single value stays."""
    import tensorflow as tf

    def channel(levels: Any) -> Any:
        below = tf.cumsum(tf.math.bincount(levels, minlength=256, maxlength=256))
        least = tf.reduce_min(tf.boolean_mask(below, below > 0))
        spread = tf.cast(below - least, tf.float32) * 255 / tf.cast(below[-1] - least, tf.float32)
        return tf.gather(tf.where(below[-1] > least, spread, tf.range(256.0)), levels)

    whole = tf.cast(tf.round(pixels[0]), tf.int32)
    return tf.stack([channel(whole[..., number]) for number in range(3)], axis=-1)[None]
