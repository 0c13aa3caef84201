"""Which picture files were read before and have not changed since, so that no start reads them again.

Files in the folder data.index, each a checksum, then a row for each picture. A row's key is a digest of where the
picture lies, of its size and times, and of what reads it, so that a row is true for ever: those of every data set
and every version of Pillow lie together, and whoever reads pictures only adds to them. A picture that cannot be
read has no row. It is tried again at each start, in the words of today's decoder. What a picture looks like (see
`near`) is in a file of its own, by the digest of its content.

As git does, a file is not trusted that changed so shortly before that it may change again within the same tick
of a coarse clock. That a known picture still is what it was is checked when it is decoded.
"""

import contextlib
import functools
import hashlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base.errors import RunError
from tlbench.base.files import atomic, opened, remove_temporaries
from tlbench.base.locks import held
from tlbench.data.pictures import Member, Place

NAME, LOOKS = "tlbench-pictures.rows", "tlbench-looks.rows"
# plain: whether the picture has hardly any contrast.
ROW = np.dtype([("key", "V16"), ("id", "S16"), ("plain", "?")])
SHARDS = "tlbench-shard-*.json"  # beside it: what each shard holds, see `shards`
MOST_ROWS = 2**22  # 132 MiB; beyond them the oldest go
DIGEST_BYTES = 16
COARSE_NS = 2 * 10**9  # the coarsest clock of a file system's, FAT's
SECONDS = 30.0  # at most so much reading is lost to a kill

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """A file of rows with a `key` each, that whoever reads pictures adds to; most: beyond them the oldest go."""

    file: Path
    row: np.dtype[Any]
    most: int

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A row for each key, and whether the file has it: else all but the key is zero; (keys,) each."""
        rows, kept = np.zeros(len(keys), self.row), self.all()
        rows["key"] = keys
        places = dict(zip(kept["key"].tolist(), range(len(kept)), strict=True))
        at = np.array([places.get(key, -1) for key in rows["key"].tolist()], np.int64)
        rows[at >= 0] = kept[at[at >= 0]]
        return rows, at >= 0

    def all(self) -> np.ndarray:
        """The rows in the file; none where it is missing or damaged."""
        try:
            with opened(self.file) as source:
                content = source.read(DIGEST_BYTES + self.most * self.row.itemsize + 1)
        except OSError:
            return np.empty(0, self.row)
        digest, rows = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if len(rows) % self.row.itemsize == 0 and _digest(rows) == digest:
            return np.frombuffer(rows, self.row)
        log.warning("The index of pictures %s is damaged: they are read again", self.file)
        forget(self.file)
        return np.empty(0, self.row)

    def add(self, new: np.ndarray) -> None:
        """Write further rows; where that cannot be, their pictures are read again at the next start."""
        lock = self.file.with_suffix(".lock")
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            remove_temporaries(self.file.parent, age=3600)
            with held(lock, wait=True, doing="keeps what it read"), atomic(self.file) as temporary:
                rows = np.concatenate([self.all(), new])[-self.most :].tobytes()
                temporary.write_bytes(_digest(rows) + rows)


def _pictures(folder: Path) -> Kept:
    return Kept(folder / NAME, ROW, MOST_ROWS)


@dataclass
class Known:
    """What is known of some pictures, by their places in a list of paths; `file`: where it is kept, if anywhere."""

    file: Path | None
    rows: np.ndarray  # (pictures,) ROW
    there: np.ndarray  # (pictures,) bool: which of the rows are filled in
    to_keep: np.ndarray  # (pictures,) bool: which of them the file has not yet, and may have
    kept_at: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, paths: Sequence[Place], folder: Path | None, way: str) -> "Known":
        """What earlier starts left in a folder. way: all but the files that decides whether they can be read."""
        rows, no = np.zeros(len(paths), ROW), np.zeros(len(paths), bool)
        if folder is None:
            return cls(None, rows, no, no.copy())
        keys, settled = _keys(paths, way)
        rows, found = _pictures(folder).find(keys)
        there = settled & found
        return cls(folder / NAME, rows, there, settled & ~there)

    def add(self, place: int, digest: bytes, *, plain: bool) -> None:
        """A picture that was just read; threads may add at the same time."""
        self.rows["id"][place], self.rows["plain"][place] = digest, plain
        self.there[place] = True

    def keep_now_and_then(self) -> None:
        """Write what is new, unless that was done a moment ago."""
        if time.monotonic() - self.kept_at > SECONDS:
            self.keep()

    def keep(self) -> None:
        """Write what is new."""
        new = self.there & self.to_keep
        if self.file is None or not new.any():
            return
        _pictures(self.file.parent).add(self.rows[new])
        self.to_keep[new] = False
        self.kept_at = time.monotonic()


def stamp(file: Path) -> tuple[bytes, bool]:
    """A file's path, size and times, and whether its last change is long enough ago to be told from the next."""
    about, now = file.stat(), time.time_ns()
    times = (about.st_mtime_ns, about.st_ctime_ns)
    settled = all(abs(now - moment) >= COARSE_NS for moment in times)
    return b"%d %d %d " % (about.st_size, *times) + os.fsencode(file.absolute()), settled


def _keys(paths: Sequence[Place], way: str) -> tuple[np.ndarray, np.ndarray]:
    """A key for each picture, and whether its file has settled."""
    base = hashlib.blake2b(way.encode(), digest_size=DIGEST_BYTES)
    stamped = functools.cache(stamp)  # one file may hold many
    keys, settled = bytearray(), np.zeros(len(paths), bool)
    for place, path in enumerate(paths):
        digest = base.copy()
        with contextlib.suppress(OSError):  # whoever reads it will say so
            file, within = path, b""
            if isinstance(path, Member):
                file, within = path.file, b"\0%d %d" % (path.offset, path.length)
            told, settled[place] = stamped(file)
            digest.update(told + within)
        keys += digest.digest()
    return np.frombuffer(keys, "V16"), settled


def _digest(rows: bytes) -> bytes:
    return hashlib.blake2b(rows, digest_size=DIGEST_BYTES).digest()


def forget(file: Path | None) -> None:
    """Remove an index that was proved wrong, and what is known of shards, where that can be."""
    for wrong in (file, *file.parent.glob(SHARDS)) if file else ():
        with contextlib.suppress(OSError):
            wrong.unlink()


# ---------------------------------------------------------------- housekeeping


def count(folder: Path) -> int:
    """How many pictures are known there."""
    return len(_pictures(folder).all())


def clear(folder: Path) -> None:
    """Forget every picture and shard. Raises RunError where a file cannot be removed."""
    try:
        for file in (folder / NAME, folder / LOOKS, *folder.glob(SHARDS)):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{error.filename} cannot be removed ({error.strerror}).") from error
