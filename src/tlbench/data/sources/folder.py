"""Folders of image files: one folder a class, or a folder a split with one folder a class each."""

import logging
from pathlib import Path

import numpy as np

from tlbench.base.errors import DataError
from tlbench.config.schema import Data
from tlbench.data import index
from tlbench.data.index import check, class_names
from tlbench.data.resize import Resize
from tlbench.data.sources import Contents, read_files

__all__ = ["check", "class_names", "read"]

log = logging.getLogger(__name__)


def read(cfg: Data, resize: Resize) -> Contents:
    """One folder a class, or a folder a split with one folder a class each."""
    found = index.listed(cfg)
    paths = found.paths
    log.info("Reading %s images in %d classes", f"{len(paths):,}", len(found.class_names))
    if found.left_out:
        log.warning("%s", found.left_out)
    table, good, unreadable = read_files(cfg, paths, resize, found.unreadable)
    if found.missed and cfg.unreadable == "refuse":
        raise DataError(f"{found.left_out}. Mend that, or set data.unreadable=skip.")
    return Contents(
        table,
        np.asarray(found.labels, np.int64)[good],
        np.asarray(found.parts, dtype="U10")[good],
        found.class_names,
        tuple(unreadable),
        files=[_below(paths[row], cfg.root or "") for row in good],
    )


def _below(path: Path, root: str) -> str:
    """A picture's path below the root, in one form on every system."""
    return path.relative_to(root).as_posix()
