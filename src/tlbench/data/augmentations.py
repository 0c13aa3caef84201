"""Random changes to training images: each a name at the seam `augmentations`, with what it is given in YAML.

An augmentation is made by a function of its value in `augment`, such as `shift: 0.125`. What has a few fixed
views of an image can be computed once with a frozen backbone; what has no end of them cannot.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tlbench.base import registry
from tlbench.base.draws import seed_for
from tlbench.base.errors import ConfigError
from tlbench.config.schema import Config

AS_IT_IS = "as it is"  # the name of the first view
VIEWS = "views"  # in `augment`: how many views an image has, where they are fixed
VERSION = 1  # of how those are drawn: cached features of another one are of other views
Batch = Any  # (batch, height, width, 3) uint8 in 0-255: an array, or a tensor in a graph


@dataclass(frozen=True)
class Augmentation:
    """One of three kinds, told apart by what it has.

    views: named functions of a batch, the fixed versions of an image of which each draw takes one, AS_IT_IS the
    first; at: a function of a batch and the number of each image's view, for versions that are dear to make. draw: a
    function of a batch and a seed, two whole numbers, for versions without an end; mix: likewise, of each image with
    the one in its place from the end of the batch, and (batch,) shares of itself that are left.
    """

    views: Mapping[str, Callable[[Batch], Batch]] = field(default_factory=dict)
    at: Callable[[Batch, Any], Batch] | None = None
    draw: Callable[[Batch, Sequence[Any]], Batch] | None = None
    mix: Callable[[Batch, Sequence[Any]], tuple[Batch, Any]] | None = None

    @property
    def endless(self) -> bool:
        return self.draw is not None or self.mix is not None


def chosen(augment: Mapping[str, Any], seed: int = 0) -> dict[str, Augmentation]:
    """The augmentations that are on, by name; one that is false, null or 0 is off.

    With `views` all but those that mix images are one, of that name; seed: of its draws. Raises ConfigError for a name
    that nothing has, or a value that does not fit.
    """
    on = {k: value for k, value in augment.items() if k not in ("name", VIEWS) and value}
    found: dict[str, Augmentation] = {
        name: registry.load("augmentations", name, "augmentation")(value)
        for name, value in on.items()
    }
    parts = {name: one for name, one in found.items() if one.mix is None}
    if augment.get(VIEWS) is None or not parts:
        return found
    mixes = {name: one for name, one in found.items() if one.mix is not None}
    return {VIEWS: _fixed(augment[VIEWS], augment, seed, parts), **mixes}


def count(augment: Mapping[str, Any]) -> int:
    """How many fixed views an image has."""
    return math.prod(len(one.views) or 1 for one in chosen(augment).values())


def check(cfg: Config) -> None:
    """Raise ConfigError for what `chosen` refuses, and where what has no end is to be computed once."""
    found = chosen(cfg.augment)
    endless = [name for name, one in found.items() if one.endless]
    if endless and cfg.features.cache and any(stage.frozen for stage in cfg.strategy.stages):
        some = (
            ""
            if found[endless[0]].mix
            else "Draw some views of each image for good with augment.views=8, use "
        )
        raise ConfigError(
            f"augment.{endless[0]}={cfg.augment[endless[0]]} gives every epoch other images, so the features of a "
            f"frozen backbone cannot be computed once. {some or 'Use '}augment=flip or augment=none, or set "
            "features.cache=false."
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


# ---------------------------------------------------------------- fixed views


def _fixed(
    count: Any, augment: Mapping[str, Any], seed: int, parts: Mapping[str, Augmentation]
) -> Augmentation:
    """One augmentation in the place of several: an image as it is and count - 1 draws of all of them, one by one.

    parts: those with views or draws, by their names in `augment`. A draw depends on the seed, its number and what the
    image shows, and on nothing else: it is the same in any batch and in any run.
    """
    if type(count) is not int or count < 2:
        raise ConfigError(
            f"augment.views={count} is not valid. Expected a whole number of at least 2, or null: another draw in each "
            "epoch."
        )
    at = _tracing(seed, parts)
    of = ", ".join(f"{name}={augment[name]}" for name in parts)
    views = {AS_IT_IS: lambda images: images}
    for number in range(1, count):
        label = f"draw {number} of {of}, seed {seed}, version {VERSION}"
        views[label] = functools.partial(_alike, at, number)
    return Augmentation(views=views, at=at)


def _alike(at: Callable[[Batch, Any], Batch], number: int, images: Batch) -> Batch:
    """Every image of a batch in the same view; an array where images are one."""
    drawn = at(images, np.full(len(images), number, np.int32))
    return drawn.numpy()


def _tracing(seed: int, parts: Mapping[str, Augmentation]) -> Callable[[Batch, Any], Batch]:
    """(images, number of each one's view, 0 for as it is) -> images; TensorFlow is imported by the first call."""

    @functools.cache
    def traced() -> Any:
        import tensorflow as tf

        def one(given: Sequence[Any]) -> Any:
            image, number, told = given
            drawn = image[None]
            for name, part in parts.items():
                own = [seed_for(seed, f"view by {name}"), told + tf.cast(number, tf.int64)]
                drawn = _drawn(part, drawn, own)
            return tf.where(number > 0, tf.ensure_shape(drawn, image[None].shape)[0], image)

        def at(images: Any, numbers: Any) -> Any:
            flat = tf.reshape(images, [tf.shape(images)[0], -1])
            told = tf.bitcast(tf.fingerprint(flat), tf.int64)  # by what it shows
            spec = tf.TensorSpec(images.shape[1:], tf.uint8)
            return tf.map_fn(one, (images, numbers, told), fn_output_signature=spec)

        return tf.function(at, reduce_retracing=True, autograph=False)

    return lambda images, numbers: traced()(images, numbers)


def _drawn(part: Augmentation, images: Any, seed: Sequence[Any]) -> Any:
    import tensorflow as tf

    if part.draw is not None:
        return part.draw(images, seed)
    changes = list(part.views.values())
    which = tf.random.stateless_uniform([], seed, 0, len(changes), tf.int32)
    return tf.switch_case(which, [functools.partial(change, images) for change in changes])
