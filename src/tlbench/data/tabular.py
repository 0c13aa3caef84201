"""Rows of text from a file: CSV, TSV, JSON lines or Parquet. Everything stays the text that it is."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tlbench.base.errors import DataError
from tlbench.base.text import printable

MOST_BYTES = 2**31  # of a table
DELIMITERS = ",;\t|"
JSON_LINES, PARQUET = (".jsonl", ".ndjson"), (".parquet", ".pq")
TABULATED = (".csv", ".tsv", ".tab", ".txt")


@dataclass(frozen=True)
class Rows:
    """Columns of text by their names, and the line of the file on which each row begins; note: what was guessed."""

    file: Path
    columns: dict[str, list[str]]
    lines: Sequence[int]
    note: str = ""

    def __getitem__(self, name: str) -> list[str]:
        return self.columns[name]

    def without(self, some: Iterable[int]) -> "Rows":
        """All rows but some."""
        out = set(some)
        kept = [row for row in range(len(self.lines)) if row not in out]
        columns = {name: [cells[row] for row in kept] for name, cells in self.columns.items()}
        return Rows(self.file, columns, [self.lines[row] for row in kept], self.note)


def of(columns: Mapping[str, Iterable[object]]) -> Rows:
    """The rows of columns that are there already: a DataFrame, or lists by their names. Raises DataError where they
    are not of one length.
    """
    cells = {str(name): [_text(value) for value in columns[name]] for name in columns}
    lengths = {len(column) for column in cells.values()}
    if len(lengths) != 1:
        raise DataError("The table given has columns of unlike lengths, or none.")
    return Rows(Path("the table given"), cells, range(1, 1 + lengths.pop()))


def read(file: Path, wanted: Sequence[str]) -> Rows:
    """The rows of a table; wanted: columns by which a delimiter is known for the right one.

    Raises DataError where there is no such file, it is of no kind known here, damaged or without a row.
    """
    suffix = file.suffix.lower()
    if not file.is_file():
        raise DataError(f"data.table={printable(file)} is no file. Expected a table of pictures.")
    if suffix not in (*TABULATED, *JSON_LINES, *PARQUET):
        kinds = ", ".join((*TABULATED, *JSON_LINES, *PARQUET))
        raise DataError(f"data.table={printable(file)} is of no kind known here. Expected {kinds}.")
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES / 2**30:.0f} GiB")
        if suffix in PARQUET:
            found = _parquet(file)
        else:
            text, note = _decoded(file)
            kind = suffix in JSON_LINES
            found = _json_lines(file, text) if kind else _tabulated(file, text, wanted)
            found = replace(found, note=note)
    except OSError as error:
        raise DataError(f"{printable(file)} cannot be read ({error.strerror or error}).") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{printable(file)} cannot be read as a table: {error}.") from error
    if not found.lines:
        raise DataError(f"{printable(file)} holds no rows. Expected a row for each picture.")
    return found


def _decoded(file: Path) -> tuple[str, str]:
    """The text of a file: UTF-8, what its first bytes say, or else the encoding of Windows; and a note of that."""
    content = file.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16"), ""
    try:
        return content.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        note = f"{printable(file)} is not UTF-8 (line {line}): read as Windows-1252. Save it as UTF-8 if they look odd"
        return content.decode("cp1252", "replace"), note


# ---------------------------------------------------------------- kinds


def _tabulated(file: Path, text: str, wanted: Sequence[str]) -> Rows:
    """Cells between delimiters: the one by which the first line holds the most of the wanted columns."""
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(
        DELIMITERS,
        key=lambda sign: (
            sum(name in next(csv.reader([first], delimiter=sign), []) for name in wanted),
            first.count(sign),
        ),
    )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    numbered = ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
    _, heads = next(numbered, (0, []))
    heads = [head.strip() for head in heads]
    if repeated := sorted({head for head in heads if heads.count(head) > 1}):
        raise ValueError(f"two columns are called '{printable(repeated[0])}'")
    lines, rows = [], []
    for line, cells in numbered:
        if len(cells) != len(heads):
            raise ValueError(f"line {line} has {len(cells)} cells where {len(heads)} have a name")
        lines.append(line)
        rows.append(cells)
    return _by_column(file, heads, rows, lines)


def _json_lines(file: Path, text: str) -> Rows:
    """An object on each line; of a name that a line lacks the cell is empty."""
    records, lines = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            # Numbers stay as they are written: 007 and 1e3 may be names.
            record = json.loads(line, parse_int=str, parse_float=str)
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON ({error})") from None
        if not isinstance(record, dict):
            raise ValueError(f"line {number} is no object")
        records.append(record)
        lines.append(number)
    heads = list(dict.fromkeys(name for record in records for name in record))
    rows = ([_text(record.get(name)) for name in heads] for record in records)
    return _by_column(file, heads, rows, lines)


def _parquet(file: Path) -> Rows:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(
            f"data.table={printable(file)} needs pyarrow, not installed here. Run: pip install 'tlbench[parquet]'"
        ) from error
    try:
        table = parquet.read_table(file)
    except ArrowException as error:
        raise ValueError(" ".join(str(error).split())) from error
    columns = {
        name: [_text(value) for value in table[name].to_pylist()] for name in table.column_names
    }
    return Rows(file, columns, range(1, table.num_rows + 1))


def _text(value: object) -> str:
    if value is None or value != value:  # a DataFrame's NaN
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _by_column(
    file: Path, heads: Sequence[str], rows: Iterable[Sequence[str]], lines: Sequence[int]
) -> Rows:
    cells: Iterator[tuple[str, ...]] = zip(*rows, strict=True)
    columns = {head: list(column) for head, column in zip(heads, cells, strict=False)}
    return Rows(file, columns or {head: [] for head in heads}, lines)
