"""What a head is solved on: rows of features with their labels and weights, read block by block."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

Table = Any  # what has a shape, a length and slices of rows: an array, or Taken

SMALL = 2**21  # numbers; 16 MiB as float64
BLOCK_ROWS = 1024  # 8 MiB of 2,048 features: what a product reads twice is still near the processor


@dataclass(frozen=True)
class Design:
    """Rows of one or more tables of features, (images, features) float32 each, in memory or mapped from disk.

    Each table has as many rows as there are labels: further tables are further views of the same images.
    weights: of each image, above 0; null: all alike.
    """

    tables: Sequence[Table]
    labels: np.ndarray  # (images,) from 0 to classes - 1
    classes: int
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.tables) * len(self.labels)

    @property
    def width(self) -> int:
        """Features of an image."""
        return int(self.tables[0].shape[1])

    @cached_property
    def shares(self) -> np.ndarray:
        """What each row counts, (rows,) float64: they add up to 1."""
        given = np.ones(len(self.labels)) if self.weights is None else self.weights
        return np.tile(given / (given.sum() * len(self.tables)), len(self.tables))

    @cached_property
    def targets(self) -> np.ndarray:
        """The class of each row, (rows,)."""
        return np.tile(self.labels, len(self.tables))

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[tuple[slice, np.ndarray]]:
        """Where a block lies among the rows, and its features, (block, width)."""
        for number, table in enumerate(self.tables):
            before = number * len(self.labels)
            for start in range(0, len(table), size):
                block = np.asarray(table[start : start + size])
                yield slice(before + start, before + start + len(block)), block

    def precise(self) -> "Design":
        """The same in float64 where that costs neither time nor memory worth a thought."""
        if len(self) * self.width > SMALL:
            return self
        return replace(self, tables=[np.asarray(table[:], np.float64) for table in self.tables])

    def one_hot(self, rows: slice) -> np.ndarray:
        """(block, classes) float64, 1 where the class is."""
        return np.eye(self.classes)[self.targets[rows]]


@dataclass(frozen=True)
class Taken:
    """Some rows of a table that is mapped from disk, read when they are asked for."""

    table: np.ndarray
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.table.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.table.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: slice) -> np.ndarray:
        return self.table[self.rows[some]]


def taken(table: np.ndarray, rows: np.ndarray) -> Table:
    """Rows of a table: copied once where it is in memory, so that no pass over them gathers them anew."""
    return Taken(table, rows) if isinstance(table, np.memmap) else table[rows]
