"""A table that fits its terminal: it does without its least columns, folds names, shortens paths from their middle.

Nothing that decides is ever cut, and no number broken; where there is room, nothing is changed at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tlbench.base.console import WIDEST, plain

GAP = 2  # cells between columns
LEAST_PATH = 20  # cells below which a path tells nothing
EASY_FOLD = 24  # cells in which folded names are easily read
LEAST_FOLD = 12  # cells below which folded names are a tower of words


@dataclass(frozen=True)
class Column:
    """rank: the highest go first where there is no room, 0 never.

    path: its cells may be shortened; fold: they may be folded, between words where these are not too long.
    """

    heading: str
    justify: Literal["left", "right"] = "left"
    rank: int = 0
    path: bool = False
    fold: bool = False
    style: str = ""


class FittedTable:
    """Rows of text under columns, printed at whatever width there is.

    rows: a cell for each column, plain or styled; title and caption are folded between words.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Sequence[str | Text]],
        *,
        title: str = "",
        caption: str = "",
    ) -> None:
        self.columns, self.title, self.caption = list(columns), title, caption
        self.rows = [[Text(c) if isinstance(c, str) else c for c in row] for row in rows]

    def __str__(self) -> str:
        """As a file has it."""
        return plain(self, width=WIDEST)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = self._fit(options.max_width)
        widths = self._widths(kept, options.max_width)
        space = (0, GAP - 1, 0, 0)  # beside the one that the box draws
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=space)
        for i in kept:
            column = self.columns[i]
            table.add_column(
                column.heading,
                justify=column.justify,
                style=column.style,
                width=widths[i],
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(self._cell(i, row[i], widths[i]) for i in kept))
        if self.title:
            yield Text(self.title, style="title")
        yield table
        if self.caption:
            yield Text(self.caption, style="hint")

    def _fit(self, width: int) -> list[int]:
        """The columns that there is room for, by their places."""
        kept = list(range(len(self.columns)))
        while (
            sum(self._least(i) + GAP for i in kept) - GAP > width
            and (least := max(kept, key=lambda i: self.columns[i].rank)) is not None
            and self.columns[least].rank
        ):
            kept.remove(least)
        return kept

    def _widths(self, kept: Sequence[int], width: int) -> dict[int, int]:
        """Cells of each column: what is too much is taken from the widest of those that fold, as far as they are easily
        read, then from paths, then from what folds again.
        """
        found = {i: self._width(i) for i in kept}
        folded = [i for i in kept if self.columns[i].fold]
        paths = [i for i in kept if self.columns[i].path]
        easily = {i: max(EASY_FOLD, self._least(i)) for i in folded}
        for least in (easily, *({i: self._least(i) for i in some} for some in (paths, folded))):
            while sum(found.values()) + GAP * (len(kept) - 1) > width:
                narrower = [i for i in least if found[i] > least[i]]
                if not narrower:
                    break
                found[max(narrower, key=lambda i: found[i])] -= 1
        return found

    def _width(self, place: int) -> int:
        cells = (row[place].cell_len for row in self.rows)
        return max(cell_len(self.columns[place].heading), *cells, 0)

    def _least(self, place: int) -> int:
        """The fewest cells of a column."""
        column, width = self.columns[place], self._width(place)
        if column.path:
            return min(width, LEAST_PATH)
        if column.fold:
            texts = [column.heading, *(row[place].plain for row in self.rows)]
            words = (cell_len(word) for text in texts for word in text.split())
            return min(width, LEAST_PATH, max([LEAST_FOLD, *words]))
        return width

    def _cell(self, place: int, cell: Text, width: int) -> Text:
        """A cell as it is, or a path shortened to the width of its column."""
        if not self.columns[place].path or cell.cell_len <= width:
            return cell
        return Text(shortened(cell.plain, width), style=cell.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)


def shortened(text: str, width: int) -> str:
    """Text of at most `width` cells, its middle left out where it is longer: "/home/…/run_12"."""
    if cell_len(text) <= width:
        return text
    head, tail = text, text
    while cell_len(head) > (width - 1) // 3:
        head = head[:-1]
    while cell_len(head) + 1 + cell_len(tail) > width:
        tail = tail[1:]
    return f"{head}…{tail}"
