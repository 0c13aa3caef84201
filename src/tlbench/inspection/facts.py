"""What a data set holds: counts, sizes, colour modes and formats of its pictures."""

import io
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tlbench.base import labels
from tlbench.data import pictures
from tlbench.data.datasets import SPLITS, Dataset
from tlbench.data.images import FileImages
from tlbench.data.pictures import Member, Place


@dataclass(frozen=True)
class Facts:
    """counts: (classes, splits) images; sizes: (images, 2) width and height in pixels; modes, formats: of files."""

    counts: np.ndarray
    sizes: np.ndarray
    modes: Counter[str]
    formats: Counter[str]

    @property
    def imbalance(self) -> float:
        """How many times as many images the largest class has as the smallest."""
        totals = self.counts.sum(axis=1)
        return float(totals.max() / max(totals.min(), 1))


def of(dataset: Dataset) -> Facts:
    """The facts of every image that is in a split."""
    rows = np.sort(np.concatenate([dataset.splits[name] for name in SPLITS]))
    classes = len(dataset.class_names)
    counts = np.stack([labels.counts(dataset.labels_of(s), classes) for s in SPLITS], axis=1)
    if not isinstance(dataset.images, FileImages):
        height, width, _ = dataset.images.shape
        return Facts(counts, np.full((len(rows), 2), (width, height)), Counter(), Counter())
    with ThreadPoolExecutor(thread_name_prefix="headers") as pool:
        heads = list(pool.map(_head, [dataset.images.paths[row] for row in rows]))
    sizes = np.array([size for size, _, _ in heads])
    return Facts(counts, sizes, Counter(m for _, m, _ in heads), Counter(f for _, _, f in heads))


def _head(path: Place) -> tuple[tuple[int, int], str, str]:
    """Size, mode and format as the file's head has them; it was decoded before."""
    source = io.BytesIO(pictures.content(path)) if isinstance(path, Member) else path
    with Image.open(source, formats=pictures.formats()) as image:
        return image.size, image.mode, str(image.format)


def spread(values: Sequence[float] | np.ndarray) -> str:
    """Smallest, median and largest: "48 to 4,032, half of them below 640"."""
    low, middle, high = np.min(values), np.median(values), np.max(values)
    if low == high:
        return f"{low:,.4g}"
    return f"{low:,.4g} to {high:,.4g}, half of them below {middle:,.4g}"
