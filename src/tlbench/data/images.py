"""Images as rows of one table: arrays in memory, or files that are decoded when they are asked for.

Both answer `batch(indices) -> (n, height, width, 3) uint8 in 0-255`; `ids`: a digest of what each image
is, the same for equal images wherever they stand; and `decoding`: all else that decides their pixels.
"""

import hashlib
import logging
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from tlbench.base import console
from tlbench.base.errors import DataError
from tlbench.base.text import printable
from tlbench.data import decoding, known, pictures
from tlbench.data.known import DIGEST_BYTES, Known
from tlbench.data.pictures import Place
from tlbench.data.resize import Resize

FEWEST_SHADES = 4  # between a picture's darkest and lightest value, of 255
AT_ONCE = 16  # pictures that a thread reads before it says so

log = logging.getLogger(__name__)

# Pillow releases the interpreter's lock while it decodes and resizes, so threads use every core.
_POOL = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")


class Images(Protocol):
    """A table of images of one size."""

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def ids(self) -> np.ndarray: ...  # (images,), 16 bytes: a digest of each image

    @property
    def decoding(self) -> str: ...  # how a file came to its pixels; "" where pixels are digested

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> np.ndarray: ...


@dataclass
class ArrayImages:
    """Images held in memory; pixels: (images, height, width, 3), uint8 in 0-255."""

    pixels: np.ndarray
    ids: np.ndarray
    decoding = ""

    @classmethod
    def of(cls, pixels: np.ndarray) -> "ArrayImages":
        """A table that digests the pixels itself."""
        return cls(pixels, as_ids([_digest(image.tobytes()) for image in pixels]))

    @property
    def shape(self) -> tuple[int, int, int]:
        _, height, width, channels = self.pixels.shape
        return height, width, channels

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, indices: np.ndarray) -> np.ndarray:
        return self.pixels[indices]


@dataclass
class Held:
    """Pixels that stay in memory once they were decoded."""

    pixels: np.ndarray  # (images, height, width, 3) uint8
    there: np.ndarray  # (images,) bool: which were decoded

    @classmethod
    def room(cls, images: int, size: int, limit_bytes: float) -> "Held | None":
        """Room for square images, None where it would be more than the limit; what is not used takes no memory."""
        shape = (images, size, size, 3)
        fits = math.prod(shape) <= limit_bytes
        return cls(np.empty(shape, np.uint8), np.zeros(images, bool)) if fits else None

    def put(self, row: int, pixels: np.ndarray) -> None:
        """Keep one image; threads may put the same one at the same time."""
        self.pixels[row] = pixels
        self.there[row] = True

    def only(self, rows: np.ndarray) -> "Held":
        """Some of the images, in rising order, in the memory of all."""
        for to, row in enumerate(rows):
            if to != row and self.there[row]:
                self.pixels[to] = self.pixels[row]
        return Held(self.pixels[: len(rows)], self.there[rows])


@dataclass
class FileImages:
    """Images decoded from their files when they are asked for, in parallel; where there is room (`held`) once.

    A file that has changed or gone since its digest was taken raises DataError when it is decoded.
    """

    paths: Sequence[Place]
    ids: np.ndarray
    resize: Resize
    held: Held | None = None
    index: Path | None = None  # the file that digests may have come from

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.resize.size, self.resize.size, 3)

    @property
    def decoding(self) -> str:
        return decoding.way(self.resize)

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: np.ndarray) -> np.ndarray:
        if self.held is None:
            return np.stack(list(_POOL.map(self._decode, indices)))
        missing = np.unique(indices[~self.held.there[indices]])
        for row, pixels in zip(missing, _POOL.map(self._decode, missing), strict=True):
            self.held.put(row, pixels)
        return self.held.pixels[indices]

    def at(self, resize: Resize) -> "FileImages":
        """The same images at another size; the files are known to be readable."""
        if resize == self.resize:
            return self
        return FileImages(self.paths, self.ids, resize, index=self.index)

    def _decode(self, row: int) -> np.ndarray:
        path, content = self.paths[row], pictures.content(self.paths[row])
        (now,) = as_ids([_digest(content)])
        if now != self.ids[row]:
            known.forget(self.index)  # it may have told of this very file
            raise DataError(f"{printable(path)} has changed since the run began. Train anew.")
        return decoding.decoded(path, content, self.resize)


def yet_to_hold(images: Images) -> int:
    """Bytes of memory that a table will take as its images are decoded."""
    held = images.held if isinstance(images, FileImages) else None
    return 0 if held is None else int((~held.there).sum()) * math.prod(images.shape)


def as_ids(digests: Sequence[bytes]) -> np.ndarray:
    """Digests of 16 bytes as one array, (images,)."""
    return np.frombuffer(b"".join(digests), dtype=f"S{DIGEST_BYTES}")


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _each(
    work: Callable[[int], str | None], places: Sequence[int], told: Callable[[], None]
) -> list[str | None]:
    """What `work` returns for each place, in order, in parallel; `told` is called now and then.

    None is begun after an interruption.
    """
    parts = [places[i : i + AT_ONCE] for i in range(0, len(places), AT_ONCE)]
    begun = [_POOL.submit(lambda part: list(map(work, part)), part) for part in parts]
    done: list[str | None] = []
    try:
        with console.progress("reading pictures", len(places), "img") as advance:
            for part, one in zip(parts, begun, strict=True):
                done += one.result()
                advance(len(part))
                told()
        return done
    finally:
        for one in begun:
            one.cancel()


def read(
    paths: Sequence[Place], resize: Resize, memory_limit_bytes: float, *, index: str | None = None
) -> tuple[FileImages, np.ndarray, list[str]]:
    """Image files as a table, which of the paths are in it, and a line for each that is not.

    Every file that the index does not know is decoded once here: a damaged one is found now and not in
    mid-training. What fits memory_limit_bytes stays decoded. index: a folder, see `known`.
    """
    seen = Known.of(paths, Path(index) if index else None, decoding.reader())
    held = Held.room(len(paths), resize.size, memory_limit_bytes)

    def check(place: int) -> str | None:
        try:
            content = pictures.content(paths[place])
            pixels = decoding.decoded(paths[place], content, resize)
        except DataError as error:
            return str(error)
        seen.add(place, _digest(content), plain=np.ptp(pixels) < FEWEST_SHADES)
        if held:
            held.put(place, pixels)
        return None

    try:
        unknown = np.flatnonzero(~seen.there).tolist()
        problems = _each(check, unknown, seen.keep_now_and_then)
    finally:
        seen.keep()
    good = np.flatnonzero(seen.there)
    _say_if_plain(seen.rows["plain"][good])
    table = FileImages(
        [paths[place] for place in good.tolist()],
        seen.rows["id"][good],
        resize,
        held and held.only(good),
        seen.file,
    )
    return table, good, [problem for problem in problems if problem is not None]


def _say_if_plain(plain: np.ndarray) -> None:
    """plain: (images,) bool, which are of one colour, nearly."""
    if plain.sum() > len(plain) / 2:
        log.warning(
            "%d of %d pictures have hardly any contrast: are their values meant to be so?",
            *(plain.sum(), len(plain)),
        )
