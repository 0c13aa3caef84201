"""One picture file of any kind as an upright RGB square of 8 bits.

Pictures of more than 8 bits (16 or 32 bits, signed or not, floats) say in their values what they hold:
0 is black, and white is the smallest of 1 (floats alone), 255, 1023, 4095, 16383 and 65535 that is no less
than the largest value. Where values are negative or larger, black and white are the picture's own 0.1 and
99.9 percentiles. Of 16-bit RGB Pillow keeps the upper 8 bits, and the rule goes by these. TIFF's "white is
zero" is turned round. One rule for each picture by itself, so training, `evaluate`, `predict` and an exported
model's user all see the same pixels.
"""

import io
import logging
import struct
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL import __version__ as PILLOW
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION

from tlbench.base.errors import DataError
from tlbench.base.muted import no_warnings
from tlbench.base.text import printable
from tlbench.data import pictures
from tlbench.data.pictures import Place
from tlbench.data.resize import Resize

# Raised whenever the same file comes to other pixels: cached features are then made anew.
DECODING = 3

# Pillow logs what is wrong with a file; nobody listening, Python would print that beside our own line.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def way(resize: Resize) -> str:
    """What decides the pixels of a file beside its bytes."""
    return f"{resize}, {_reader()}"


def reader() -> str:
    """What decides whether a file can be read beside its bytes."""
    return f"{_reader()}, {' '.join(pictures.formats())}"


def _reader() -> str:
    return f"decoding {DECODING}, Pillow {PILLOW}"


def decode(path: Path, resize: Resize) -> np.ndarray:
    """One image file as (size, size, 3) uint8 in 0-255, upright, on white where it is transparent.

    Raises DataError with the reason when the file is no image, is damaged, or has more pixels than Pillow
    admits (179 million).
    """
    return decoded(path, pictures.content(path), resize)


def decoded(path: Place, content: bytes, resize: Resize) -> np.ndarray:
    """As `decode`, of the bytes of a file; path: for what is said of it."""
    try:
        # Pillow warns of odd metadata: the pixels are what counts.
        with (
            no_warnings,
            Image.open(io.BytesIO(_without_notes(content)), formats=pictures.formats()) as image,
        ):
            image.draft("RGB", resize.draft(image))
            # What the file holds is gone once it is loaded.
            wide = image.mode == "RGB" and ";16" in str(image.tile)
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
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return (
            ImageOps.exif_transpose(image) if turned else image
        )  # which copies even what it leaves
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
    return image if image.mode == "RGB" else image.convert("RGB")


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
