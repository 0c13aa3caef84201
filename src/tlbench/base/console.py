"""Two consoles with one set of named styles: results on stdout, progress and messages on stderr.

Rich honours NO_COLOR and falls back to plain text where a stream is no terminal. The colours are
from the colour-blind safe palette of Okabe and Ito (2008) and serve the plots too.
"""

import contextlib
import io
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TextIO, cast

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.segment import Segment
from rich.table import Column
from rich.text import Text
from rich.theme import Theme

from tlbench.base.text import printable

BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
)
PALETTE = (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE)
WIDEST = 10_000  # cells of a line where no terminal ends it
LEAST_BAR = 12  # cells that a bar and the space around it need

THEME = Theme(
    {
        "title": "bold",
        "good": GREEN,
        "bad": f"bold {VERMILION}",
        "warn": ORANGE,
        "path": SKY,
        "hint": "dim",
        "number": "bold",
    },
    inherit=True,
)


class _Console(Console):
    """A console that shows text as text: a name from outside does nothing to the terminal."""

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        """A pipe or a file has room for everything, unless COLUMNS says otherwise: grep finds no name that is cut."""
        width, height = super().size
        narrow = self.file.isatty() or "COLUMNS" in os.environ
        return ConsoleDimensions(width if narrow else WIDEST, height)

    def on_broken_pipe(self) -> None:
        """Results without a reader are in vain: `tlbench ... | head` ends."""
        raise BrokenPipeError

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n" or segment.text.isprintable():
                yield segment
            else:
                lines = map(printable, segment.text.split("\n"))
                yield Segment("\n".join(lines), segment.style)


class _Stderr(io.TextIOBase):
    """sys.stderr as it is at the moment. It may be closed, full, or a terminal that is gone: what is
    said there is never the reason that work ends.
    """

    @property
    def _now(self) -> TextIO:
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._now, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return self._now.isatty()
        return False

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._now.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._now.flush()


# A notebook's kernel shows what is written to its streams: rich's own display would keep it from files.
_LOOKS: dict[str, Any] = {"theme": THEME, "highlight": False, "force_jupyter": False}
out = _Console(**_LOOKS)
err = _Console(**_LOOKS, stderr=True, file=cast(TextIO, _Stderr()))


def show(*results: RenderableType, **options: Any) -> None:
    """Print on stdout what files hold too: that nobody can read it there is no failure of the work."""
    try:
        for result in results:
            out.print(result, **options)
    except OSError as error:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
        say(f"stdout cannot be written ({error.strerror})", style="warn")


def say(line: str, style: str | None = None) -> None:
    """One line on the error console.

    In a file it stays one. On a terminal it breaks between words, unless it holds a command to paste.
    """
    whole = not err.file.isatty() or "tlbench " in line
    err.print(Text(printable(line)), style=style, soft_wrap=whole)


def plain(result: RenderableType, width: int) -> str:
    """What is printed, as text for a file: without colours, whatever asks for them."""
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=False, force_jupyter=False).print(result)
    return file.getvalue()


# ---------------------------------------------------------------- progress


class Advance(Protocol):
    """Moves a bar on by `count`; figures: what is worth seeing beside it, such as the loss."""

    def __call__(self, count: int = 1, figures: str = "") -> None: ...


SHARE = "%"  # the unit of what is shown as a share


class Display(Protocol):
    """Where progress is drawn."""

    def __call__(
        self, description: str, total: int, unit: str
    ) -> contextlib.AbstractContextManager[Advance]: ...


_display: ContextVar[Display | None] = ContextVar("display", default=None)


@contextlib.contextmanager
def drawn_on(display: Display | None) -> Iterator[None]:
    """Draw the progress of what is done in the block; without this nothing is drawn."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)


def progress(
    description: str, total: int, unit: str = ""
) -> contextlib.AbstractContextManager[Advance]:
    """A bar that leaves no trace, where somebody sees it move.

    unit: what is counted, as in "img": then its speed and the time left are shown, else the time taken; SHARE:
    nothing that anybody would count.
    """
    display = _display.get()
    return display(description, total, unit) if display else contextlib.nullcontext(_nothing)


@contextlib.contextmanager
def terminal(description: str, total: int, unit: str) -> Iterator[Advance]:
    """A bar on the error console; nothing where it cannot draw."""
    if not draws():
        yield _nothing
        return
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),  # it is what gives way
        _Figures(table_column=Column(no_wrap=True)),
    )
    with Progress(
        *columns,
        console=err,
        transient=True,
        redirect_stdout=False,  # it would send to the terminal what belongs into a pipe
    ) as bar:
        task = bar.add_task(description, total=total, unit=unit, figures="", first=None)

        def advance(count: int = 1, figures: str = "") -> None:
            bar.update(task, advance=count, figures=figures)
            if bar.tasks[0].fields["first"] is None:
                bar.update(task, first=(time.monotonic(), count))

        yield advance


def _nothing(count: int = 1, figures: str = "") -> None:
    """What moves no bar."""
    del count, figures


def draws() -> bool:
    """Whether the error console is a terminal that can draw over itself: colours alone do not do."""
    return err.is_terminal and not err.is_dumb_terminal and err.file.isatty()


class _Figures(ProgressColumn):
    """How far a task is, how fast, and what time it takes: as much of it as there is room for."""

    def render(self, task: Task) -> Text:
        now, unit, figures = time.monotonic(), task.fields["unit"], task.fields["figures"]
        count, speed, clock = f"{task.completed:,.0f}/{task.total:,.0f}", "", ""
        if unit == SHARE:
            count = f"{task.percentage:.0f} %"
        if unit in ("", SHARE):
            clock = _clock(task.elapsed or 0.0)
        elif task.fields["first"] is not None:
            # What comes first carries the compilation; a speed is one after a second of the rest.
            began, first = task.fields["first"]
            if now - began >= 1 and task.completed > first:
                pace = (task.completed - first) / (now - began)
                speed = f"{pace:,.{0 if pace >= 10 else 1}f} {unit}/s"
                clock = f"{_clock((task.remaining or 0) / pace)} left"
        room = err.width - cell_len(task.description) - LEAST_BAR
        shown: list[str] = []
        for part in (clock, count, figures, speed):
            if part and cell_len("  ".join([*shown, part])) <= room:
                shown.append(part)
        return Text("  ".join(p for p in (count, figures, speed, clock) if p in shown))


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


# ---------------------------------------------------------------- words


def path(name: object) -> Text:
    """A path as the consoles show paths."""
    return Text(str(name), style="path")


class Lines(logging.Handler):
    """Log records as lines on the error console, above whatever is live there; a table as a table."""

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, str):
            warns = record.levelno >= logging.WARNING
            say(self.format(record), style="warn" if warns else None)
        else:
            err.print(record.msg)
