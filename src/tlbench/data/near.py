"""Pictures that look alike though their files differ: resized, recoloured, slightly cut, or mirrored copies.

How alike two are is the correlation of their gray values, of which the lowest frequencies are kept and count by how
high they are: that of their gradients, so that a bright background does not make everything alike. Mirroring turns the
sign of every odd frequency across, so mirrored copies cost one product more.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tlbench.data.images import FileImages, Images
from tlbench.data.known import DIGEST_BYTES, LOOKS, Kept
from tlbench.data.resize import Resize

SIDE, FREQUENCIES = 64, 16
ALIKE = 0.97  # correlation from which on pictures are alike
FLAT = 2.0  # standard deviation of gray values, 0-255, below which a picture shows too little to be like another
GRAY = np.array([0.299, 0.587, 0.114], np.float32)
BATCH, BLOCK = 256, 2**22  # images read at once; pairs compared at once
MOST_LOOKS = 2**17  # that data.index keeps, 131 MiB
LOOK = np.dtype(
    [("key", "V16"), ("waves", "f4", (FREQUENCIES**2,)), ("flat", "?"), ("brightness", "f4")]
)
# Raised whenever the same pixels come to another look: those that are kept are then made anew.
VERSION = 1
ACROSS = np.where(np.arange(FREQUENCIES) % 2, -1, 1).astype(np.float32)


@dataclass(frozen=True)
class Looks:
    """What images look like: (images, waves) float32 of length 1; flat: (images,) bool, of which nothing can be said.

    brightness: (images,) mean of gray values, 0-255.
    """

    waves: np.ndarray
    flat: np.ndarray
    brightness: np.ndarray

    @property
    def mirrored(self) -> np.ndarray:
        """The waves of the mirrored images."""
        return self.waves * np.tile(ACROSS, FREQUENCIES)


def looks(images: Images) -> Looks:
    """The look of every image of a table; those of files are kept beside the index that knows these.

    Raises DataError where one cannot be read any more.
    """
    small = Resize(SIDE, "stretch", "bilinear")
    table = images.at(small) if isinstance(images, FileImages) else images
    kept, found, there = _kept(table)
    new = np.flatnonzero(~there)
    done = 0
    try:
        for rows in _batches(new):
            for name, values in zip(
                ("waves", "flat", "brightness"), _look(_gray(table.batch(rows))), strict=True
            ):
                found[name][rows] = values
            done += len(rows)
    finally:
        if kept and done:
            kept.add(found[new[:done]])
    waves = np.ascontiguousarray(found["waves"])  # products of rows that are apart are slow
    return Looks(waves, found["flat"], found["brightness"])


def _kept(table: Images) -> tuple[Kept | None, np.ndarray, np.ndarray]:
    """Where looks are kept, if anywhere; a row for each image, and which of them were found there."""
    if not isinstance(table, FileImages) or table.index is None:
        return None, np.zeros(len(table), LOOK), np.zeros(len(table), bool)
    way = hashlib.blake2b(f"look {VERSION}, {table.decoding}".encode(), digest_size=DIGEST_BYTES)
    keys = bytearray()
    for content in table.ids.view(f"V{DIGEST_BYTES}").tolist():
        digest = way.copy()
        digest.update(content)
        keys += digest.digest()
    kept = Kept(table.index.with_name(LOOKS), LOOK, MOST_LOOKS)
    return kept, *kept.find(np.frombuffer(keys, f"V{DIGEST_BYTES}"))


def _batches(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _gray(pixels: np.ndarray) -> np.ndarray:
    """(n, SIDE, SIDE) gray values of images of any size."""
    gray = pixels @ GRAY
    if gray.shape[1:] == (SIDE, SIDE):
        return gray
    way = Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(one).resize((SIDE, SIDE), way)) for one in gray])


def _look(gray: np.ndarray) -> tuple[np.ndarray, ...]:
    from scipy.fft import dctn

    waves = dctn(gray, axes=(1, 2))[:, :FREQUENCIES, :FREQUENCIES]
    waves = waves * np.hypot(
        *np.mgrid[:FREQUENCIES, :FREQUENCIES]
    )  # and the mean does not count at all
    flattened = waves.reshape(len(waves), -1).astype(np.float32)
    length = np.maximum(np.linalg.norm(flattened, axis=1, keepdims=True), 1e-6)
    return flattened / length, gray.std(axis=(1, 2)) < FLAT, gray.mean(axis=(1, 2))


@dataclass(frozen=True)
class Pairs:
    """Images that look alike, each pair once: (pairs,) rows, the first below the second.

    mirrored: (pairs,) bool, whether one is the other in a mirror.
    """

    first: np.ndarray
    second: np.ndarray
    mirrored: np.ndarray


def pairs(found: Looks) -> Pairs:
    """Every pair of images that look alike, as they are or mirrored."""
    rows = np.flatnonzero(~found.flat)
    upright, mirrored = found.waves[rows], found.mirrored[rows]
    step = max(1, BLOCK // max(1, len(rows)))

    def compared(start: int) -> tuple[np.ndarray, ...]:
        here = upright[start : start + step]
        straight, turned = here @ upright[start:].T, here @ mirrored[start:].T
        one, other = np.nonzero(np.maximum(straight, turned) >= ALIKE)
        one, other = one[other > one], other[other > one]  # each pair once
        return start + one, start + other, (turned > straight)[one, other]

    with ThreadPoolExecutor(thread_name_prefix="alike") as pool:
        parts = list(pool.map(compared, range(0, len(rows), step)))
    if not parts:
        none = np.empty(0, np.int64)
        return Pairs(none, none, none.astype(bool))
    first, second, turned = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Pairs(rows[first], rows[second], turned)
