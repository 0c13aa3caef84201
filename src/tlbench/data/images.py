"""Images as rows of one table: arrays in memory, or files that are decoded when they are asked for.

Both answer `batch(indices) -> (n, height, width, 3) uint8 in 0-255`; `ids`: a digest of what each image
is, the same for equal images wherever they stand; and `decoding`: all else that decides their pixels.

Pictures of more than 8 bits (16 or 32 bits, signed or not, floats) say in their values what they hold:
0 is black, and white is the smallest of 1 (floats alone), 255, 1023, 4095, 16383 and 65535 that is no less
than the largest value. Where values are negative or larger, black and white are the picture's own 0.1 and
99.9 percentiles. Of 16-bit RGB Pillow keeps the upper 8 bits, and the rule goes by these. TIFF's "white is
zero" is turned round. One rule for each picture by itself, so training, `evaluate`, `predict` and an exported
model's user all see the same pixels.
"""

import hashlib
import io
import logging
import math
import os
import struct
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL import __version__ as PILLOW
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from tlbench.base import console
from tlbench.base.errors import DataError
from tlbench.base.text import printable
from tlbench.data import pictures
from tlbench.data.resize import Resize

DIGEST_BYTES = 16
# Raised whenever the same file comes to other pixels: cached features are then made anew.
DECODING = 3

FEWEST_SHADES = 4  # between a picture's darkest and lightest value, of 255

log = logging.getLogger(__name__)

# Pillow logs what is wrong with a file; nobody listening, Python would print that beside our own line.
logging.getLogger("PIL").addHandler(logging.NullHandler())


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
class FileImages:
    """Images decoded from their files, in parallel: once and for all (`held`), or each time they are asked for.

    A file that has changed or gone since its digest was taken raises DataError when it is decoded.
    """

    paths: Sequence[Path]
    ids: np.ndarray
    resize: Resize
    held: np.ndarray | None = None  # (images, height, width, 3) uint8

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.resize.size, self.resize.size, 3)

    @property
    def decoding(self) -> str:
        return _decoding(self.resize)

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: np.ndarray) -> np.ndarray:
        if self.held is not None:
            return self.held[indices]
        return np.stack(list(_POOL.map(self._decode, indices)))

    def at(self, resize: Resize) -> "FileImages":
        """The same images at another size; the files are known to be readable."""
        return self if resize == self.resize else FileImages(self.paths, self.ids, resize)

    def _decode(self, index: int) -> np.ndarray:
        path, content = self.paths[index], pictures.content(self.paths[index])
        (now,) = as_ids([_digest(content)])
        if now != self.ids[index]:
            raise DataError(f"{printable(path)} has changed since the run began. Train anew.")
        return _decoded(path, content, self.resize)


def as_ids(digests: Sequence[bytes]) -> np.ndarray:
    """Digests of 16 bytes as one array, (images,)."""
    return np.frombuffer(b"".join(digests), dtype=f"S{DIGEST_BYTES}")


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _decoding(resize: Resize) -> str:
    """What decides the pixels of a file beside its bytes."""
    return f"{resize}, decoding {DECODING}, Pillow {PILLOW}"


# Pillow releases the interpreter's lock while it decodes and resizes, so threads use every core.
_POOL = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")


def decode(path: Path, resize: Resize) -> np.ndarray:
    """One image file as (size, size, 3) uint8 in 0-255, upright, on white where it is transparent.

    Raises DataError with the reason when the file is no image, is damaged, or has more pixels than Pillow
    admits (179 million).
    """
    return _decoded(path, pictures.content(path), resize)


def _decoded(path: Path, content: bytes, resize: Resize) -> np.ndarray:
    try:
        # Pillow warns of odd metadata: the pixels are what counts.
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(_without_notes(content)), formats=pictures.formats()) as image,
        ):
            image.draft("RGB", resize.draft(image))
            wide = image.mode == "RGB" and ";16" in str(
                image.tile
            )  # what the file holds, gone once it is loaded
            image.load()
            upright = _upright(image)
            upright = _brightened(upright) if wide else upright
            rgb = _as_rgb(upright, inverted=_white_is_zero(image))
            return np.asarray(resize.square(rgb))
    except Exception as error:  # Pillow's decoders raise many kinds; each means: not readable
        reason = str(error)
        if isinstance(error, UnidentifiedImageError):
            reason = pictures.unknown(content)
        raise DataError(f"{printable(path)}: not a readable image ({reason}).") from error


def fitted(pixels: np.ndarray, resize: Resize) -> np.ndarray:
    """An image in memory as one read from a file: (size, size, 3) uint8 in 0-255.

    pixels: (height, width, 3) or (height, width), values 0-255. Raises DataError for what is no image.
    """
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] != 3):
        raise DataError(
            f"An array of shape {pixels.shape} is no image. Expected (height, width, 3), values 0-255."
        )
    whole = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).convert("RGB")
    fits = whole.size == (resize.size, resize.size)
    return np.asarray(whole if fits else resize.square(whole))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # odd EXIF raises nearly anything, and the pixels were read already
        return image


PNG = b"\x89PNG\r\n\x1a\n"
NOTES = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


def _without_notes(content: bytes) -> bytes:
    """A PNG file without its text and colour profile: Pillow refuses a picture for the size of either."""
    if not content.startswith(PNG):
        return content
    kept, at = [PNG], len(PNG)
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind not in NOTES:
            kept.append(content[at : at + 12 + length])
        at += 12 + length
    return b"".join(kept)


def _as_rgb(image: Image.Image, *, inverted: bool) -> Image.Image:
    """Any mode to RGB: more than 8 bits are scaled to 8, transparency is laid on white."""
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(np.asarray(image), inverted=inverted))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


WHITES = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits
PERCENTILES = (0.1, 99.9)


def _eight_bits(values: np.ndarray, *, inverted: bool) -> np.ndarray:
    """Gray values of any type as uint8, by the rule that this module's docstring tells."""
    wide = values.astype(np.float64)
    known = wide[np.isfinite(wide)]
    if not known.size:
        raise ValueError("it holds no number")
    whites = (1, *WHITES) if values.dtype.kind == "f" else WHITES
    low, high = 0.0, next((float(w) for w in whites if known.max() <= w), None)
    if high is None or known.min() < 0:
        low, high = map(float, np.percentile(known, PERCENTILES))
    share = np.nan_to_num((wide - low) / max(high - low, np.finfo(float).tiny), posinf=1.0)
    share = np.clip(share, 0, 1)
    return np.rint(255 * (1 - share if inverted else share)).astype(np.uint8)


def _brightened(image: Image.Image) -> Image.Image:
    """Colours of 16 bits, of which Pillow keeps the upper 8, by the same rule as far as these tell."""
    largest = int(np.asarray(image).max())
    white = next(white >> 8 for white in WHITES if white >> 8 >= max(largest, 1))
    return image.point([min(255, round(v * 255 / white)) for v in range(256)] * 3)


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF of more than 8 bits counts from white to black; Pillow turns round 8 bits alone."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(PHOTOMETRIC_INTERPRETATION, 1) == 0


def _each(work: Callable[[int], str | None], count: int) -> list[str | None]:
    """What `work` returns for 0 to count-1, in order, in parallel; none is begun after an interruption."""
    begun = [_POOL.submit(work, i) for i in range(count)]
    done = []
    try:
        with console.progress("reading pictures", count, "img") as advance:
            for one in begun:
                done.append(one.result())
                advance()
        return done
    finally:
        for one in begun:
            one.cancel()


def read(
    paths: Sequence[Path], resize: Resize, memory_limit_bytes: float
) -> tuple[FileImages, np.ndarray, list[str]]:
    """Image files as a table, which of the paths are in it, and a line for each that is not.

    Every file is decoded once here: a damaged one is found now and not in mid-training. What fits
    memory_limit_bytes stays decoded.
    """
    shape = (len(paths), resize.size, resize.size, 3)
    pixels = np.empty(shape, np.uint8) if math.prod(shape) <= memory_limit_bytes else None
    digests: list[bytes] = [b""] * len(paths)
    plain = np.zeros(len(paths), bool)  # of one colour, nearly

    def check(index: int) -> str | None:
        try:
            content = pictures.content(paths[index])
            decoded = _decoded(paths[index], content, resize)
        except DataError as error:
            return str(error)
        digests[index] = _digest(content)
        plain[index] = np.ptp(decoded) < FEWEST_SHADES
        if pixels is not None:
            pixels[index] = decoded
        return None

    problems = _each(check, len(paths))
    good = np.array([i for i, problem in enumerate(problems) if problem is None], dtype=np.int64)
    ids = as_ids([digests[i] for i in good])
    unreadable = [problem for problem in problems if problem is not None]
    if plain.sum() > len(good) / 2:
        log.warning(
            "%d of %d pictures have hardly any contrast: are their values meant to be so?",
            *(plain.sum(), len(good)),
        )
    if pixels is not None and unreadable:
        pixels = pixels[good]
    return FileImages([paths[i] for i in good], ids, resize, held=pixels), good, unreadable
