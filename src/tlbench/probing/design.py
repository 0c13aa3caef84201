"""What a head is solved on: rows of features with their labels and weights, read block by block."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from tlbench.base.labels import several
from tlbench.probing import threads

Result = TypeVar("Result")

Table = Any  # what has a shape, a length and slices of rows: an array, or Taken

SMALL = 2**20  # numbers; 8 MiB as float64
BLOCK_ROWS = 1024  # 8 MiB of 2,048 features: what a product reads twice is still near the processor


@dataclass(frozen=True)
class Design:
    """Rows of one or more tables of features, (images, features) float32 each, in memory or mapped from disk.

    Each table has as many rows as there are labels: further tables are further views of the same images.
    weights: of each image, above 0; null: all alike.
    """

    tables: Sequence[Table]
    labels: np.ndarray  # (images,) from 0 to classes - 1, or (images, classes) of 0 and 1
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

    @property
    def several(self) -> bool:
        """Whether an image may have several classes: then each is solved by itself, against its absence."""
        return several(self.labels)

    @cached_property
    def targets(self) -> np.ndarray:
        """The class of each row, (rows,), or its classes, (rows, classes)."""
        return np.concatenate([self.labels] * len(self.tables))

    @cached_property
    def class_shares(self) -> np.ndarray:
        """What the rows of each class count, (classes,) float64."""
        if self.several:
            return self.shares @ self.targets
        return np.bincount(self.targets, self.shares, self.classes)

    def map(
        self, work: Callable[[slice, np.ndarray], Result], size: int = BLOCK_ROWS
    ) -> Iterator[Result]:
        """What `work` makes of each block, in their order, several at a time.

        It gets where the block lies among the rows, and its features, (block, width).
        """
        size = self._alike(size)
        return threads.each(lambda place: work(*self._block(place, size)), self._places(size))

    def blocks(self, size: int = BLOCK_ROWS) -> Iterator[tuple[slice, np.ndarray]]:
        """Each block by itself: where it lies among the rows, and its features."""
        for place in self._places(size):
            yield self._block(place, size)

    def _places(self, size: int) -> Iterator[tuple[int, int]]:
        """The table and the first image of each block."""
        return itertools.product(range(len(self.tables)), range(0, len(self.labels), size))

    def _alike(self, size: int) -> int:
        """A size of blocks of which an even number is nearly alike: two threads end together."""
        pairs = math.ceil(len(self.labels) / (2 * size))
        return math.ceil(len(self.labels) / (2 * pairs)) if len(self.labels) > size // 4 else size

    def _block(self, place: tuple[int, int], size: int) -> tuple[slice, np.ndarray]:
        number, start = place
        block = np.asarray(self.tables[number][start : start + size])
        begin = number * len(self.labels) + start
        return slice(begin, begin + len(block)), block

    def precise(self) -> "Design":
        """The same in float64 where that costs neither time nor memory worth a thought."""
        if len(self) * self.width > SMALL:
            return self
        return replace(self, tables=[np.asarray(table[:], np.float64) for table in self.tables])

    def one_hot(self, rows: slice) -> np.ndarray:
        """(block, classes) float64, 1 where the class is."""
        if self.several:
            return self.targets[rows].astype(np.float64)
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
