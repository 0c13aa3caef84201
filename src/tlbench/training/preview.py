"""A few training images as they are, and as training will draw them."""

from dataclasses import dataclass

import numpy as np

from tlbench.config.schema import Config
from tlbench.data import datasets
from tlbench.data.resize import Resize
from tlbench.networks.hardware import keras, tf
from tlbench.training import inputs

ROWS, DRAWS = 6, 6


@dataclass(frozen=True)
class Preview:
    """names: the label of each image. columns: by what they are, (images, height, width, 3) uint8."""

    names: list[str]
    columns: dict[str, np.ndarray]


def preview(cfg: Config) -> Preview:
    """The first training images, of as many classes as there are, in several draws each."""
    dataset = datasets.load(cfg.data, Resize.of(cfg))
    train = dataset.splits["train"]
    names = np.array([dataset.label(row) for row in train])
    first = np.unique(names, return_index=True)[1]
    others = np.setdiff1d(np.arange(len(train)), first)
    rows = train[np.concatenate([first, others])[:ROWS]]
    source = inputs.from_images(keras.Sequential(), dataset, cfg)
    with source.told():
        chosen = tf.constant(rows)
        columns = {"as it is": source.inputs(chosen).numpy()}
        for number in range(DRAWS):
            columns[f"draw {number + 1}"] = inputs.pictures(
                source, chosen, [cfg.seed, number]
            ).numpy()
    return Preview([dataset.label(row) for row in rows], columns)
