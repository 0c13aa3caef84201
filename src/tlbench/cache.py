"""The cache of frozen features: computed once an image, found again by what the image shows.

An entry is a folder for one way of computing features (network, weights, size, engine, precision). It
holds blocks of rows, each written whole under a name that is its own checksum, so a killed run leaves
valid blocks behind and the next one goes on from there; a block that is not what its name says is
thrown away and its rows are computed again.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from tlbench import console, memory
from tlbench.errors import RunError
from tlbench.images import Images
from tlbench.run import atomic, checksum, write_json

log = logging.getLogger(__name__)

BLOCK_ROWS = 4096
BLOCK_SECONDS = 30.0  # at most so much work is lost to a kill
FACTS = ".json"  # how the names of remembered facts end

Compute = Callable[[Iterator[np.ndarray]], Iterator[np.ndarray]]


@dataclass
class Store:
    """One entry of the cache. `recipe` is all that decides the features of an image."""

    root: Path
    recipe: dict[str, Any]
    width: int  # features of an image
    about: dict[str, Any] = field(default_factory=dict)  # what a listing says of it

    def __post_init__(self) -> None:
        self.folder = self.root / checksum(self.recipe)[:24]
        self.dtype = np.dtype([("id", "S16"), ("features", "<f4", (self.width,))])

    def get(
        self,
        images: Images,
        rows: np.ndarray,
        *,
        compute: Callable[[], Compute],
        batch_size: int,
        memory_limit_bytes: float,
    ) -> tuple[np.ndarray, int]:
        """Features of the rows, (rows, width) float32, and how many of them had to be computed.

        compute: makes the engine's run function when something is missing. Raises RunError when the
        cache cannot be written.
        """
        with _writable(self.root):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                write_json(self.folder / "about.json", {**self.about, "recipe": self.recipe})
                blocks = self._blocks()
                wanted = images.ids[rows]
                missing = rows[~np.isin(wanted, _ids(blocks))]
                _, first = np.unique(images.ids[missing], return_index=True)
                missing = missing[np.sort(first)]  # equal images are computed once
                if len(missing):
                    self._fill(images, missing, compute(), batch_size)
                    memory.give_back()  # of the engine, before the features are read
                    blocks = self._blocks(known=blocks)
        return self._assemble(blocks, wanted, memory_limit_bytes), len(missing)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time computes an entry; the others wait and find it done."""
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("Another process computes these features: waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _blocks(self, known: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """Every valid block by its name, mapped from disk; damaged ones are removed."""
        blocks = dict(known or {})
        for path in sorted(self.folder.glob("[!.]*.npy")):
            if path.name in blocks:
                continue
            if (block := self._read(path)) is None:
                log.warning("Cached features %s are damaged and will be computed again", path.name)
                path.unlink()
            else:
                blocks[path.name] = block
        return blocks

    def _read(self, path: Path) -> np.ndarray | None:
        """A block, mapped from disk, or None when it is not what was written."""
        try:
            block = self._map(path)
        except (ValueError, EOFError):
            return None
        # Mapped anew, so that what was read to check it does not stay in memory.
        return self._map(path) if _digest(block) == path.stem else None

    def _map(self, path: Path) -> np.ndarray:
        return np.load(path, mmap_mode="r", allow_pickle=False).view(self.dtype)

    def _fill(self, images: Images, missing: np.ndarray, run: Compute, batch_size: int) -> None:
        """Compute and write the missing rows, block by block."""
        batches = [missing[i : i + batch_size] for i in range(0, len(missing), batch_size)]
        padded = _ahead(lambda batch: images.batch(_pad(batch, batch_size)), batches)
        done: list[np.ndarray] = []
        began, filled = time.monotonic(), 0
        with _progress(len(missing)) as advance:
            for batch, features in zip(batches, run(padded), strict=True):
                block = np.empty(len(batch), self.dtype)
                block["id"], block["features"] = images.ids[batch], features[: len(batch)]
                done.append(block)
                filled += len(batch)
                advance(len(batch))
                if filled >= BLOCK_ROWS or time.monotonic() - began > BLOCK_SECONDS:
                    self._write(np.concatenate(done))
                    done, filled, began = [], 0, time.monotonic()
        if done:
            self._write(np.concatenate(done))

    def _write(self, block: np.ndarray) -> None:
        with atomic(self.folder / f"{_digest(block)}.npy") as temporary:
            np.save(temporary, block.view(np.uint8), allow_pickle=False)

    def _assemble(
        self, blocks: dict[str, np.ndarray], wanted: np.ndarray, memory_limit_bytes: float
    ) -> np.ndarray:
        """Rows in the order of their ids, in memory where they fit, else in an unnamed file."""
        shape = (len(wanted), self.width)
        if len(wanted) * self.width * 4 <= memory_limit_bytes:
            features = np.empty(shape, np.float32)
        else:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                features = np.memmap(file, np.float32, "w+", shape=shape)
        while blocks:  # each leaves memory when it was read
            _, block = blocks.popitem()
            order = np.argsort(block["id"])
            place = np.searchsorted(block["id"], wanted, sorter=order)
            source = order[np.minimum(place, len(order) - 1)]
            found = block["id"][source] == wanted
            features[found] = block["features"][source[found]]
        return features


@contextlib.contextmanager
def _writable(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"features.folder={root} cannot be written ({error.strerror or error}). Make room, choose "
            "another folder with features.folder=..., or set features.cache=false."
        ) from error


def remembered(
    root: Path, recipe: dict[str, Any], compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """A few facts that depend on the recipe alone: computed by the first who asks, read by the others.

    The file is its own lock; a write that was cut off has no valid checksum and counts for nothing.
    """
    with _writable(root):
        root.mkdir(parents=True, exist_ok=True)
        with (root / f"{checksum(recipe)[:24]}{FACTS}").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            with contextlib.suppress(ValueError, KeyError, TypeError):
                found = json.load(file)
                if found["checksum"] == checksum(found["facts"]):
                    return found["facts"]
            facts = compute()
            file.truncate(0)
            json.dump({"recipe": recipe, "facts": facts, "checksum": checksum(facts)}, file)
            return facts


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


# ---------------------------------------------------------------- the cache as a whole


@dataclass(frozen=True)
class Entry:
    """What a listing shows of one entry."""

    folder: Path
    about: dict[str, Any]
    rows: int
    size: int  # bytes
    used: float  # seconds since the epoch


def entries(root: Path) -> list[Entry]:
    """Every entry of a cache, the most recently used first."""
    found = []
    for about in root.glob("*/about.json"):
        with contextlib.suppress(OSError, ValueError):
            facts = json.loads(about.read_text(encoding="utf-8"))
            size = sum(p.stat().st_size for p in about.parent.glob("*.npy"))
            row = 16 + 4 * int(facts["features"])
            found.append(Entry(about.parent, facts, size // row, size, about.stat().st_mtime))
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def listing(root: Path) -> Table:
    """What each entry belongs to and how large it is, the most recently used first."""
    found = entries(root)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("backbone", "weights", "data", "engine", "used"):
        table.add_column(heading, overflow="fold")
    for heading in ("images", "MiB"):
        table.add_column(heading, justify="right")
    for entry in found:
        about = entry.about
        engine = f"{about['engine']} {about['precision']}"
        used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        texts = [about["backbone"], about["weights"] or "random", about["data"], engine, used]
        row = [*texts, f"{entry.rows:,}", f"{entry.size / 2**20:,.1f}"]
        table.add_row(*(Text(str(text)) for text in row))
    total = sum(entry.size for entry in found) / 2**20
    table.caption = f"{total:,.1f} MiB in {root}" if found else f"{root} is empty"
    return table


def prune(root: Path, limit_bytes: float) -> list[Entry]:
    """Remove the least recently used entries until the rest fit; entries in use stay."""
    removed, total = [], 0
    for entry in entries(root):
        total += entry.size
        if total > limit_bytes and _remove(entry):
            removed.append(entry)
            total -= entry.size
    return removed


def clear(root: Path) -> list[Entry]:
    """Remove everything that is not in use; the entries among it."""
    for facts in root.glob(f"*{FACTS}"):
        facts.unlink()
    return prune(root, 0)


def _remove(entry: Entry) -> bool:
    """Whether the entry could be removed: nobody holds its lock."""
    with (entry.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(entry.folder)
    return True
