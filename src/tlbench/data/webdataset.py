"""A WebDataset shard: a tar whose members KEY.jpg, KEY.cls, KEY.json are one sample. What lies where, and the labels.

Keys and extensions as WebDataset has them: the key ends at the first dot of the file's name.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any

from tlbench.base.errors import DataError
from tlbench.base.files import opened
from tlbench.data import pictures
from tlbench.data.samples import Sample, Shard

LABELS = ("cls", "json", "txt")  # the extensions that hold a label, the first that is there
FIELD = "label"  # of JSON
LONGEST = 2**20  # bytes of a label, or of the JSON that holds it
PADDING = (
    2**20
)  # bytes after a tar's end that belong to it: writers fill up a block, usually of 10 KiB
BLOCK = 512

Parts = dict[str, tarfile.TarInfo]  # of one sample, by extension


def read(path: Path, picture: str, label: str) -> Shard:
    """The samples of a shard, in its order; no picture is read.

    picture: the extension of the pictures; label: that of the labels, or json.FIELD; "auto": the usual ones. Raises
    DataError with the reason where the file is cut off or damaged.
    """
    shard = Shard()
    with opened(path) as file:
        keys = _keys(file, shard)
        for key, parts in keys.items():
            found = [extension for extension in parts if _is_picture(extension, picture)]
            if len(found) != 1:
                (shard.several if found else shard.bare).append(key)
                continue
            member = parts[found[0]]
            said = _label(file, parts, label)
            shard.samples.append(Sample(key, key, member.offset_data, member.size, said))
    return shard


def _is_picture(extension: str, wanted: str) -> bool:
    if wanted != "auto":
        return extension == wanted.lower().removeprefix(".")
    return f".{extension}" in pictures.suffixes() | pictures.HEIF_SUFFIXES


# ---------------------------------------------------------------- members


def _keys(file: BufferedReader, shard: Shard) -> dict[str, Parts]:
    """The members of every key, by extension; of a repeated one the first."""
    keys: dict[str, Parts] = {}
    for member in _members(file):
        name = member.name.removeprefix("./")
        key, dot, extension = PurePosixPath(name).name.partition(".")
        if not (member.isreg() and key and dot) or pictures.hidden(PurePosixPath(name).name):
            continue
        key = name[: len(name) - len(extension) - 1]
        parts = keys.setdefault(key, {})
        if parts.setdefault(extension.lower(), member) is not member:
            shard.twice.append(key)
    return keys


def _members(file: BufferedReader) -> Iterator[tarfile.TarInfo]:
    try:
        # "r:" is without compression: only then does a member lie where its offset says.
        with tarfile.open(fileobj=file, mode="r:") as tar:
            yield from tar
            end = tar.offset
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise DataError(str(error)) from error
    # tarfile takes what is no header for the end.
    file.seek(end)
    mark, rest = file.read(BLOCK), file.read(PADDING)
    if len(mark) < BLOCK:
        raise DataError(f"it ends at byte {end:,} without the end of a tar")
    if mark.strip(b"\0"):
        raise DataError(f"damaged at byte {end:,}")
    if rest.strip(b"\0"):
        raise DataError(f"something follows the end of the tar at byte {end:,}")


# ---------------------------------------------------------------- labels


def _label(file: BufferedReader, parts: Parts, label: str) -> str | None:
    """What is said of a sample's class; None where nothing is."""
    for extension, field in [(kind, "") for kind in LABELS] if label == "auto" else [_asked(label)]:
        member = parts.get(extension)
        if member is None or member.size > LONGEST:
            continue
        file.seek(member.offset_data)
        try:
            text = file.read(member.size).decode("utf-8-sig")
            said = _field(text, field) if extension.endswith("json") else text
        except (ValueError, RecursionError):
            continue
        said = said.strip()
        if said and len(said.splitlines()) == 1:  # more is a caption
            return said
    return None


def _asked(label: str) -> tuple[str, str]:
    """Extension and field: json.species is the field "species" of KEY.json, json.a.b the field b of its a."""
    match = re.fullmatch(r"((?:.+\.)?json)(?:\.(.+))?", label.removeprefix("."), re.I)
    return (match[1].lower(), match[2] or "") if match else (label.lower().removeprefix("."), "")


def _field(text: str, field: str) -> str:
    """A label in JSON as text, "" for none: a field, the usual one, or all of it where it is no object."""
    # Numbers stay as they are written: 007 and 1e3 may be names.
    value: Any = json.loads(text, parse_int=str, parse_float=str)
    if field or isinstance(value, dict):
        for name in (field or FIELD).split("."):
            value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else ""
