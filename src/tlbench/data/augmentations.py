"""Random changes to training images: each a name at the seam `augmentations`, with what it is given in YAML.

An augmentation is made by a function of its value in `augment`, such as `shift: 0.125`. What has a few fixed
views of an image can be computed once with a frozen backbone; what has no end of them cannot.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tlbench.base import registry
from tlbench.base.errors import ConfigError
from tlbench.config.schema import Config

AS_IT_IS = "as it is"  # the name of the first view
Batch = Any  # (batch, height, width, 3) uint8 in 0-255: an array, or a tensor in a graph


@dataclass(frozen=True)
class Augmentation:
    """One of three kinds, told apart by what it has.

    views: named functions of a batch, the fixed versions of an image of which each draw takes one, AS_IT_IS the
    first; draw: a function of a batch and a seed, two whole numbers, for versions without an end; mix: likewise, of
    each image with the one in its place from the end of the batch, and (batch,) shares of itself that are left.
    """

    views: Mapping[str, Callable[[Batch], Batch]] = field(default_factory=dict)
    draw: Callable[[Batch, Sequence[Any]], Batch] | None = None
    mix: Callable[[Batch, Sequence[Any]], tuple[Batch, Any]] | None = None

    @property
    def endless(self) -> bool:
        return self.draw is not None or self.mix is not None


def chosen(augment: Mapping[str, Any]) -> dict[str, Augmentation]:
    """The augmentations that are on, by name; one that is false, null or 0 is off.

    Raises ConfigError for a name that nothing has, or a value that does not fit.
    """
    on = {name: value for name, value in augment.items() if name != "name" and value}
    return {
        name: registry.load("augmentations", name, "augmentation")(value)
        for name, value in on.items()
    }


def count(augment: Mapping[str, Any]) -> int:
    """How many fixed views an image has."""
    return math.prod(len(one.views) or 1 for one in chosen(augment).values())


def check(cfg: Config) -> None:
    """Raise ConfigError for what `chosen` refuses, and where what has no end is to be computed once."""
    endless = [name for name, one in chosen(cfg.augment).items() if one.endless]
    if endless and cfg.features.cache and any(stage.frozen for stage in cfg.strategy.stages):
        raise ConfigError(
            f"augment.{endless[0]}={cfg.augment[endless[0]]} gives every epoch other images, so the features of a "
            "frozen backbone cannot be computed once. Use augment=flip or augment=none, or set features.cache=false."
        )


def flip(value: Any) -> Augmentation:
    """Each image as it is, or left to right."""
    if value is not True:
        raise ConfigError(f"augment.flip={value} is not valid. Expected true or false.")
    return Augmentation(
        views={AS_IT_IS: lambda images: images, "mirrored": lambda images: images[:, :, ::-1]}
    )


def shift(value: Any) -> Augmentation:
    """Each image moved by up to a share of its size in both directions, edges repeated."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise ConfigError(f"augment.shift={value} is not valid. Expected at least 0 and below 1.")
    return Augmentation(draw=lambda images, seed: _shifted(images, value, seed))


def _shifted(images: Batch, share: float, seed: Sequence[Any]) -> Batch:
    import tensorflow as tf  # it is there by now: batches are its own

    count = tf.shape(images)[0]
    size = tf.shape(images)[1:3]
    reach = tf.cast(tf.math.ceil(share * tf.cast(size, tf.float32)), tf.int32)
    draw = tf.random.stateless_uniform([count, 2], seed=seed, minval=-1.0)
    offsets = tf.cast(tf.round(draw * tf.cast(reach, tf.float32)), tf.int32)
    down = tf.clip_by_value(tf.range(size[0])[None] + offsets[:, :1], 0, size[0] - 1)
    across = tf.clip_by_value(tf.range(size[1])[None] + offsets[:, 1:], 0, size[1] - 1)
    moved = tf.gather(images, down, axis=1, batch_dims=1)
    return tf.ensure_shape(tf.gather(moved, across, axis=2, batch_dims=1), images.shape)
