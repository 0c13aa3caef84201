"""Parts of HTML: whatever comes from a run goes through `text`."""

from collections.abc import Iterable
from html import escape

from tlbench.report import charts


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
