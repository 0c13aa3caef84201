"""An inspection as one self-contained HTML page with thumbnails: no network, no scripts.

Whatever comes from a data set (names, paths) goes through `text`.
"""

import base64
import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from tlbench.base.errors import DataError
from tlbench.data.datasets import SPLITS, Dataset
from tlbench.data.images import FileImages
from tlbench.data.resize import Resize
from tlbench.inspection import facts, inspect
from tlbench.inspection.inspect import Inspection
from tlbench.inspection.problems import KINDS, Problem
from tlbench.report.html import document, grid, note, text

THUMBNAIL = 96  # pixels
SHOWN, MEMBERS = 24, 12  # problems of one kind, and pictures of one problem
CLASSES = 200
STYLE = """<style>
.set{display:flex;flex-wrap:wrap;gap:.6rem;margin:.6rem 0 1rem;padding:.6rem;background:var(--card);
border:1px solid var(--line);border-radius:8px}
.set figure{border:0;padding:0;background:none;width:7.5rem}
.set img{display:block;width:96px;height:96px;border-radius:4px}
.set figcaption{font-size:.78rem;line-height:1.3;overflow-wrap:anywhere;margin-top:.25rem}
.set p{flex-basis:100%;margin:0;font-size:.85rem;color:var(--muted)}
</style>"""


def html(found: Inspection, command: str) -> str:
    """The page: what the data set holds, and each kind of problem with its pictures."""
    dataset = found.dataset
    images = sum(len(rows) for rows in dataset.splits.values())
    parts = [
        STYLE,
        f"<header><h1>{images:,} pictures in {len(dataset.class_names):,} classes</h1>"
        f"<p><code>{text(command)}</code></p></header>",
        _holds(found),
        *_problems(found),
    ]
    return document("tlbench inspect", "".join(parts))


def _holds(found: Inspection) -> str:
    about = found.facts
    sides = about.sizes
    lines = [
        ("width", f"{facts.spread(sides[:, 0])} pixels"),
        ("height", f"{facts.spread(sides[:, 1])} pixels"),
        ("width / height", facts.spread(sides[:, 0] / sides[:, 1])),
        ("colour modes", _counted(about.modes.most_common())),
        ("formats", _counted(about.formats.most_common())),
        ("cannot be read", f"{len(found.dataset.unreadable):,}"),
        ("largest to smallest class", f"{about.imbalance:,.1f} times"),
    ]
    rows = [(text(name), text(value)) for name, value in lines if value]
    unread = "".join(f"<li>{text(line)}</li>" for line in found.dataset.unreadable[:SHOWN])
    return (
        f"<section><h2>What it holds</h2>{grid(('', ''), rows, 'named')}"
        f"{f'<ul>{unread}</ul>' if unread else ''}<h3>Classes</h3>{_classes(found)}</section>"
    )


def _counted(pairs: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in pairs)


def _classes(found: Inspection) -> str:
    counts, names = found.facts.counts, found.dataset.class_names
    order = np.argsort(-counts.sum(axis=1), kind="stable")
    lines = [
        (text(names[i]), *(f"{n:,}" for n in counts[i]), f"{counts[i].sum():,}")
        for i in order[:CLASSES]
    ]
    more = len(names) - CLASSES
    rest = note(f"and {more:,} smaller classes" if more > 0 else "")
    return grid(("class", *SPLITS, "all"), lines, "named") + rest


def _problems(found: Inspection) -> Iterator[str]:
    splits = _splits(found.dataset)
    for kind in KINDS:
        some = [problem for problem in found.problems if problem.kind == kind]
        if not some:
            continue
        shown = "".join(_set(found, problem, splits) for problem in some[:SHOWN])
        more = len(some) - SHOWN
        rest = note(f"and {more:,} more, in {inspect.CORRECTIONS}" if more > 0 else "")
        yield f"<section><h2>{text(kind.capitalize())} ({len(some):,})</h2>{shown}{rest}</section>"


def _splits(dataset: Dataset) -> np.ndarray:
    """The name of the split of each image, (images,); "" where it is in none."""
    names = np.full(len(dataset.images), "", dtype="U10")
    for name, rows in dataset.splits.items():
        names[rows] = name
    return names


def _set(found: Inspection, problem: Problem, splits: np.ndarray) -> str:
    pictures = []
    for row, better in list(zip(problem.rows, problem.suggestions, strict=True))[:MEMBERS]:
        label = found.dataset.label(row)
        words = [f"<b>{text(label)}</b>, {text(splits[row])}", text(found.dataset.file(row))]
        words += [f"&rarr; <b>{text(better)}</b>"] if better else []
        pictures.append(
            f'<figure><img alt="" src="{_thumbnail(found, row)}"><figcaption>{"<br>".join(words)}'
            "</figcaption></figure>"
        )
    more = len(problem.rows) - MEMBERS
    words_ = [problem.note] if problem.note else []
    words_ += [f"and {more:,} more"] if more > 0 else []
    below = f"<p>{text('; '.join(words_))}</p>" if words_ else ""
    return f'<div class="set">{"".join(pictures)}{below}</div>'


def _thumbnail(found: Inspection, row: int) -> str:
    """A picture as a data URI; nothing where its file has gone meanwhile."""
    images = found.dataset.images
    table = (
        images.at(Resize(THUMBNAIL, "pad", "bilinear"))
        if isinstance(images, FileImages)
        else images
    )
    try:
        (pixels,) = table.batch(np.array([row]))
    except DataError:
        return ""
    target = io.BytesIO()
    Image.fromarray(pixels).resize((THUMBNAIL, THUMBNAIL)).save(target, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(target.getvalue()).decode()}"
