"""Where predictions go: a table at the end, or JSON or CSV as they come. No TensorFlow.

A file is written under a temporary name and takes its own when the last prediction is in it; what is
no regular file, a pipe or a device, is written into.
"""

import contextlib
import csv
import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TextIO

from tlbench.base import console, files
from tlbench.base.columns import Column, FittedTable
from tlbench.base.errors import ConfigError
from tlbench.base.files import inert
from tlbench.base.labels import SEPARATOR
from tlbench.base.text import printable
from tlbench.cli import targets
from tlbench.inference.predict import Prediction

STDOUT = "-"


class Sink(Protocol):
    """Takes predictions one by one."""

    def add(self, prediction: Prediction) -> None: ...

    def close(self) -> None: ...


class TableSink:
    """A table on stdout, printed when all is done: file, class, confidence, runner-up; or all classes it has."""

    COLUMNS = (
        Column("file", path=True, style="path"),
        Column("class", fold=True),
        Column("confidence", "right", style="number"),
        Column("runner-up", fold=True, style="hint"),
    )

    OF_SEVERAL = (
        Column("file", path=True, style="path"),
        Column("classes", fold=True),
        Column("most probable", fold=True, style="hint"),
    )

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.several = False  # whether images may have several classes

    def add(self, prediction: Prediction) -> None:
        (name, confidence), *others = prediction.best
        if prediction.classes is not None:
            name = ", ".join(prediction.classes) or "none"
            others = prediction.best
        behind = ", ".join(f"{printable(other)} {share:.4f}" for other, share in others)
        names = (printable(prediction.path), printable(name))
        self.several = prediction.classes is not None
        middle = [] if self.several else [f"{confidence:.4f}"]
        self.rows.append([*names, *middle, behind])

    def close(self) -> None:
        if self.rows:
            columns = self.OF_SEVERAL if self.several else self.COLUMNS
            console.out.print(FittedTable(columns, self.rows))


class CsvSink:
    """One line a file: its path, then class and confidence for each of the `top` best; before these, where an image
    may have several, `classes`.

    Names are made harmless for a spreadsheet and a terminal; JSON has them exactly.
    """

    def __init__(self, file: TextIO, top: int) -> None:
        self.writer = csv.writer(files.CsvLines(file))
        self.heads = ["file", "class", "confidence"]
        for i in range(2, top + 1):
            self.heads += [f"class_{i}", f"confidence_{i}"]

    def add(self, prediction: Prediction) -> None:
        all_of = prediction.classes
        if self.heads:
            if all_of is not None:
                self.heads.insert(1, "classes")
            self.writer.writerow(self.heads)
            self.heads = []
        said = [] if all_of is None else [inert(SEPARATOR.join(all_of))]
        cells = [cell for name, share in prediction.best for cell in (inert(name), f"{share:.6f}")]
        self.writer.writerow([inert(_text(prediction.path)), *said, *cells])

    def close(self) -> None:
        """Nothing follows the last line."""


class JsonSink:
    """A list of objects: file, class, confidence, and `top`, which repeats the best with the others.

    Where an image may have several classes `classes` has all of them.
    """

    def __init__(self, file: TextIO) -> None:
        self.file, self.separator = file, "[\n"

    def add(self, prediction: Prediction) -> None:
        top = [{"class": name, "confidence": round(share, 6)} for name, share in prediction.best]
        said = {} if prediction.classes is None else {"classes": prediction.classes}
        self.file.write(self.separator)
        json.dump({"file": _text(prediction.path), **said, **top[0], "top": top}, self.file)
        self.separator = ",\n"

    def close(self) -> None:
        self.file.write("[]\n" if self.separator == "[\n" else "\n]\n")


@contextlib.contextmanager
def opened(json_to: str | None, csv_to: str | None, top: int) -> Iterator[list[Sink]]:
    """The sinks of a command: what was asked for, or a table."""
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = [] if json_to or csv_to else [TableSink()]
        if json_to:
            sinks.append(JsonSink(stack.enter_context(_writing("--json", json_to))))
        if csv_to:
            sinks.append(CsvSink(stack.enter_context(_writing("--csv", csv_to)), top))
        yield sinks
        for sink in sinks:
            sink.close()


def check_targets(json_to: str | None, csv_to: str | None) -> None:
    """Raise ConfigError, before any work, where an output cannot be meant or written."""
    if json_to == STDOUT and csv_to == STDOUT:
        raise ConfigError("--json and --csv cannot both go to stdout. Give one a file.")
    for suffix, target in ((".json", json_to), (".csv", csv_to)):
        if target is None or target == STDOUT or files.is_special(Path(target)):
            continue
        # `--json photo.jpg` is a picture after a bare --json: it must not be written over.
        if Path(target).suffix.lower() != suffix:
            raise ConfigError(
                f"--{suffix[1:]} {target} is no name for it. Expected one that ends in {suffix}, or - for stdout."
            )
        targets.check_file(f"--{suffix[1:]}", target)


def _writing(option: str, target: str) -> AbstractContextManager[TextIO]:
    to_stdout = target == STDOUT or files.is_stdout(Path(target))
    return contextlib.nullcontext(sys.stdout) if to_stdout else targets.writing(option, target)


def _text(path: Path) -> str:
    """A path as text that every encoding of Unicode can hold."""
    return os.fsencode(path).decode("utf-8", "replace")
