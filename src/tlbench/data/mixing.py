"""MixUp and CutMix: two training images in one, whose labels become shares.

Zhang et al. 2017, https://arxiv.org/abs/1710.09412, and Yun et al. 2019, https://arxiv.org/abs/1905.04899. Each image
draws its own share, as everything does in `augment`; its partner stands in its place from the end of the batch, and
the batches are shuffled.
"""

from collections.abc import Sequence
from typing import Any

from tlbench.base.errors import ConfigError
from tlbench.data import operations
from tlbench.data.augmentations import Augmentation, Batch


def mixup(value: Any) -> Augmentation:
    """The mean of two images, weighted by a draw of Beta(value, value)."""
    alpha = _alpha("mixup", value)

    def mix(images: Batch, seed: Sequence[Any]) -> tuple[Batch, Any]:
        import tensorflow as tf

        share = _beta(images, alpha, seed)
        pixels = tf.cast(images, tf.float32)
        return operations.whole(blended(pixels, share), images), share

    return Augmentation(mix=mix)


def cutmix(value: Any) -> Augmentation:
    """A rectangle of another image in each, its area a draw of Beta(value, value)."""
    alpha = _alpha("cutmix", value)

    def mix(images: Batch, seed: Sequence[Any]) -> tuple[Batch, Any]:
        import tensorflow as tf

        area = 1 - _beta(images, alpha, seed)
        place = tf.random.stateless_uniform([2, tf.shape(images)[0]], seed=_next(seed))
        inside, covered = operations.rectangle(images, area, 1.0, place)
        return tf.where(inside, images[::-1], images), 1 - covered

    return Augmentation(mix=mix)


def blended(each: Any, share: Any) -> Any:
    """A share of each, (batch,), and the rest of what stands in its place from the end. each: (batch, ...) floats."""
    import tensorflow as tf

    share = tf.reshape(share, [-1] + [1] * (len(each.shape) - 1))
    return share * each + (1 - share) * each[::-1]


def _beta(images: Batch, alpha: float, seed: Sequence[Any]) -> Any:
    """Draws of Beta(alpha, alpha), (batch,): a gamma's share of two."""
    import tensorflow as tf

    shape = [2, tf.shape(images)[0]]
    one, other = tf.unstack(tf.random.stateless_gamma(shape, seed=seed, alpha=alpha))
    return tf.math.divide_no_nan(one, one + other)


def _next(seed: Sequence[Any]) -> Any:
    import tensorflow as tf

    return tf.random.experimental.stateless_fold_in(
        tf.stack([tf.cast(part, tf.int64) for part in seed]), 1
    )


def _alpha(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
        raise ConfigError(
            f"augment.{name}={value} is not valid. Expected the parameter of a beta distribution above 0, "
            "such as 0.2 or 1; 0 leaves it out."
        )
    return float(value)
