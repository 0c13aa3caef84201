"""Two consoles with one set of named styles: results on stdout, progress and messages on stderr.

Rich honours NO_COLOR and falls back to plain text where a stream is no terminal. The colours are
from the colour-blind safe palette of Okabe and Ito (2008) and serve the plots too.
"""

import logging
import os
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.theme import Theme

BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
)
PALETTE = (BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE)

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
    """A console whose reader may go away, as in `tlbench ... | head`."""

    def on_broken_pipe(self) -> None:
        """Without a reader results are in vain, but progress is not: the work it tells of goes on."""
        if not self.stderr:
            raise BrokenPipeError
        self.quiet = True


out = _Console(theme=THEME, highlight=False)
err = _Console(theme=THEME, highlight=False, stderr=True)


def progress() -> Progress:
    """A bar on the error console that leaves no trace, and shows nothing off a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=err,
        transient=True,
        redirect_stdout=False,  # it would send to the terminal what belongs into a pipe
        disable=not err.is_terminal,
    )


def printable(name: object) -> str:
    """A path or a name as one line of text that does nothing to a terminal."""
    text = os.fsencode(name).decode("utf-8", "replace") if isinstance(name, Path) else str(name)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


class _Lines(logging.Handler):
    """Log records as lines on the error console, above whatever is live there."""

    def emit(self, record: logging.LogRecord) -> None:
        style = "warn" if record.levelno >= logging.WARNING else None
        err.print(self.format(record), style=style, markup=False, soft_wrap=True)


def start_logging() -> None:
    """Show what tlbench logs; a second call changes nothing."""
    log = logging.getLogger("tlbench")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    if not any(isinstance(handler, _Lines) for handler in log.handlers):
        lines = _Lines(logging.INFO)
        log.addHandler(lines)
