"""The cache of frozen features: computed once an image, found again by what the image shows.

An entry is a folder for one way of computing features (network, weights, size, engine, precision). It
holds blocks of rows, each written whole under a name that is its own checksum, so a killed run leaves
valid blocks behind and the next one goes on from there; a block that is not what its name says is
thrown away and its rows are computed again. Whoever finds all rows there only reads: locks are for those
who compute or remove, and lie beside what they guard.
"""

import contextlib
import hashlib
import json
import logging
import re
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base import console, memory
from tlbench.base.errors import RunError
from tlbench.base.files import atomic, checksum, write_json
from tlbench.base.locks import held
from tlbench.base.text import counted
from tlbench.data.images import Images

log = logging.getLogger(__name__)

BLOCK_ROWS = 4096
BLOCK_SECONDS = 30.0  # at most so much work is lost to a kill
ABOUT = "about.json"  # what an entry is of, in its folder
FACTS, LOCK = ".json", ".lock"  # how the names of remembered facts and of locks end
BLOCK = re.compile(r"[0-9a-f]{32}\.npy")
MOST_BYTES = 2**20  # of a JSON file here

Compute = Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]


@dataclass
class Store:
    """One entry of the cache. `recipe` is all that decides the features of an image."""

    root: Path
    recipe: dict[str, Any]
    width: int  # features of an image
    about: dict[str, Any] = field(default_factory=dict)  # what a listing says of it
    kind: str = "float32"  # in which they are kept

    def __post_init__(self) -> None:
        self.folder = self.root / checksum(self.recipe)[:24]
        self.dtype = np.dtype([("id", "S16"), ("features", self.kind, (self.width,))])

    def get(
        self,
        images: Images,
        rows: np.ndarray,
        *,
        compute: Callable[[], Compute],
        batch_size: int,
        memory_limit_bytes: float,
    ) -> tuple[np.ndarray, int]:
        """Features of the rows, (rows, width), and how many of them had to be computed.

        compute: makes the engine's run function when something is missing. Raises RunError when the
        cache cannot be written, or does not give back what was written.
        """
        wanted = images.ids[rows]
        blocks = self._blocks({})
        computed = 0
        if self._missing(images, rows, blocks).size:
            with _writable(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                with held(self.root / f"{self.folder.name}{LOCK}", wait=True):
                    self.folder.mkdir(exist_ok=True)
                    self._say_what_it_is()
                    blocks = self._blocks(blocks)
                    missing = self._missing(images, rows, blocks)
                    if computed := len(missing):
                        self._fill(images, missing, compute(), batch_size)
                        memory.give_back()  # of the engine, before the features are read
                        blocks = self._blocks(blocks)
        with contextlib.suppress(
            OSError
        ):  # on a disk that cannot be written nothing is ever pruned
            self._say_what_it_is()  # and that it was just used
        with _writable(self.root):
            return self._assemble(blocks, wanted, memory_limit_bytes), computed

    def lacking(self, images: Images, rows: np.ndarray) -> int:
        """How many of the rows are still to be computed."""
        return len(self._missing(images, rows, self._blocks({})))

    def _say_what_it_is(self) -> None:
        write_json(self.folder / ABOUT, {**self.about, "recipe": self.recipe})

    def _missing(
        self, images: Images, rows: np.ndarray, blocks: dict[str, np.ndarray]
    ) -> np.ndarray:
        """The rows that no block holds; equal images once, as they are computed once."""
        missing = rows[~np.isin(images.ids[rows], _ids(blocks))]
        _, first = np.unique(images.ids[missing], return_index=True)
        return missing[np.sort(first)]

    def _blocks(self, known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every valid block by its name, mapped from disk; damaged ones are removed."""
        blocks = dict(known)
        try:
            paths = sorted(self.folder.iterdir())
        except FileNotFoundError:
            return blocks
        for path in paths:
            if path.name in blocks or not BLOCK.fullmatch(path.name):
                continue
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                if (block := self._read(path)) is not None:
                    blocks[path.name] = block
                    continue
                log.warning("Cached features %s are damaged and will be computed again", path.name)
                with contextlib.suppress(OSError):
                    path.unlink()
        return blocks

    def _read(self, path: Path) -> np.ndarray | None:
        """A block, mapped from disk, or None when it is not what was written."""
        try:
            block = self._map(path)
        except (ValueError, EOFError, PermissionError, IsADirectoryError):
            return None
        # Mapped anew, so that what was read to check it does not stay in memory.
        return self._map(path) if _digest(block) == path.stem else None

    def _map(self, path: Path) -> np.ndarray:
        return np.lib.format.open_memmap(path, mode="r").view(self.dtype)

    def _fill(self, images: Images, missing: np.ndarray, run: Compute, batch_size: int) -> None:
        """Compute and write the missing rows, block by block."""
        batches = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
        padded = _ahead(lambda batch: images.batch(_pad(batch, batch_size)), batches)
        done: list[np.ndarray] = []
        began, filled = time.monotonic(), 0
        with self._kept(done), _progress(len(missing)) as advance:
            for batch, features in zip(batches, run(padded), strict=True):
                block = np.empty(len(batch), self.dtype)
                block["id"] = images.ids[batch]
                block["features"] = features[: len(batch)].reshape(len(batch), -1)
                done.append(block)
                filled += len(batch)
                advance(len(batch))
                if filled >= BLOCK_ROWS or time.monotonic() - began > BLOCK_SECONDS:
                    self._write(done)
                    filled, began = 0, time.monotonic()
        self._write(done)

    @contextlib.contextmanager
    def _kept(self, done: list[np.ndarray]) -> Iterator[None]:
        """Write what is done when the block is interrupted: it need not be computed again."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # what went wrong first is what has to be told
                self._write(done)
            raise

    def _write(self, done: list[np.ndarray]) -> None:
        """Write what is done as one block, and forget it."""
        if not done:
            return
        block = np.concatenate(done)
        with atomic(self.folder / f"{_digest(block)}.npy") as temporary:
            np.save(temporary, block.view(np.uint8), allow_pickle=False)
        done.clear()

    def _assemble(
        self, blocks: dict[str, np.ndarray], wanted: np.ndarray, memory_limit_bytes: float
    ) -> np.ndarray:
        """Rows in the order of their ids, in memory where they fit, else in an unnamed file.

        Raises RunError when the blocks do not hold every row.
        """
        shape = (len(wanted), self.width)
        if len(wanted) * self.width * np.dtype(self.kind).itemsize <= memory_limit_bytes:
            features = np.empty(shape, self.kind)
        else:
            with _scratch(self.root) as file:
                features = np.memmap(file, self.kind, "w+", shape=shape)
        covered = np.zeros(len(wanted), bool)
        while blocks:  # each leaves memory when it was read
            _, block = blocks.popitem()
            order = np.argsort(block["id"])
            place = np.searchsorted(block["id"], wanted, sorter=order)
            source = order[np.minimum(place, len(order) - 1)]
            found = block["id"][source] == wanted
            features[found] = block["features"][source[found]]
            covered |= found
        if not covered.all():
            lost = counted(int((~covered).sum()), "image is", "images are")
            raise RunError(
                f"features.folder={self.root} does not give back what was written to it: the features of "
                f"{lost} lost. Choose another disk with features.folder=..., or train "
                "anew with features.cache=false."
            )
        return features


def _scratch(root: Path) -> Any:
    """An unnamed file beside the cache, or where the system keeps such files if that cannot be written."""
    with contextlib.suppress(OSError):
        return tempfile.TemporaryFile(dir=root)
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def _writable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"features.folder={root} cannot be written ({error.strerror or error}). Make room, choose "
            "another folder with features.folder=..., or train anew with features.cache=false."
        ) from error


def remembered(
    root: Path, recipe: dict[str, Any], compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """A few facts that depend on the recipe alone: computed by the first who asks, read by the others.

    Where the disk cannot be written each computes them for itself: what they are for may be all there.
    """
    path = root / f"{checksum(recipe)[:24]}{FACTS}"
    if (found := facts_in(path)) is not None:
        return found
    with contextlib.ExitStack() as lock:
        with contextlib.suppress(OSError):
            root.mkdir(parents=True, exist_ok=True)
            lock.enter_context(held(path.with_suffix(LOCK), wait=True))
        if (found := facts_in(path)) is not None:
            return found
        facts = compute()
        with contextlib.suppress(OSError):
            write_json(path, {"recipe": recipe, "facts": facts, "checksum": checksum(facts)})
        return facts


def facts_in(path: Path) -> dict[str, Any] | None:
    """The facts that `remembered` keeps in a file; None where it is damaged, or not one of its own."""
    found = read_json(path)
    try:
        recipe, facts = found["recipe"], found["facts"]
        ours = path.name == f"{checksum(recipe)[:24]}{FACTS}"
        return facts if ours and found["checksum"] == checksum(facts) else None
    except (KeyError, TypeError):
        return None


def read_json(path: Path) -> Any:
    """What a small file of the cache says; None where it is missing, damaged or of another's size."""
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _ids(blocks: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, "S16"), *(block["id"] for block in blocks.values())])


def _ahead(load: Callable[[np.ndarray], np.ndarray], batches: list[np.ndarray]) -> Iterator[Any]:
    """Batches in order, the next two loaded while one is computed: decoding hides behind it."""
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        coming = deque(pool.submit(load, batch) for batch in batches[:2])
        for batch in batches[2:]:
            yield coming.popleft().result()
            coming.append(pool.submit(load, batch))
        while coming:
            yield coming.popleft().result()


def _pad(rows: np.ndarray, size: int) -> np.ndarray:
    """A batch of always the same size: engines are compiled for one shape."""
    return np.resize(rows, size)


def is_block(path: Path) -> bool:
    """Whether a file is a block of the cache's: its name is the checksum of what it holds."""
    try:
        return _digest(np.lib.format.open_memmap(path, mode="r")) == path.stem
    except (OSError, ValueError, EOFError):
        return False


def _digest(block: np.ndarray) -> str:
    return hashlib.blake2b(block.view(np.uint8).data, digest_size=16).hexdigest()


@contextlib.contextmanager
def _progress(images: int) -> Iterator[console.Advance]:
    """A bar, and a line at the start and the end."""
    began = time.monotonic()
    log.info("Computing the features of %s images", f"{images:,}")
    with console.progress("features", images, "img") as advance:
        yield advance
    seconds = time.monotonic() - began
    log.info("Computed them in %.1f s, %s img/s", seconds, f"{images / seconds:,.0f}")
