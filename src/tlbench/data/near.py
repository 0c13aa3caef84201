"""Pictures that look alike though their files differ: resized, recoloured, slightly cut, or mirrored copies.

A picture's hash says of its lowest frequencies which lie above their median, as pHash does (Zauner 2010): 255 bits of
a gray square. Alike are hashes that differ in few of them. Mirroring turns the sign of every odd frequency across, so
the hash of the mirrored picture comes free.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tlbench.data.images import FileImages, Images
from tlbench.data.resize import Resize

SIDE, FREQUENCIES = 64, 16
ALIKE = 20  # bits of 255 that may differ
FLAT = 4.0  # standard deviation of gray values, 0-255, below which a picture shows too little to be like another
GRAY = np.array([0.299, 0.587, 0.114], np.float32)
BATCH, BLOCK = 256, 2**22  # images read at once; pairs compared at once


@dataclass(frozen=True)
class Hashes:
    """(images, 4) uint64 each, of pictures as they are and mirrored; flat: (images,) of which nothing can be said."""

    upright: np.ndarray
    mirrored: np.ndarray
    flat: np.ndarray
    brightness: np.ndarray  # (images,) mean of gray values, 0-255


def hashes(images: Images) -> Hashes:
    """The hash of every image of a table. Raises DataError where one cannot be read any more."""
    table = (
        images.at(Resize(SIDE, "stretch", "bilinear")) if isinstance(images, FileImages) else images
    )
    parts = [_hashed(_gray(table.batch(rows))) for rows in _batches(len(table))]
    return Hashes(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _batches(count: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def _gray(pixels: np.ndarray) -> np.ndarray:
    """(n, SIDE, SIDE) gray values of images of any size."""
    gray = pixels @ GRAY
    if gray.shape[1:] == (SIDE, SIDE):
        return gray
    size = (SIDE, SIDE)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in gray]
    )


def _hashed(gray: np.ndarray) -> tuple[np.ndarray, ...]:
    from scipy.fft import dctn

    waves = dctn(gray, axes=(1, 2))[:, :FREQUENCIES, :FREQUENCIES]
    across = np.where(np.arange(FREQUENCIES) % 2, -1, 1)
    flat, brightness = gray.std(axis=(1, 2)) < FLAT, gray.mean(axis=(1, 2))
    return _bits(waves), _bits(waves * across), flat, brightness


def _bits(waves: np.ndarray) -> np.ndarray:
    values = waves.reshape(len(waves), -1)[:, 1:]  # without the mean
    above = values > np.median(values, axis=1, keepdims=True)
    return np.packbits(np.pad(above, ((0, 0), (0, 1))), axis=1).view(np.uint64)


@dataclass(frozen=True)
class Pairs:
    """Images that look alike, each pair once: (pairs,) rows, the first below the second, and what parts them."""

    first: np.ndarray
    second: np.ndarray
    bits: np.ndarray  # in which the hashes differ
    mirrored: np.ndarray  # bool: whether one is the other in a mirror


def pairs(found: Hashes, most: int = ALIKE) -> Pairs:
    """Every pair of images whose hashes differ in so many bits at most."""
    rows = np.flatnonzero(~found.flat)
    upright, mirrored = found.upright[rows], found.mirrored[rows]
    step = max(1, BLOCK // max(1, len(rows)))

    def compared(start: int) -> tuple[np.ndarray, ...]:
        here, later = upright[start : start + step, None], slice(start + 1, None)
        straight, turned = (
            np.bitwise_count(here ^ others[None, later]).sum(axis=2, dtype=np.int16)
            for others in (upright, mirrored)
        )
        bits = np.minimum(straight, turned)
        one, other = np.nonzero(bits <= most)
        new = other >= one  # each pair once
        one, other = one[new], other[new]
        return start + one, start + 1 + other, bits[one, other], (turned < straight)[one, other]

    with ThreadPoolExecutor(thread_name_prefix="alike") as pool:
        parts = list(pool.map(compared, range(0, len(rows), step)))
    if not parts:
        none = np.empty(0, np.int64)
        return Pairs(none, none, none, none.astype(bool))
    first, second, bits, turned = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Pairs(rows[first], rows[second], bits, turned)
