"""Shards: large files that hold many pictures each, WebDataset's tars and TFRecords, with their labels.

A picture stays where it is: what is known of it is where it begins and ends. tf.data would read a shard from front to
back; splits, corrections, the index of pictures and the store of features ask for some of its pictures alone, so
each is read at its place, and tf.data is given what was decoded, as of any other source.

What a shard holds is kept in the folder data.index, a file for each, with the shard's size and times as `known` has
them: a shard that has not changed is not opened to begin.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from tlbench.base import console
from tlbench.base.errors import DataError
from tlbench.base.files import atomic, opened
from tlbench.base.text import counted, first, printable
from tlbench.data import known, pictures, tfrecord, webdataset
from tlbench.data.known import DIGEST_BYTES
from tlbench.data.pictures import Member
from tlbench.data.samples import Sample, Shard

VERSION = 1  # raised whenever the same shard comes to other samples

Reader = Callable[[Path, str, str], Shard]
_TAR, _TFRECORD = r".+\.tar", r".+\.tfrec(?:ord)?s?(?:-\d+-of-\d+)?"
_READERS: dict[str, Reader] = {_TAR: webdataset.read, _TFRECORD: tfrecord.read}
# What leaves the shard without its compression: a tar must not be taken apart.
_UNPACKED_BY = {"gz": "gunzip", "tgz": "gunzip", "bz2": "bunzip2", "xz": "unxz", "zst": "unzstd"}
_COMPRESSED = re.compile(rf"(?:(?:{_TAR}|{_TFRECORD})\.(gz|bz2|xz|zst)|.+\.(tgz))", re.I)
_GZIP = b"\x1f\x8b"


# ---------------------------------------------------------------- which files


def find(root: Path) -> list[Path]:
    """Every shard at or below a folder, sorted, or the one file. Raises DataError where there is none to read."""
    if not root.exists():
        raise DataError(
            f"data.root={printable(root)} does not exist. Set it to the folder with the shards."
        )
    files = [root] if root.is_file() else sorted(_below(root), key=lambda path: path.parts)
    found = [path for path in files if _reader(path)]
    there = set(found)
    compressed = [
        path
        for path in files
        if _COMPRESSED.fullmatch(path.name)
        and not {path.with_suffix(""), path.with_suffix(".tar")} & there
    ]
    if compressed:
        suffix = compressed[0].suffix[1:].lower()
        raise DataError(
            f"{counted(len(compressed), 'shard is', 'shards are')} compressed, and pictures are read at their places: "
            f"{first(compressed)}. Unpack them: {_UNPACKED_BY[suffix]} {shlex.quote(str(compressed[0]))}"
        )
    if not found:
        raise DataError(
            f"data.root={printable(root)} holds no shards. Expected *.tar as WebDataset writes them, *.tfrecord or "
            "*.tfrecord-00000-of-00001."
        )
    return found


def _below(root: Path) -> Iterator[Path]:
    def closed(error: OSError) -> None:
        raise DataError(f"{printable(Path(error.filename))} cannot be read ({error.strerror}).")

    entered = set()  # a link may lead back to a folder above
    for at, folders, names in os.walk(root, onerror=closed, followlinks=True):
        here = os.path.realpath(at)
        folders[:] = [] if here in entered else [f for f in folders if not pictures.hidden(f)]
        yield from (
            Path(at, name) for name in names if here not in entered and not pictures.hidden(name)
        )
        entered.add(here)


def is_shard(path: Path) -> bool:
    """Whether a file's name is that of a shard."""
    return _reader(path) is not None


def _reader(path: Path) -> Reader | None:
    found = (read for name, read in _READERS.items() if re.fullmatch(name, path.name, re.I))
    return next(found, None)


# ---------------------------------------------------------------- what they hold


def read(paths: Sequence[Path], picture: str, label: str, index: str | None) -> list[Shard]:
    """What each shard holds; those that are known from before are not opened.

    picture, label: where they are in a sample, see `webdataset` and `tfrecord`; index: a folder, None: nothing is kept.
    Raises DataError with the number of shards that are cut off or damaged and the first of them.
    """
    held: list[Shard] = []
    broken: list[str] = []
    with console.progress("reading shards", len(paths), "shard") as advance:
        for path in paths:
            try:
                held.append(_remembered(path, picture, label, Path(index) if index else None))
            except DataError as error:
                broken.append(f"{printable(path)} ({error})")
            except OSError as error:
                broken.append(f"{printable(path)} ({error.strerror or error})")
            advance(1)
    if broken:
        raise DataError(
            f"{len(broken):,} of {counted(len(paths), 'shard')} cannot be read to the end: {first(broken)}. "
            "Copy or make them anew, or take them away."
        )
    return held


def members(paths: Mapping[str, Path], index: str | None) -> dict[str, Member]:
    """Of paths that go on within a shard, SHARD/NAME, those that it holds; paths, and what is found: by any name."""
    is_file = functools.cache(Path.is_file)

    def shard(path: Path) -> Path | None:
        return next((above for above in path.parents if _reader(above) and is_file(above)), None)

    within = {name: file for name, path in paths.items() if (file := shard(path))}
    files = list(dict.fromkeys(within.values()))
    held = {
        file: {s.name: s for s in found.samples}
        for file, found in zip(files, read(files, "auto", "auto", index), strict=True)
    }
    asked = {
        name: (file, held[file].get(paths[name].relative_to(file).as_posix()))
        for name, file in within.items()
    }
    return {
        name: Member(file, s.name, s.offset, s.length) for name, (file, s) in asked.items() if s
    }


def _remembered(path: Path, picture: str, label: str, index: Path | None) -> Shard:
    """What a shard holds, from the index where it knows; else it does from now on."""
    stamp, settled = known.stamp(path)
    if index is None or not settled:
        return _read(path, picture, label)
    what = "\0".join([str(VERSION), picture, label]).encode() + os.fsencode(path.absolute())
    file = index / known.SHARDS.replace("*", _digest(what))
    told = _digest(stamp)
    if (found := _kept(file, told)) is None:
        found = _read(path, picture, label)
        _keep(file, told, found)
    return found


def _read(path: Path, picture: str, label: str) -> Shard:
    reader = _reader(path)
    assert reader
    try:
        return reader(path, picture, label)
    except DataError as error:
        with opened(path) as file:
            compressed = file.read(len(_GZIP)) == _GZIP
        raise DataError(
            "gzipped, whatever its name: gzip -dc unpacks it" if compressed else str(error)
        ) from error


def _kept(file: Path, told: str) -> Shard | None:
    """What the index holds of a shard with these size and times; None where nothing is, or it is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        with opened(file) as source:
            digest, content = source.read(2 * DIGEST_BYTES).decode(), source.read()
        if digest == _digest(content) and (tree := json.loads(content)).pop("stamp") == told:
            return Shard(**tree | {"samples": [Sample(*cells) for cells in tree["samples"]]})
    return None


def _keep(file: Path, told: str, shard: Shard) -> None:
    """Write what a shard holds; where that cannot be it is read again at the next start."""
    samples = [astuple(sample) for sample in shard.samples]
    content = json.dumps({"stamp": told, **vars(shard), "samples": samples}).encode()
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(file) as temporary:
            temporary.write_bytes(_digest(content).encode() + content)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()
