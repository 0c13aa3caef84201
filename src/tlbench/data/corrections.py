"""corrections.csv: what a person decided of pictures with a problem. Every verb that reads the data obeys it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tlbench.base.errors import DataError, suggest
from tlbench.base.files import file_facts
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
    table = tabular.read(Path(file), wanted=("path", "decision"))
    for name in ("path", "suggestion", "decision"):
        if name not in table.columns:
            raise DataError(
                f"{printable(file)} has no column '{name}'. Expected {', '.join(COLUMNS)}."
            )
    place = {path: row for row, path in enumerate(loaded.files)}
    number = {name: i for i, name in enumerate(names)}
    drop, labels, decided = (
        np.zeros(len(loaded.labels), bool),
        loaded.labels.copy(),
        dict[int, str](),
    )
    for line, path, suggestion, text in zip(
        table.lines, table["path"], table["suggestion"], table["decision"], strict=True
    ):
        decision = text.strip().lower()
        if decision not in ("", KEEP, RELABEL, DROP):
            raise DataError(
                f"{printable(file)}, line {line}: unknown decision '{text}'. {suggest(text, (KEEP, RELABEL, DROP))}"
            )
        if decision in ("", KEEP) or (row := place.get(path)) is None:
            continue
        if decision == RELABEL and suggestion not in number:
            raise DataError(
                f"{printable(file)}, line {line}: '{suggestion}' is no class. {suggest(suggestion, names)}"
            )
        meant = decision if decision == DROP else suggestion
        if decided.setdefault(row, meant) != meant:
            raise DataError(
                f"{printable(file)}, line {line}: {printable(path)} is decided on in two ways. Leave one of them."
            )
        drop[row] = decision == DROP
        labels[row] = labels[row] if decision == DROP else number[suggestion]
    relabelled = int((labels != loaded.labels)[~drop].sum())
    log.info(
        "Corrections: %d images dropped, %d relabelled (%s)",
        drop.sum(),
        relabelled,
        printable(file),
    )
    part = np.where(drop, DROPPED, loaded.part).astype("U10")
    changed = {"dropped": int(drop.sum()), "relabelled": relabelled}
    facts = {"file": file, **file_facts(Path(file)), **changed}
    return replace(loaded, labels=labels, part=part, corrected=facts)
