"""Parts of HTML: whatever comes from a run goes through `text`."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

from tlbench.base.console import BLUE, GREEN, VERMILION
from tlbench.report import charts

COLORS = f":root{{--good:{GREEN};--bad:{VERMILION};--hit:{BLUE}}}"
STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")


def document(title: str, body: str) -> str:
    """A page by itself: its style within it, light or dark as the reader's screen is."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{COLORS}{STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def text(value: object) -> str:
    """Anything as HTML text: escaped, and without what UTF-8 cannot hold."""
    return escape(str(value).encode("utf-8", "replace").decode())


def chip(number: int) -> str:
    style = f"background:{charts.color(number)};color:{charts.ink(number)}"
    return f'<span class="chip" style="{style}">{number}</span>'


def note(words: str) -> str:
    return f'<p class="note">{text(words)}</p>' if words else ""


def grid(heads: Iterable[str], lines: Iterable[Iterable[str]], style: str = "") -> str:
    """A table of cells that are HTML already."""
    top = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in lines)
    return (
        f'<div class="scroll"><table class="{style}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
