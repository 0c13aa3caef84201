"""corrections.csv: what a person decided of pictures with a problem. Every verb that reads the data obeys it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tlbench.base.errors import DataError, suggest
from tlbench.base.files import file_facts
from tlbench.base.labels import SEPARATOR, several
from tlbench.base.text import printable
from tlbench.data import tabular
from tlbench.data.sources import Contents

log = logging.getLogger(__name__)

COLUMNS = ("path", "label", "problem", "suggestion", "decision")
KEEP, RELABEL, DROP = "keep", "relabel", "drop"
DROPPED = "dropped"  # the part of rows that are in no split


def obeyed(file: str, loaded: Contents, names: Sequence[str]) -> Contents:
    """Contents with the labels that were put right, and bound to no split what was dropped.

    A row without a decision, or with `keep`, changes nothing. Raises DataError for a decision or a class that is none,
    for a picture that is decided on twice in two ways, and where images have no paths.
    """
    if loaded.files is None:
        raise DataError(f"data.corrections={file} is of no use: these images have no paths.")
    place = {path: row for row, path in enumerate(loaded.files)}
    decided = {
        place[path]: meant
        for path, meant in _decisions(file, names, several=several(loaded.labels)).items()
        if path in place
    }
    part, labels = loaded.part.astype("U10"), loaded.labels.copy()
    for row, meant in decided.items():
        if meant is None:
            part[row] = DROPPED
        else:
            labels[row] = meant
    dropped = int((part == DROPPED).sum())
    relabelled = int((labels != loaded.labels).reshape(len(labels), -1).any(axis=1).sum())
    log.info("Corrections: %d dropped, %d relabelled (%s)", dropped, relabelled, printable(file))
    changed = {"dropped": dropped, "relabelled": relabelled}
    facts = {"file": file, **file_facts(Path(file)), **changed}
    return replace(loaded, labels=labels, part=part, corrected=facts)


Label = int | tuple[int, ...]  # as a row of labels has it


def _decisions(file: str, names: Sequence[str], *, several: bool) -> dict[str, Label | None]:
    """The label that each decided path is to have, None where it is to be dropped."""
    table = tabular.read(Path(file), wanted=("path", "decision"))
    for name in ("path", "suggestion", "decision"):
        if name not in table.columns:
            raise DataError(
                f"{printable(file)} has no column '{name}'. Expected {', '.join(COLUMNS)}."
            )
    decided: dict[str, Label | None] = {}
    cells = (table["path"], table["suggestion"], table["decision"])
    for line, path, suggestion, text in zip(table.lines, *cells, strict=True):
        where, decision = f"{printable(file)}, line {line}", text.strip().lower()
        if decision in ("", KEEP):
            continue
        if decision not in (RELABEL, DROP):
            options = suggest(text, (KEEP, RELABEL, DROP))
            raise DataError(f"{where}: unknown decision '{text}'. {options}")
        meant = None if decision == DROP else _label(suggestion, names, where, several=several)
        if decided.setdefault(path, meant) != meant:
            raise DataError(
                f"{where}: {printable(path)} is decided on in two ways. Leave one of them."
            )
    return decided


def _label(text: str, names: Sequence[str], where: str, *, several: bool) -> Label:
    """The class that is named, or which of all classes are, between separators."""
    named = text.split(SEPARATOR) if several and text else [text] * (not several)
    for name in named:
        if name not in names:
            raise DataError(f"{where}: '{name}' is no class. {suggest(name, names)}")
    return tuple(int(name in named) for name in names) if several else names.index(text)
