"""Images and labels that were given in Python: arrays, or paths of files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base.errors import DataError
from tlbench.config.schema import Data
from tlbench.data import several
from tlbench.data.images import ArrayImages, Images
from tlbench.data.resize import Resize
from tlbench.data.sources import Contents, read_files


def read(cfg: Data, resize: Resize) -> Contents:
    """Raises DataError: what was given to one call is not there for another command."""
    del cfg, resize
    raise DataError(
        "This run was trained on images that were given in Python, and no file has them. Name others of the same "
        "classes: data=image_folder data.root=..."
    )


def contents(given: Any, labels: Sequence[Any], cfg: Data, resize: Resize) -> Contents:
    """Images with their labels as a source would have read them.

    given: (images, height, width, 3) or (images, height, width), values 0-255; or paths of image files; labels:
    one for each, whole numbers or names; with task=multilabel as
    `several.given` takes them. Raises DataError for what does not fit, or cannot be read.
    """
    if cfg.task == "multilabel":
        of_images, names = several.given(labels, cfg.class_names)
    else:
        kinds, of_images = np.unique(np.asarray(labels), return_inverse=True)
        names = cfg.class_names or [str(kind) for kind in kinds]
    if len(of_images) != len(given):
        raise DataError(
            f"There are {len(given)} images and {len(of_images)} labels. Give one label for each."
        )
    if len(given) and isinstance(given[0], str | os.PathLike):
        paths = [Path(path) for path in given]
        table, good, unreadable = read_files(cfg, paths, resize)
        part = np.full(len(good), "", dtype="U10")
        shown = [str(paths[row]) for row in good]
        return Contents(*(table, of_images[good], part, names, tuple(unreadable)), files=shown)
    return Contents.unbound(_as_images(given), of_images, names)


def _as_images(given: Any) -> Images:
    pixels = np.asarray(given)
    if pixels.ndim == 3:  # gray
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if pixels.ndim == 4 and pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or not np.issubdtype(pixels.dtype, np.number):
        raise DataError(
            f"Images of shape {pixels.shape} and type {pixels.dtype} cannot be used. Expected (images, height, "
            "width, 3) with values 0-255, or paths of image files."
        )
    if pixels.min(initial=0) < 0 or pixels.max(initial=255) > 255 or _of_shares(pixels):
        raise DataError(
            f"The images hold values from {pixels.min():g} to {pixels.max():g}. Expected 0 to 255."
        )
    return ArrayImages.of(np.rint(pixels).astype(np.uint8))


def _of_shares(pixels: np.ndarray) -> bool:
    """Whether values look like shares, 0-1, which would all come to black."""
    return np.issubdtype(pixels.dtype, np.floating) and bool(pixels.size) and pixels.max() <= 1
