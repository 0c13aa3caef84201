"""Progress and lines in a notebook, drawn by its own means."""

import contextlib
import html
import logging
import sys
from collections.abc import Iterator

from tlbench.base.console import SHARE, Advance


def is_one() -> bool:
    """Whether a notebook's kernel runs this code."""
    shell = sys.modules.get("IPython")
    found = shell.get_ipython() if shell else None
    return type(found).__name__ == "ZMQInteractiveShell"


@contextlib.contextmanager
def bar(description: str, total: int, unit: str) -> Iterator[Advance]:
    """A bar below the cell, which goes when the work is done."""
    from IPython.display import HTML, display

    handle, done, shown = display(HTML(""), display_id=True), 0, -1

    def advance(count: int = 1, figures: str = "") -> None:
        nonlocal done, shown
        done += count
        if (
            percent := 100 * done // max(1, total)
        ) != shown:  # a kernel's messages are not for free
            shown = percent
            counted = f"{percent} %" if unit == SHARE else f"{done:,}/{total:,} {unit}"
            words = html.escape(f"{description}  {counted}  {figures}")
            handle.update(HTML(f'<progress value="{done}" max="{total}"></progress> {words}'))

    try:
        yield advance
    finally:
        handle.update(HTML(""))


class Lines(logging.Handler):
    """Log records as lines of the cell's output."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record))
