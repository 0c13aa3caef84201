"""Many runs -> one table, the published rows beside the report's own configurations. No TensorFlow."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from tlbench.config import Config, Published
from tlbench.run import Run

FIGURES = ("parameters", "accuracy", "val_accuracy", "epochs", "evaluation")


@dataclass(frozen=True)
class Row:
    """One run of a table; figures are None where the run has none."""

    name: str
    status: str
    reason: str
    figures: dict[str, float | None]
    seconds: float | None
    published: Published | None
    comparable: bool  # whether the run did what the published row did: its data and its weights


def row(run: Run, name: str | None = None) -> Row:
    """A run's row, named by the caller or by what was chosen in its configuration."""
    cfg, found = run.config(), run.metrics()
    published = cfg.published
    return Row(
        name=name or (published.label if published else _chosen(cfg)),
        status=run.status,
        reason=run.manifest.get("reason", ""),
        figures={key: found.get(key) for key in FIGURES},
        seconds=found.get("training_seconds"),
        published=published,
        comparable=_comparable(cfg),
    )


def _chosen(cfg: Config) -> str:
    return f"{cfg.backbone.name} {cfg.head.name} {cfg.data.name}"


def _comparable(cfg: Config) -> bool:
    """The report trained on all of CIFAR-100's superclasses, from ImageNet weights, at 224 pixels."""
    return (
        cfg.data.name == "cifar100"
        and cfg.data.limit is None
        and cfg.backbone.weights == "imagenet"
        and cfg.backbone.image_size == 224
    )


def table(rows: Iterable[Row]) -> Table:
    """Runs, and below each run of the report its published row with the differences."""
    view = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    view.add_column("run", overflow="fold")
    for heading in ("parameters", "accuracy", "val acc.", "epochs", "evaluation", "time"):
        view.add_column(heading, justify="right")
    notes = False
    for item in rows:
        view.add_row(*cells(item), style=None if item.status == "completed" else "bad")
        if item.published and item.status == "completed":
            notes = notes or not item.comparable
            for line in _published_lines(item):
                view.add_row(*line, style="hint")
    if notes:
        view.caption = "Differences are given only for runs on CIFAR-100 from ImageNet weights."
    return view


def cells(item: Row) -> list[Text]:
    """What the table shows of a run: its figures, or why it has none."""
    if item.status != "completed":
        reason = f"{item.name}: {item.status}{f', {item.reason}' if item.reason else ''}"
        return [Text(reason)]
    return [
        Text(text)
        for text in (item.name, *map(_figure, item.figures.items()), _clock(item.seconds))
    ]


def _published_lines(item: Row) -> list[list[Text]]:
    published = item.published
    assert published is not None
    values = {key: getattr(published, key) for key in FIGURES}
    lines = [["  published", *map(_figure, values.items()), ""]]
    if item.comparable:
        lines.append(
            ["  difference", *(_difference(item.figures[k], values[k]) for k in FIGURES), ""]
        )
    return [[Text(text) for text in line] for line in lines]


def _figure(figure: tuple[str, float | None]) -> str:
    key, value = figure
    if value is None:
        return "-"
    return f"{value:,.0f}" if key in ("parameters", "epochs") else f"{value:.4f}"


def _difference(ours: float | None, theirs: float) -> str:
    if ours is None:
        return "-"
    return f"{ours - theirs:+,.0f}" if theirs >= 2 else f"{ours - theirs:+.4f}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def markdown(rows: Iterable[Row]) -> str:
    """The same table in Markdown."""
    lines = [
        "| run | parameters | accuracy | val accuracy | epochs | evaluation | time |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for item in rows:
        shown = [cell.plain for cell in cells(item)]
        lines.append(_markdown_line(shown + [""] * (7 - len(shown))))
        if item.published and item.status == "completed":
            lines += [
                _markdown_line([c.plain.strip() for c in line]) for line in _published_lines(item)
            ]
    return "\n".join(lines) + "\n"


def _markdown_line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def load(folders: Iterable[Path]) -> list[Row]:
    """Rows of the runs in these folders."""
    return [row(Run.open(folder)) for folder in folders]
