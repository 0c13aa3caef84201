"""Random operations on training images: geometry, colour, blur and what is erased.

Every image of a batch draws for itself: numbers from the seed alone, without a generator that has a state, so a run
that goes on draws what it would have drawn. Keras's layers of these names draw some of theirs once for a batch
(RandAugment, RandomGaussianBlur), or from a state of their own whatever seed they are given (RandAugment,
RandomColorJitter).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from tlbench.base.errors import ConfigError
from tlbench.data.augmentations import Augmentation, Batch

Pixels = Any  # (batch, height, width, 3) float32 in 0-255: a tensor
Draws = Any  # (count, batch) float32, uniform from 0 to 1: a tensor
Change = Callable[[Pixels, Draws], Pixels]  # what leaves 0-255 is clipped behind it

ASPECT = 4 / 3  # of a crop, at most; as the networks of torchvision and timm were trained


def rotation(value: Any) -> Augmentation:
    """Turned about the middle by up to so many degrees, to either side."""
    degrees = _number("rotation", value, 180, "degrees above 0, up to 180")
    return endless(1, lambda pixels, draws: rotated(pixels, degrees, draws))


def zoom(value: Any) -> Augmentation:
    """Larger or smaller by up to a share."""
    share = _share("zoom", value)
    return endless(1, lambda pixels, draws: _affine(pixels, across=1 + share * signed(draws[0])))


def resized_crop(value: Any) -> Augmentation:
    """A part of at least a share of the area, stretched to the whole."""
    share = _share("resized_crop", value)
    return endless(4, lambda pixels, draws: _cropped(pixels, share, draws))


def brightness(value: Any) -> Augmentation:
    """Brighter or darker by up to a share of 255."""
    share = _share("brightness", value)
    return endless(1, lambda pixels, draws: brightened(pixels, share, draws))


def contrast(value: Any) -> Augmentation:
    """Distances from the mean gray stretched or shrunk by up to a share."""
    share = _share("contrast", value)
    return endless(1, lambda pixels, draws: contrasted(pixels, share, draws))


def saturation(value: Any) -> Augmentation:
    """Distances from gray stretched or shrunk by up to a share."""
    share = _share("saturation", value)
    return endless(1, lambda pixels, draws: saturated(pixels, share, draws))


def hue(value: Any) -> Augmentation:
    """Colours turned by up to a share of their circle, to either side."""
    share = _number("hue", value, 0.5, "a share of the colour circle above 0, up to 0.5")
    return endless(1, lambda pixels, draws: _turned(pixels, share, draws))


def grayscale(value: Any) -> Augmentation:
    """Without colour, for a share of the images."""
    share = _share("grayscale", value)
    return endless(1, lambda pixels, draws: _where(draws[0] < share, gray(pixels), pixels))


def blur(value: Any) -> Augmentation:
    """Blurred by a Gaussian whose standard deviation is up to a share of the size."""
    share = _number("blur", value, 0.1, "a share of the size above 0, up to 0.1")
    return endless(1, lambda pixels, draws: blurred(pixels, share * draws[0]))


def erasing(value: Any) -> Augmentation:
    """A rectangle of one colour, 2 to 33 % of the area, for a share of the images."""
    share = _share("erasing", value)
    return endless(8, lambda pixels, draws: _erased(pixels, share, draws))


def endless(count: int, change: Change) -> Augmentation:
    """An augmentation from a change of pixels that needs `count` draws for each image."""

    def draw(images: Batch, seed: Sequence[Any]) -> Batch:
        import tensorflow as tf  # it is there by now: batches are its own

        draws = tf.random.stateless_uniform([tf.shape(images)[0], count], seed=seed)
        return whole(change(tf.cast(images, tf.float32), tf.transpose(draws)), images)

    return Augmentation(draw=draw)


def whole(pixels: Pixels, images: Batch) -> Batch:
    """Pixels as images of the kind and shape of those that they were made of."""
    import tensorflow as tf

    rounded = tf.cast(tf.round(tf.clip_by_value(pixels, 0, 255)), images.dtype)
    return tf.ensure_shape(rounded, images.shape)


# ---------------------------------------------------------------- values


def _share(name: str, value: Any) -> float:
    return _number(name, value, 1, "a share above 0, up to 1")


def _number(name: str, value: Any, most: float, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ConfigError(
            f"augment.{name}={value} is not valid. Expected {expected}; 0 leaves it out."
        )
    return float(value)


def signed(draws: Draws) -> Draws:
    """Draws from -1 to 1."""
    return 2 * draws - 1


# ---------------------------------------------------------------- geometry


def rotated(pixels: Pixels, degrees: float, draws: Draws) -> Pixels:
    """By up to so many degrees; one draw."""
    import tensorflow as tf

    angle = math.radians(degrees) * signed(draws[0])
    cos, sin = tf.cos(angle), tf.sin(angle)
    return _affine(pixels, across=cos, down=cos, skew=(-sin, sin))


def moved(pixels: Pixels, share: float, draws: Draws) -> Pixels:
    """By up to a share of the size in both directions; two draws."""
    return _affine(pixels, offset=(share * signed(draws[0]), share * signed(draws[1])))


def sheared(pixels: Pixels, share: float, draws: Draws) -> Pixels:
    """Rows slid along each other, by up to a share of their distance, columns likewise; two draws."""
    return _affine(pixels, skew=(share * signed(draws[0]), share * signed(draws[1])))


def _cropped(pixels: Pixels, least: float, draws: Draws) -> Pixels:
    import tensorflow as tf

    area = least + (1 - least) * draws[0]
    aspect = ASPECT ** signed(draws[1])
    width, height = (tf.minimum(tf.sqrt(area * by), 1.0) for by in (aspect, 1 / aspect))
    offset = ((1 - width) * (draws[2] - 0.5), (1 - height) * (draws[3] - 0.5))
    return _affine(pixels, across=width, down=height, offset=offset)


def _affine(
    pixels: Pixels,
    across: Any = 1.0,
    down: Any = None,
    skew: Any = (0.0, 0.0),
    offset: Any = (0.0, 0.0),
) -> Pixels:
    """Each image as an affine map of its plane sees it, bilinear, edges repeated.

    Mirrored, what lies near an edge would be there twice: two flowers of one, six legs of four.
    across, down: by which places are scaled about the middle, so below 1 enlarges; down as across by default. skew:
    what is added across for each step down, and down for each step across. offset: shares of the size.
    """
    import tensorflow as tf

    count, size = tf.shape(pixels)[0], tf.shape(pixels)[1:3]
    height, width = tf.unstack(tf.cast(size, tf.float32))
    down = across if down is None else down
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x = middle_x - across * middle_x - skew[0] * middle_y + offset[0] * width
    y = middle_y - skew[1] * middle_x - down * middle_y + offset[1] * height
    terms = (across, skew[0], x, skew[1], down, y, 0.0, 0.0)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=tf.stack([tf.broadcast_to(term, [count]) for term in terms], axis=1),
        output_shape=size,
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


# ---------------------------------------------------------------- colour


def brightened(pixels: Pixels, share: float, draws: Draws) -> Pixels:
    """By up to a share of 255; one draw."""
    return pixels + 255 * share * _each(signed(draws[0]))


def contrasted(pixels: Pixels, share: float, draws: Draws) -> Pixels:
    """Away from or towards the mean gray by up to a share; one draw."""
    import tensorflow as tf

    mean = tf.reduce_mean(gray(pixels), axis=[1, 2], keepdims=True)
    return mean + (pixels - mean) * (1 + share * _each(signed(draws[0])))


def saturated(pixels: Pixels, share: float, draws: Draws) -> Pixels:
    """Away from or towards gray by up to a share; one draw."""
    grays = gray(pixels)
    return grays + (pixels - grays) * (1 + share * _each(signed(draws[0])))


def gray(pixels: Pixels) -> Pixels:
    """Luminance in all three channels (ITU-R BT.601)."""
    import tensorflow as tf

    luminance = tf.reduce_sum(pixels * [0.299, 0.587, 0.114], axis=-1, keepdims=True)
    return tf.broadcast_to(luminance, tf.shape(pixels))


def _turned(pixels: Pixels, share: float, draws: Draws) -> Pixels:
    import tensorflow as tf

    angle, colour, value = tf.unstack(tf.image.rgb_to_hsv(pixels / 255), axis=-1)
    angle = (angle + share * signed(draws[0])[:, None, None]) % 1.0
    return 255 * tf.image.hsv_to_rgb(tf.stack([angle, colour, value], axis=-1))


# ---------------------------------------------------------------- blur, and what is erased


def blurred(pixels: Pixels, deviation: Any) -> Pixels:
    """By Gaussians whose standard deviations, (batch,), are shares of the size.

    Weights are of pixels that are there, so edges do not darken.
    """
    import tensorflow as tf

    down, across = (_gaussians(tf.shape(pixels)[axis], deviation) for axis in (1, 2))
    return tf.einsum("bij,bjkc,blk->bilc", down, pixels, across)


def _gaussians(size: Any, deviation: Any) -> Any:
    """(batch, size, size): the weights of every place at every place, 1 in sum."""
    import tensorflow as tf

    places = tf.range(tf.cast(size, tf.float32))
    pixels = tf.maximum(deviation * tf.cast(size, tf.float32), 1e-3)[:, None, None]
    return tf.nn.softmax(-0.5 * ((places[:, None] - places)[None] / pixels) ** 2, axis=-1)


def _erased(pixels: Pixels, share: float, draws: Draws) -> Pixels:
    """Draws: whether, area, aspect, two of the place, three of the colour."""
    import tensorflow as tf

    area, aspect = 0.02 + 0.31 * draws[1], (10 / 3) ** signed(draws[2])
    inside, _ = rectangle(pixels, area, aspect, draws[3:5])
    colour = 255 * tf.transpose(draws[5:])[:, None, None, :]
    return tf.where(inside & (_each(draws[0]) < share), colour, pixels)


def rectangle(pixels: Pixels, area: Any, aspect: Any, place: Draws) -> tuple[Any, Any]:
    """Whether pixels are in a rectangle of each image, (batch, height, width, 1), and (batch,) their share.

    area: its share of the image's; aspect: width by height; place: two draws.
    """
    import tensorflow as tf

    within = []
    for axis, by, draw in ((1, 1 / aspect, place[0]), (2, aspect, place[1])):
        size = tf.cast(tf.shape(pixels)[axis], tf.float32)
        length = tf.minimum(tf.sqrt(area * by), 1.0) * size
        begin = (draw * (size - length))[:, None]
        along = tf.range(size)[None] + 0.5
        within.append((along >= begin) & (along < begin + length[:, None]))
    inside = (within[0][:, :, None] & within[1][:, None, :])[..., None]
    return inside, tf.reduce_mean(tf.cast(inside, tf.float32), axis=[1, 2, 3])


def _each(numbers: Any) -> Any:
    """(batch,) -> (batch, 1, 1, 1): one for each image."""
    return numbers[:, None, None, None]


def _where(chosen: Any, one: Pixels, other: Pixels) -> Pixels:
    import tensorflow as tf

    return tf.where(_each(chosen), one, other)
