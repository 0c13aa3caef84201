"""Shards of pictures with their labels: WebDataset's tars and TFRecords of tf.train.Example."""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlbench.base.errors import DataError
from tlbench.base.files import read_text
from tlbench.base.text import counted, first, printable
from tlbench.config.schema import Data
from tlbench.data import groups, index, shards
from tlbench.data.pictures import Member
from tlbench.data.resize import Resize
from tlbench.data.samples import Sample
from tlbench.data.sources import Contents, read_files

log = logging.getLogger(__name__)

MOST_BYTES = 2**24  # of the file of class names


@dataclass(frozen=True)
class _Listed:
    """The samples of all shards."""

    samples: list[Sample]
    places: list[Member]
    files: list[str]  # SHARD/KEY below data.root
    parts: list[str]
    labels: list[int]
    class_names: list[str]
    bare: list[str]  # of the keys that have no picture


def check(cfg: Data) -> None:
    """Raise DataError, before a shard is opened, where there is none, or the file of class names cannot be read."""
    _parts(shards.find(Path(cfg.root or "")), cfg)
    _names(cfg)


def class_names(cfg: Data) -> list[str]:
    """The classes, in label order: those of the file data.names, else the labels, numbers by their size."""
    return _names(cfg) or _listed(cfg).class_names


def read(cfg: Data, resize: Resize) -> Contents:
    """Every readable picture of the shards, at its place in them; a hash of the keys draws the splits that are none."""
    found = _listed(cfg)
    log.info("Reading %s images in %d classes", f"{len(found.places):,}", len(found.class_names))
    if found.bare:
        log.warning(
            "Left out %s without a picture: %s", counted(len(found.bare), "key"), first(found.bare)
        )
    table, good, unreadable = read_files(cfg, found.places, resize)
    return Contents(
        table,
        np.asarray(found.labels, np.int64)[good],
        np.asarray(found.parts, dtype="U10")[good],
        found.class_names,
        tuple(unreadable),
        files=[found.files[row] for row in good],
        keys=[found.samples[row].key for row in good],
    )


def _listed(cfg: Data) -> _Listed:
    """What the shards hold, checked. Raises DataError with the number of what does not fit and the first of it."""
    root = Path(cfg.root or "")
    paths = shards.find(root)
    held = shards.read(paths, cfg.path or "auto", cfg.label or "auto", cfg.index)
    each = list(zip(paths, _shown(paths, root), _parts(paths, cfg), held, strict=True))
    samples = [sample for shard in held for sample in shard.samples]
    places = [Member(path, s.name, s.offset, s.length) for path, *_, h in each for s in h.samples]
    files = [f"{shown}/{s.name}" for _, shown, _, h in each for s in h.samples]
    parts = [part for *_, part, h in each for _ in h.samples]
    bare, several, twice = (
        [f"{shown}/{name}" for _, shown, _, h in each for name in getattr(h, kind)]
        for kind in ("bare", "several", "twice")
    )
    _check_pictures(files, bare, several)
    _check_keys(samples, files, parts, twice)
    names, labels = _classes(cfg, samples, files)
    return _Listed(samples, places, files, parts, labels, names, bare)


def _shown(paths: Sequence[Path], root: Path) -> list[str]:
    above = root.parent if root.is_file() else root
    return [path.relative_to(above).as_posix() for path in paths]


# ---------------------------------------------------------------- splits


def _parts(paths: Sequence[Path], cfg: Data) -> list[str]:
    """The split that each shard is bound to, "" where it is trained on or drawn from.

    By what a pattern finds in its path; auto: by the usual names of splits, as a folder or a word of its own name.
    """
    shown = _shown(paths, Path(cfg.root or ""))
    if cfg.split is None:
        return [""] * len(paths)
    if cfg.split == "auto":
        return [_usual(path) for path in shown]
    pattern = groups.compiled("data.split", cfg.split, "split's name, such as '(train|test)-'")
    matches = [pattern.search(path) for path in shown]
    if not any(matches):
        raise DataError(
            f"data.split={cfg.split} fits none of {counted(len(shown), 'shard')}, such as {printable(shown[0])}."
        )
    found = {path: str(match[1]) for path, match in zip(shown, matches, strict=True) if match}
    if unknown := [
        f"'{name}' of {path}" for path, name in found.items() if index.part_of(name) is None
    ]:
        raise DataError(
            f"data.split={cfg.split} finds what is no split in {counted(len(unknown), 'shard')}: {first(unknown)}. "
            "Expected train, validation or test."
        )
    return [index.part_of(found.get(path, "train")) or "" for path in shown]


def _usual(path: str) -> str:
    *folders, name = path.split("/")
    words = [*folders, *re.split(r"[^A-Za-z]+", name)]
    meant = {part for word in words if (part := index.part_of(word)) is not None}
    if len(meant) > 1:
        raise DataError(
            f"The path of {printable(path)} names two splits. Set data.split to a pattern whose brackets hold the one "
            "that is meant, or to null."
        )
    return meant.pop() if meant else ""


# ---------------------------------------------------------------- samples and their classes


def _check_pictures(files: Sequence[str], bare: Sequence[str], several: Sequence[str]) -> None:
    if several:
        raise DataError(
            f"{counted(len(several), 'sample has', 'samples have')} more than one picture: {first(several)}. Set "
            "data.path to the extension of the one that is meant, such as jpg."
        )
    if not files:
        raise DataError(
            f"The shards hold no pictures ({first(bare) if bare else 'they are empty'}). data.path names the extension "
            "in a tar, or the feature of a TFRecord, that holds them."
        )


def _check_keys(
    samples: Sequence[Sample], files: Sequence[str], parts: Sequence[str], twice: Sequence[str]
) -> None:
    # In splits that are apart by name keys may begin anew. Where there are none the name is but a number in its shard.
    told = [
        (part, s.key) if s.key == s.name else None for part, s in zip(parts, samples, strict=True)
    ]
    counts = Counter(told)
    again = [file for file, key in zip(files, told, strict=True) if key and counts[key] > 1]
    if repeated := [*twice, *again]:
        raise DataError(
            f"{counted(len(repeated), 'sample has', 'samples have')} a key that is there twice: {first(repeated)}. A "
            "key tells one picture from all others of its split."
        )
    if unlabelled := [f for f, s in zip(files, samples, strict=True) if s.label is None]:
        raise DataError(
            f"{len(unlabelled):,} of {counted(len(files), 'picture')} have no label: {first(unlabelled)}. data.label "
            "names what holds it: an extension (cls, txt) or json.FIELD in a tar, a feature in a TFRecord."
        )


def _classes(
    cfg: Data, samples: Sequence[Sample], files: Sequence[str]
) -> tuple[list[str], list[int]]:
    """Class names in label order, and each sample's number."""
    labels = [_text(s.label or "") for s in samples]
    met = set(labels)
    names = list(cfg.class_names or _names(cfg) or [])
    if names:
        number = {name: i for i, name in enumerate(names)}
        # All labels are names, or else all are numbers: "1" may be the name of the first class.
        if not met <= number.keys():
            number = {str(i): i for i in range(len(names))}
        where = cfg.names if cfg.class_names is None else "data.class_names"
        expected = f"one of the {len(names)} names of {where}, or its number from 0"
    else:
        ordered = sorted(met, key=_by_size)
        number = {label: i for i, label in enumerate(ordered) if not label.startswith("-")}
        names = _named(ordered, samples)
        expected = "a name, or a number from 0"
    if wrong := [f"'{t}' of {f}" for f, t in zip(files, labels, strict=True) if t not in number]:
        raise DataError(
            f"{counted(len(wrong), 'label is', 'labels are')} out of range: {first(wrong)}. Expected {expected}."
        )
    return names, [number[text] for text in labels]


def _by_size(label: str) -> tuple[bool, int, str]:
    number = label.isascii() and label.isdigit()
    return not number, int(label) if number else 0, label


def _named(labels: Sequence[str], samples: Sequence[Sample]) -> list[str]:
    """What the shards call each label, or the label itself. Raises DataError where that is not one name each."""
    called: dict[str, set[str]] = {}
    for sample in samples:
        called.setdefault(_text(sample.label or ""), set()).add(_text(sample.text or ""))
    if not all(len(names) == 1 and all(names) for names in called.values()):
        if any(len(names - {""}) > 1 for names in called.values()):
            label = next(label for label, names in called.items() if len(names - {""}) > 1)
            raise DataError(
                f"Label {label} has several names: {first(sorted(called[label]))}. Set data.label to the feature that "
                "tells the class, or data.names to a file of names."
            )
        return list(labels)
    names = [min(called[label]) for label in labels]
    if same := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"{counted(len(same), 'name is', 'names are')} those of several labels: {first(same)}. Set data.names to a "
            f"file of names, or data.label to the feature of the names to take equal ones for one class."
        )
    return names


def _names(cfg: Data) -> list[str] | None:
    """The lines of the file data.names; None without one."""
    if cfg.names is None:
        return None
    try:
        lines = read_text(Path(cfg.names), MOST_BYTES).removeprefix("\ufeff").splitlines()
    except OSError as error:
        raise DataError(
            f"data.names={printable(cfg.names)} cannot be read ({error.strerror})."
        ) from error
    except ValueError as error:
        raise DataError(
            f"data.names={printable(cfg.names)} is no list of names: {error}."
        ) from error
    names = [_text(line.strip()) for line in lines if line.strip()]
    if again := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"data.names={printable(cfg.names)} has names twice: {first(again)}.")
    if not names:
        raise DataError(
            f"data.names={printable(cfg.names)} is empty. Expected a name on each line."
        )
    return names


def _text(name: str) -> str:
    """A label in one form of accents, and with nothing that UTF-8 cannot hold."""
    return unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode())
