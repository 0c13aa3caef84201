"""What is odd about a data set, said the same way by all that reads one."""

import logging
from collections.abc import Sequence

import numpy as np

from tlbench.base.text import counted, printable
from tlbench.data.datasets import Dataset

log = logging.getLogger(__name__)

SHOWN = 10  # files that cannot be read


def say(dataset: Dataset) -> None:
    """Tell of pictures that cannot be read, are equal, stand in two classes, or in two splits."""
    for line in dataset.unreadable[:SHOWN]:
        log.warning("Skipped %s", printable(line))
    if dataset.unreadable:
        log.warning("%s", unreadable(dataset.unreadable))
    if repeated := dataset.repeated:
        log.info("%s equal to another one", counted(repeated, "image is", "images are"))
    if straddling := dataset.straddling:
        what = counted(straddling, "group has", "groups have")
        log.warning("%s images in more than one split", what)
    if contradictory := dataset.contradictory:
        what = counted(contradictory, "image stands", "images stand")
        log.warning("%s in more than one class", what)
    trained = dataset.ids_of("train")
    for split in ("validation", "test"):
        seen = int(np.isin(dataset.ids_of(split), trained).sum())
        if seen:
            total = counted(len(dataset.splits[split]), f"{split} image")
            ending = "is a training image too" if seen == 1 else "are training images too"
            log.warning("%s of %s %s", f"{seen:,}", total, ending)


def unreadable(lines: Sequence[str]) -> str:
    """How many pictures of a data set are missing; lines: one for each."""
    ending = "was left out" if len(lines) == 1 else "were left out"
    return f"{counted(len(lines), 'image')} cannot be read and {ending}"
