"""A folder of pictures as a data set: which splits and classes its folders mean. No picture is decoded."""

import os
import re
import shlex
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tlbench.base.errors import ConfigError, DataError, suggest
from tlbench.base.text import printable
from tlbench.config import schema, words
from tlbench.data import pictures
from tlbench.data.shards import is_shard

# The usual names of splits, in any case; the training split is the one that others may be drawn from.
SPLIT_NAMES = {
    "": re.compile(r"(train|training|trn)([ _-]?(set|data|images))?"),
    "validation": re.compile(r"(val|valid|validation|dev)([ _-]?(set|data|images))?"),
    "test": re.compile(r"(test|testing|tst)([ _-]?(set|data|images))?"),
}
ARCHIVES = {
    ".zip": "unzip",
    ".tar": "tar -xf",
    ".tgz": "tar -xf",
    ".gz": "tar -xf",
    ".xz": "tar -xf",
}


@dataclass(frozen=True)
class Index:
    """Picture files with the classes and splits that their folders mean."""

    paths: list[Path]
    labels: list[int]  # places in class_names
    parts: list[str]  # the split each is bound to, or ""
    class_names: list[str]
    unreadable: list[str]  # a line for each file that cannot be one of them
    left_out: str  # one line on files that are no pictures for us, or ""
    missed: int  # how many of these are pictures


def existing(root: str | None) -> Path:
    """The folder in data.root. Raises DataError when there is none."""
    path = Path(root or "")
    if not root or not path.exists():
        raise DataError(
            f"data.root={root} does not exist. Set data.root to the folder with the data."
        )
    if path.is_dir():
        return path
    if unpack := ARCHIVES.get(path.suffix.lower()):
        raise DataError(
            f"data.root={root} is an archive. Unpack it ({unpack} {shlex.quote(str(path))}), then set "
            "data.root to the folder with the data."
        )
    raise DataError(f"data.root={root} is a file. Set data.root to the folder with the data.")


def class_names(cfg: schema.Data) -> list[str]:
    """The classes, in label order: names that are set, else those of the training folders, sorted."""
    if cfg.class_names is not None:
        return list(cfg.class_names)
    return _class_names(_parts(existing(cfg.root), None))


def check(cfg: schema.Data) -> None:
    """Raise DataError, before anything is read, where data.root does not hold two classes."""
    root = existing(cfg.root)
    parts = _parts(root, cfg.class_names)
    if parts == [("", root)] and (deeper := _deeper(root)):
        shown = shlex.quote(words.setting("data.root", deeper))
        raise DataError(f"data.root={root} holds no classes, but {deeper.name} in it does: {shown}")
    names = cfg.class_names or _class_names(parts)
    if len(names) >= 2:
        return
    if not names and pictures.holds_any(root):
        raise DataError(
            f"data.root={root} has pictures but no classes. Put the pictures of each class into a folder of its own."
        )
    if not names:
        advice = (
            " It holds shards: data=shards" if any(map(is_shard, pictures.visible(root))) else ""
        )
        raise DataError(
            f"data.root={root} holds no images. Expected one folder a class with pictures.{advice}"
        )
    raise DataError(
        f"data.root={root} holds {len(names)} class ({names[0]}). A classifier needs at least 2: one folder a class."
    )


def refuse_output(cfg: schema.Data, folder: Path, setting: str) -> None:
    """Raise ConfigError where a folder for output is that of the pictures, or one within it that holds some.

    setting: what names the folder. What is written there would become data. A new folder among the class
    folders is none of them once there is a run in it.
    """
    if cfg.source != "image_folder" or not cfg.root or not folder.is_dir():
        return
    root, folder = Path(cfg.root).resolve(), folder.resolve()
    if folder == root or (root in folder.parents and pictures.holds_any(folder)):
        raise ConfigError(
            f"{setting}={folder} holds pictures of data.root, and what is written there would be taken for more of "
            f"them. Choose another folder: {setting}=... (from Python: folder=...)"
        )


def listed(cfg: schema.Data) -> Index:
    """Every picture under data.root. Raises DataError when there is none, or a folder is no class."""
    root = existing(cfg.root)
    parts = _parts(root, cfg.class_names)
    names = list(cfg.class_names or _class_names(parts))
    number = {_text(name): i for i, name in enumerate(names)}
    found = Index([], [], [], names, [], "", 0)
    others: Counter[str] = Counter()
    beside = sum(map(_pictures_in, {root, *(folder for _, folder in parts)}))
    missed = beside
    for part, folder in parts:
        for inside in _folders(folder):
            name = _text(inside.name)
            if name not in number:
                raise DataError(f"{inside} is no class. {suggest(name, number)}")
            listed = pictures.find(inside)
            found.paths.extend(listed.pictures)
            found.labels.extend([number[name]] * len(listed.pictures))
            found.parts.extend([part] * len(listed.pictures))
            found.unreadable.extend(listed.unreadable)
            others += listed.others
            missed += listed.missed
    line = pictures.left_out(others, beside)
    if not found.paths:
        check(cfg)
        suffixes = ", ".join(sorted(pictures.suffixes()))
        raise DataError(
            f"data.root={root} holds no images. Expected one folder a class with {suffixes} files. {line}".strip()
        )
    return Index(found.paths, found.labels, found.parts, names, found.unreadable, line, missed)


def _pictures_in(folder: Path) -> int:
    """How many pictures lie in a folder itself."""
    return sum(
        pictures.looks_like_one(path) and path.is_file() for path in pictures.visible(folder)
    )


def _text(name: str) -> str:
    """A folder's name as a class: one form of accents, and nothing that UTF-8 cannot hold."""
    readable = os.fsencode(name).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", readable)


def _class_names(parts: list[tuple[str, Path]]) -> list[str]:
    trained = [folder for part, folder in parts if part == ""]
    folders = trained or [folder for _, folder in parts]
    return sorted({_text(path.name) for folder in folders for path in _folders(folder)})


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder that may be classes or splits."""
    return [
        path
        for path in pictures.visible(folder)
        if path.is_dir() and not pictures.holds_outputs_only(path)
    ]


def _deeper(root: Path) -> Path | None:
    """The one folder in a root that holds the class folders, where there is just one."""
    held = [path for path in _folders(root) if pictures.holds_any(path)]
    if len(held) != 1 or any(pictures.looks_like_one(path) for path in held[0].iterdir()):
        return None
    return held[0] if sum(map(pictures.holds_any, _folders(held[0]))) >= 2 else None


# ---------------------------------------------------------------- splits


def _parts(root: Path, names: list[str] | None) -> list[tuple[str, Path]]:
    """(split it is bound to, folder of class folders) for each part under a root.

    Folders are splits when all have names of splits and hold folders; a folder called train that holds
    pictures, beside other classes, is a class. Raises DataError where both might be meant.
    """
    folders = _folders(root)
    splits = {folder: part for folder in folders if (part := part_of(folder.name)) is not None}
    chosen = {_text(name) for name in names or []}
    if not splits or (names and all(_text(folder.name) in chosen for folder in folders)):
        return [("", root)]
    nested = [folder for folder in splits if _folders(folder)]
    others = [folder for folder in folders if folder not in nested]
    if nested:  # annotations and empty folders take no side
        others = [folder for folder in others if pictures.holds_any(folder)]
    elif len(others) > len(splits):
        return [("", root)]
    if others:
        raise DataError(_both_readings(root, nested, others))
    parts = [(splits[folder], folder) for folder in nested]
    for part, folder in parts:
        same = [other.name for split, other in parts if split == part]
        if len(same) > 1:
            raise DataError(
                f"{root} has two folders for one split: {' and '.join(same)}. Make {folder.name} the only one."
            )
    return parts


def part_of(name: str) -> str | None:
    """The split that a folder's name means, or None."""
    lower = name.lower()
    return next((part for part, usual in SPLIT_NAMES.items() if usual.fullmatch(lower)), None)


def _both_readings(root: Path, nested: list[Path], others: list[Path]) -> str:
    as_splits = [f"{folder.name} ({_listed(_folders(folder))})" for folder in nested]
    folders = sorted([*nested, *others])
    away = _listed(others)
    if nested:
        splits = f"As splits: {', '.join(as_splits)}, with {away} in the way"
        mend = f"For splits move {away} elsewhere"
    else:
        splits = f"As splits: {away}, without classes"
        mend = "For splits put one folder a class into each"
    listed = ",".join(_typed(_text(path.name)) for path in folders)
    names = shlex.quote(f"data.class_names=[{listed}]")
    return (
        f"data.root={root} can be read in two ways. {splits}. As classes: {_listed(folders)}. {mend}; "
        f"for classes set {names}"
    )


def _typed(name: str) -> str:
    """A name in Hydra's grammar: plain where that leaves it text."""
    plain = re.fullmatch(r"[A-Za-z][A-Za-z_-]*", name) and name.lower() not in _WORDS_OF_HYDRA
    return name if plain else words.quoted(name)


_WORDS_OF_HYDRA = ("true", "false", "null", "nan", "inf")


def _listed(folders: list[Path]) -> str:
    shown = ", ".join(printable(folder.name) for folder in folders[:5])
    return shown if len(folders) <= 5 else f"{shown} and {len(folders) - 5} more"
