"""A table with a row for each picture: its path, its class and, where there are such columns, its split and group."""

import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tlbench.base.errors import DataError, suggest
from tlbench.base.labels import SEPARATOR
from tlbench.base.text import counted, first, printable
from tlbench.config.schema import Data
from tlbench.data import index, several, shards, tabular
from tlbench.data.pictures import Place
from tlbench.data.resize import Resize
from tlbench.data.sources import Contents, read_files
from tlbench.data.tabular import Rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Listed:
    """The rows that say of a picture what it is."""

    files: list[str]  # as the table has them
    paths: list[Place]
    labels: np.ndarray
    parts: list[str]
    groups: np.ndarray | None
    weights: np.ndarray | None
    class_names: list[str]
    columns: dict[str, list[str]]  # the others
    said: list[str]  # of rows that are left out, and of what was guessed


def check(cfg: Data) -> None:
    """Raise DataError, before a picture is read, where the table cannot be read, lacks a column or most pictures."""
    _read(cfg)


def class_names(cfg: Data) -> list[str]:
    """The classes, in label order: names that are set, else the labels of the table, sorted."""
    return _read(cfg).class_names


def read(cfg: Data, resize: Resize) -> Contents:
    """The pictures of every row that has a label and a readable one."""
    return _contents(_read(cfg), cfg, resize)


def given(columns: Mapping[str, Iterable[object]], cfg: Data, resize: Resize) -> Contents:
    """The same of a table that was given in Python: a DataFrame, or lists by their names, all of one length."""
    return _contents(_listed(tabular.of(columns), cfg), cfg, resize)


def _contents(found: _Listed, cfg: Data, resize: Resize) -> Contents:
    log.info("Reading %s images in %d classes", f"{len(found.paths):,}", len(found.class_names))
    for line in found.said:
        log.warning("%s", line)
    table, good, unreadable = read_files(cfg, found.paths, resize)
    return Contents(
        table,
        found.labels[good],
        np.asarray(found.parts, dtype="U10")[good],
        found.class_names,
        tuple(unreadable),
        files=[found.files[row] for row in good],
        groups=None if found.groups is None else found.groups[good],
        weights=None if found.weights is None else found.weights[good],
        columns={name: [cells[row] for row in good] for name, cells in found.columns.items()},
    )


def _read(cfg: Data) -> _Listed:
    """The table, checked. Raises DataError with the number of the rows that do not fit and the first of them."""
    return _listed(tabular.read(Path(cfg.table or ""), (cfg.path or "", cfg.label or "")), cfg)


def _listed(table: Rows, cfg: Data) -> _Listed:
    path = _column(table, cfg.path, "data.path")
    split = _optional(table, cfg.split, "split", "data.split")
    weight = _optional(table, cfg.weight, "weight", "data.weight")
    group = _group_column(table, cfg)
    said = [table.note] if table.note else []
    several_each = cfg.task == "multilabel"
    read = _several if several_each else _one_each
    table, labels, names, told = read(table, path, cfg)
    own = cfg.label_columns if several_each and cfg.label_columns else [cfg.label]
    used = {path, split, *own}
    return _Listed(
        table[path],
        _existing(table[path], cfg),
        labels,
        _parts(table, split) if split else [""] * len(labels),
        np.unique(table[group], return_inverse=True)[1] if group else None,
        _weights(table, weight) if weight else None,
        names,
        {name: cells for name, cells in table.columns.items() if name not in used},
        [*said, *told],
    )


_Labelled = tuple[Rows, np.ndarray, list[str], list[str]]  # rows, labels, classes, what is said


def _one_each(table: Rows, path: str, cfg: Data) -> _Labelled:
    """The rows that name a class, and its number."""
    label = _column(table, cfg.label, "data.label")
    said = []
    if repeated := _repeated(table, path, label):
        said.append(_said(("row says", "rows say"), "again what another says", table, repeated))
        table = table.without(repeated)
    if empty := [row for row, text in enumerate(table[label]) if not text.strip()]:
        what = f"no '{label}' and {'is' if len(empty) == 1 else 'are'} left out"
        said.append(_said(("row has", "rows have"), what, table, empty))
        table = table.without(empty)
    labels = [unicodedata.normalize("NFC", text) for text in table[label]]
    names = _class_names(cfg, set(labels))
    number = {name: i for i, name in enumerate(names)}
    return table, np.array([number[text] for text in labels], np.int64), names, said


def _several(table: Rows, path: str, cfg: Data) -> _Labelled:
    """A row for each picture, and which of the classes it has."""
    if cfg.label_columns:
        heads = [_column(table, name, "data.label_columns") for name in cfg.label_columns]
        where = printable(table.file)
        named = several.in_columns({head: table[head] for head in heads}, where)
        names = heads if cfg.class_names is None else _class_names(cfg, set(heads))
    else:
        cells = table[_column(table, cfg.label, "data.label")]
        named = several.in_cells(cells, cfg.separator or SEPARATOR)
        names = _class_names(cfg, {name for some in named for name in some})
    several.check_names(names)
    rows, named = several.merged(table[path], named)
    said = []
    if others := sorted(set(range(len(table.lines))) - set(rows)):
        _check_agreement(table, path, cfg, others)
        said.append(_said(("row is", "rows are"), "of a picture named before", table, others))
        table = table.without(others)
    if empty := [row for row, some in enumerate(named) if not some]:
        what = "no class: taken as pictures that have none"
        said.append(_said(("row has", "rows have"), what, table, empty))
    return table, several.matrix(named, names), names, said


def _check_agreement(table: Rows, path: str, cfg: Data, others: Sequence[int]) -> None:
    """Raise DataError where further rows of a picture name another split, group or weight than its first."""
    first_row = {file: row for row, file in reversed(list(enumerate(table[path])))}
    split = _optional(table, cfg.split, "split", "data.split")
    weight = _optional(table, cfg.weight, "weight", "data.weight")
    for column in filter(None, (split, weight, _group_column(table, cfg))):
        cells = table[column]
        if odd := [row for row in others if cells[row] != cells[first_row[table[path][row]]]]:
            words = ("row has", "rows have")
            raise DataError(
                f"{_said(words, f'another {column} than the row of the same picture before', table, odd)}. A picture "
                "has one: make them equal."
            )


# ---------------------------------------------------------------- columns


def _column(table: Rows, name: str | None, setting: str) -> str:
    """A column that has to be there."""
    if name not in table.columns:
        raise DataError(
            f"{table.file} has no column '{name}'. {suggest(str(name), table.columns)} Set {setting}=COLUMN."
        )
    return str(name)


def _optional(table: Rows, name: str | None, usual: str, setting: str) -> str | None:
    """A column that is asked for; "auto": the usual one where it is there."""
    if name == "auto":
        return usual if usual in table.columns else None
    return None if name is None else _column(table, name, setting)


def _group_column(table: Rows, cfg: Data) -> str | None:
    """The column of the groups; None where there is none, or a pattern on the path tells them."""
    pattern = cfg.group is not None and "(" in cfg.group and cfg.group not in table.columns
    return None if pattern else _optional(table, cfg.group, "group", "data.group")


# ---------------------------------------------------------------- rows


def _repeated(table: Rows, path: str, label: str) -> list[int]:
    """Rows that say of a picture what another has said before."""
    seen: set[tuple[str, str]] = set()
    repeated = []
    for row, pair in enumerate(zip(table[path], table[label], strict=True)):
        if pair in seen:
            repeated.append(row)
        seen.add(pair)
    return repeated


def _class_names(cfg: Data, found: set[str]) -> list[str]:
    """The names that are set, or the labels that were found, sorted."""
    if cfg.class_names is None:
        return sorted(found)
    unknown = sorted(found - set(cfg.class_names))
    if unknown:
        raise DataError(
            f"{counted(len(unknown), 'label')} of {cfg.table} {'is' if len(unknown) == 1 else 'are'} not among "
            f"data.class_names: {first(unknown)}."
        )
    return list(cfg.class_names)


def _parts(table: Rows, split: str) -> list[str]:
    """The split that each row is bound to; "" where it is trained on, or nothing is said."""
    parts = {
        text: "" if not text.strip() else index.part_of(text.strip()) for text in set(table[split])
    }
    unknown = [row for row, text in enumerate(table[split]) if parts[text] is None]
    if unknown:
        names = list(dict.fromkeys(table[split][row] for row in unknown))
        raise DataError(
            f"{_said(('row names', 'rows name'), 'no split', table, unknown)}: {first(names)}. Expected train, "
            f"validation or test in column '{split}'; another column: data.split=COLUMN, none: data.split=null"
        )
    return [parts[text] or "" for text in table[split]]


def _weights(table: Rows, weight: str) -> np.ndarray:
    """What each row counts in training."""
    try:
        return np.array([float(text) for text in table[weight]])
    except ValueError as error:
        raise DataError(
            f"Column '{weight}' of {printable(table.file)} holds what is no number ({error}). Expected numbers above "
            "0; another column: data.weight=COLUMN, none: data.weight=null"
        ) from error


def _existing(files: Sequence[str], cfg: Data) -> list[Place]:
    """Where the pictures lie. Raises DataError where most of them are not there: it is the wrong folder."""
    root = Path(cfg.root) if cfg.root else Path(cfg.table or "").parent
    place = {file: _place(root, file) for file in dict.fromkeys(files)}
    gone = {file: path for file, path in place.items() if not path.exists()}
    inside = shards.members(gone, cfg.index)  # as `data export` names the pictures of shards
    missing = [file for file in gone if file not in inside]
    if missing and (len(missing) > len(place) / 2 or cfg.unreadable == "refuse"):
        raise DataError(
            f"{len(missing):,} of {len(place):,} pictures are not there: {first(missing)}. They were looked for in "
            f"{root}; set data.root to the folder that their paths begin in."
        )
    return [inside.get(file) or place[file] for file in files]


def _place(root: Path, file: str) -> Path:
    """A picture's path; as another system writes it where that alone is there."""
    path = root / file
    if path.exists():
        return path
    others = [
        file.replace("\\", "/"),
        *(unicodedata.normalize(form, file) for form in ("NFC", "NFD")),
    ]
    return next((root / other for other in others if (root / other).exists()), path)


# ---------------------------------------------------------------- words


def _said(does: tuple[str, str], what: str, table: Rows, some: Sequence[int]) -> str:
    """How many rows do what, and the numbers of the first as an editor counts them; does: of one row, of several."""
    lines = first([str(table.lines[row]) for row in some])
    return f"{counted(len(some), *does)} {what} in {printable(table.file)} (line {lines})"
