"""Fonts for class names in every script: matplotlib's own one lacks those of Asia."""

import functools
import logging
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

log = logging.getLogger(__name__)

# It logs that a font has no bold form; nobody listening, Python would print that beside our own lines.
logging.getLogger("matplotlib").addHandler(logging.NullHandler())

OWN = "DejaVu Sans"  # ships with matplotlib


def fit(figure: Figure) -> None:
    """Give a figure's texts fonts that have their characters; one line says where none is installed."""
    texts = [found for found in figure.findobj(Text) if isinstance(found, Text)]
    missing = frozenset("".join(text.get_text() for text in texts)) - _own() - {"\n"}
    if not missing:
        return
    families, lacking = families_for(missing)
    for text in texts:
        if missing.intersection(text.get_text()):
            text.set_fontfamily([OWN, *families])
    if lacking:
        _say(lacking)


@functools.cache
def families_for(missing: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Names of installed fonts that have the characters, and the characters that none of them has."""
    families: list[str] = []
    # Not matplotlib's list: it is made once and does not learn of fonts that are installed later.
    for path in sorted(font_manager.findSystemFonts(), key=_plainness):
        if not missing:
            break
        if has := missing & _characters(path):
            font_manager.fontManager.addfont(path)
            families.append(font_manager.FontProperties(fname=path).get_name())
            missing -= has
    return tuple(families), missing


def _plainness(path: str) -> tuple[bool, bool, str]:
    """Regular fonts before bold and slanted ones, fonts for reading before fonts of one script."""
    name = Path(path).stem.lower()
    styled = any(word in name for word in ("bold", "italic", "oblique", "black", "light", "thin"))
    return styled, "cjk" not in name, path


def _characters(path: str) -> frozenset[str]:
    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):  # no font, or one that FreeType does not read
        return frozenset()


@functools.cache
def _own() -> frozenset[str]:
    return _characters(font_manager.findfont(OWN))


@functools.cache
def _say(lacking: frozenset[str]) -> None:
    shown = "".join(sorted(lacking)[:10])
    log.warning(
        "No installed font has %s: the plots show boxes. Install one that does, such as Noto Sans CJK.",
        shown,
    )
