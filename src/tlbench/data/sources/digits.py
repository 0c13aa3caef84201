"""scikit-learn's embedded digits: real images, no network."""

import numpy as np

from tlbench.config.schema import Data
from tlbench.data.images import ArrayImages
from tlbench.data.resize import Resize
from tlbench.data.sources import Contents


def read(cfg: Data, resize: Resize) -> Contents:
    """8 x 8 gray in 0-16, brought to RGB in 0-255."""
    del cfg, resize
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    pixels = np.repeat(gray[..., None], 3, axis=-1)
    return Contents.unbound(ArrayImages.of(pixels), digits.target)
