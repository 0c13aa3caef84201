"""Where images come from: each source a name at the seam `sources`, ours and those of others.

A source is a module, or anything else, with `read(cfg, resize) -> Contents`; a plain function is its `read`.
It may have `check(cfg)`, which refuses at once what cannot be read, and `class_names(cfg)`, the classes in label
order before an image is read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tlbench.base import registry
from tlbench.base.errors import DataError
from tlbench.config.schema import Data
from tlbench.data import images, index
from tlbench.data.images import FileImages, Images
from tlbench.data.pictures import Place
from tlbench.data.resize import Resize


@dataclass(frozen=True)
class Contents:
    """What a source holds before it is split.

    labels: (images,) whole numbers from 0, or (images, classes) of 0 and 1 where an image may have several; part:
    (images,) text, the split that a row is bound to, "test" or "validation", or "";
    class_names: in label order, where the configuration has none; files: by what name people
    know each image, its path below data.root; groups: (images,) whole numbers, equal where images belong together;
    columns: what else a table says of each image; weights: (images,) float64 above 0, what each image counts in
    training, None where all count alike; corrected: what corrections changed; keys: text for each image, a hash of
    which draws the splits.
    """

    images: Images
    labels: np.ndarray
    part: np.ndarray
    class_names: list[str] | None = None
    unreadable: tuple[str, ...] = ()
    files: Sequence[str] | None = None
    groups: np.ndarray | None = None
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    weights: np.ndarray | None = None
    corrected: Mapping[str, Any] | None = None
    keys: Sequence[str] | None = None

    @classmethod
    def unbound(
        cls, images: Images, labels: np.ndarray, names: list[str] | None = None
    ) -> "Contents":
        """Images of which none is bound to a split; labels: as above, or (images, 1)."""
        labels = np.asarray(labels).astype(np.int64)
        labels = labels if labels.ndim == 2 and labels.shape[1] > 1 else labels.ravel()
        part = np.full(len(images), "", dtype="U10")
        return cls(images, labels, part, names)


def read(cfg: Data, resize: Resize) -> Contents:
    """What the source of a configuration holds; resize: of image files."""
    source = _source(cfg)
    return getattr(source, "read", source)(cfg, resize)


def read_files(
    cfg: Data, paths: Sequence[Place], resize: Resize, lost: Sequence[str] = ()
) -> tuple[FileImages, np.ndarray, list[str]]:
    """Image files as `images.read` has them; lost: a line for each further file that cannot be one of them.

    Raises DataError where data.unreadable=refuse and there is such a line.
    """
    table, good, lines = images.read(paths, resize, cfg.memory_limit_gb * 2**30, index=cfg.index)
    unreadable = [*lost, *lines]
    if unreadable and cfg.unreadable == "refuse":
        raise DataError(
            f"{len(unreadable)} of {len(paths) + len(lost)} images cannot be read, the first: {unreadable[0]} "
            "Mend or remove them, or set data.unreadable=skip."
        )
    return table, good, unreadable


def check(cfg: Data) -> None:
    """Raise DataError at once where data.root cannot be what its source reads."""
    refuse: Callable[[Data], None] | None = getattr(_source(cfg), "check", None)
    if refuse:
        refuse(cfg)
    elif cfg.root:
        index.existing(cfg.root)


def class_names(cfg: Data) -> list[str]:
    """The classes in label order, without reading an image where the source can tell."""
    if cfg.class_names is not None:
        return list(cfg.class_names)
    source = _source(cfg)
    if tell := getattr(source, "class_names", None):
        return list(tell(cfg))
    return list(read(cfg, Resize(cfg.image_size or 1, cfg.resize, "bilinear")).class_names or [])


def _source(cfg: Data) -> Any:
    return registry.load("sources", cfg.source, "data.source")
