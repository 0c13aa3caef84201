"""tlbench from Python: what a notebook or a script calls. It leaves its host as it was, and is silent unless asked."""

import contextlib
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlbench.base import console, logs
from tlbench.base.errors import ConfigError, RunError
from tlbench.config import names
from tlbench.config.compose import compose
from tlbench.config.identity import flat
from tlbench.config.schema import Config
from tlbench.report import comparison, rows, tables
from tlbench.report.comparison import Comparison, Pair
from tlbench.runs import records
from tlbench.runs import results as found
from tlbench.runs.results import Result
from tlbench.runs.run import Run

if TYPE_CHECKING:
    from tlbench.data.sources import Contents
    from tlbench.inference.loaded import Loaded


def train(
    *settings: str | Config,
    folder: str | Path | None = None,
    images: Any = None,
    labels: Sequence[Any] | None = None,
    table: Mapping[str, Iterable[Any]] | None = None,
    progress: bool | None = None,
) -> Run:
    """Train what would be typed after `tlbench train`, or what `compose` has composed.

    folder: of the run; None: one of its own in outputs/. images, labels: own data without files, arrays of (images,
    height, width, 3) with values 0-255, or paths, and a label for each; with task=multilabel the names of its classes,
    or an array of 0 and 1. table: a DataFrame, or lists by their names, in the place of data.table: paths begin in
    data.root, or where the program runs. progress: whether lines and bars are shown; None: in a notebook. Ctrl-C, or
    interrupting the kernel, saves a checkpoint: `train(f"resume={folder}")` goes on. Raises TlbenchError, whose message
    says how to mend what is wrong.
    """
    if (images is None) != (labels is None):
        raise ConfigError(
            "Images need labels, and labels images. Give both: images=..., labels=..."
        )
    if table is not None and images is not None:
        raise ConfigError("Images come from a table, or by themselves. Give one of them.")
    own_data: list[str] = []
    if table is not None:
        own_data = ["data=table", "data.table=DataFrame"]
    elif images is not None:
        own_data = ["data=given"]
    with _shown(progress), _host_kept():
        cfg = _configuration((*own_data, *settings))
        from tlbench.cli import signals

        with signals.interrupts_heard():
            return _trained(cfg, settings, folder, partial(_contents, images, labels, table))


def _configuration(settings: Sequence[str | Config]) -> Config:
    composed = [setting for setting in settings if isinstance(setting, Config)]
    if not composed:
        return compose([str(setting) for setting in settings])
    if len(settings) > 1:
        raise ConfigError("A composed configuration stands alone: compose it from all settings.")
    return composed[0]


def _trained(
    cfg: Config,
    settings: Sequence[str | Config],
    folder: str | Path | None,
    own: "Callable[[Config], Contents | None]",
) -> Run:
    from tlbench.training import resuming
    from tlbench.training import train as training
    from tlbench.training.recipes import Recipe

    typed = [setting for setting in settings if isinstance(setting, str)]
    command = f"tlbench.train({', '.join(map(repr, typed))})"
    plan = resuming.plan(cfg, typed) if cfg.resume is not None else None
    cfg = plan.cfg if plan else cfg
    if plan is None:
        recipe = Recipe(typed, compose) if typed else None
        return training.train(cfg, _folder(folder, cfg), command, own(cfg), recipe)
    return plan.run if plan.done else training.go_on(plan, command, own(cfg))


def _contents(
    images: Any,
    labels: Sequence[Any] | None,
    table: Mapping[str, Iterable[Any]] | None,
    cfg: Config,
) -> "Contents | None":
    """What was given in Python, as a source would have read it; None where nothing was."""
    from tlbench.data.resize import Resize
    from tlbench.data.sources import given
    from tlbench.data.sources.table import given as of_table

    if table is not None:
        return of_table(table, cfg.data, Resize.of(cfg))
    return None if labels is None else given.contents(images, labels, cfg.data, Resize.of(cfg))


def _folder(asked: str | Path | None, cfg: Config) -> Path:
    if asked is not None:
        return Path(asked).absolute()
    return _claimed(names.folder(flat(asdict(cfg))))


def _claimed(name: str) -> Path:
    """A new folder in outputs/, its name beginning with the time."""
    from tlbench.sweep import folders

    return folders.claimed(Path("outputs") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}")


def load(folder: str | Path, device: str = "auto") -> "Loaded":
    """A finished run's classifier: `.predict(images)`, and `.keras`, the Keras model.

    device: "auto", "cpu" or "gpu". Raises RunError where there is no finished run, or its model cannot be loaded.
    """
    from tlbench.inference import loaded

    with _host_kept():
        return loaded.load(Run.finished(Path(folder)), device)


# ---------------------------------------------------------------- which backbone


class Benched(list[Any]):
    """The rows of a bench: a list of them, and a table; folder: where bench.html lies."""

    folder: Path

    def table(self) -> Any:
        """A row for each backbone and for what zero looks like, as bench.csv has it.

        A DataFrame where pandas is installed, else a dict of lists.
        """
        from tlbench.bench import rows

        found = [rows.record(row) for row in self]
        names = list(dict.fromkeys(name for each in found for name in each))
        return records.as_table({name: [each.get(name) for each in found] for name in names})

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from tlbench.bench import page

        return page.tables(self)


def bench(
    *settings: str,
    backbones: Sequence[str] = (),
    data: Sequence[str] = (),
    folder: str | Path | None = None,
    seconds: float = float("inf"),
    progress: bool | None = None,
) -> Benched:
    """Compare backbones on data sets as `tlbench bench` does; names are those of conf/backbone and conf/data.

    settings: words as for `train` or of conf/bench.yaml; folder: what it holds is not measured again, None: a new
    one in outputs/; seconds: after which nothing more is begun. Raises TlbenchError.
    """
    groups = {"backbone": backbones, "data": data}
    named = [f"{group}={','.join(names)}" for group, names in groups.items() if names]
    with _shown(progress), _host_kept():
        from tlbench.bench import entries
        from tlbench.bench import settings as own
        from tlbench.bench.bench import bench as measure
        from tlbench.bench.written import write
        from tlbench.cli import signals

        chosen = own.load([word for word in settings if word.startswith(own.PREFIX)])
        words = [*named, *(word for word in settings if not word.startswith(own.PREFIX))]
        compared = entries.entries(words, chosen, None)
        place = Path(folder).absolute() if folder else _claimed("bench")
        with signals.interrupts_heard():
            cells = measure(compared, chosen, place, seconds)
        found = Benched(
            write(cells, compared, place, f"tlbench.bench({', '.join(map(repr, words))})")
        )
        found.folder = place
        return found


# ---------------------------------------------------------------- many runs


class Results(list[Result]):
    """Runs as they were found: a list of them, and a table."""

    def table(self) -> Any:
        """A row for each configuration, its seeds together, as `tlbench report` has it.

        A DataFrame where pandas is installed, else a dict of lists.
        """
        return records.as_table(tables.columns(rows.rows(self)))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from tlbench.report import page

        return page.table(rows.rows(self))


def results(*folders: str | Path) -> Results:
    """Every run at or below the folders, outputs/ where none is given. Raises RunError when there is none."""
    return Results(found.collect([Path(folder) for folder in folders or ("outputs",)]))


def compare(a: str | Path, b: str | Path) -> Pair:
    """Two finished runs on the same test images: their accuracies, the interval of the difference, McNemar's p.

    Raises RunError when they were not tested on the same images.
    """
    compared: Comparison = comparison.compare(*(_alone(Path(folder)) for folder in (a, b)))
    return compared.pairs[0]


def _alone(folder: Path) -> rows.Row:
    result = found.read(folder)
    if result.status == "damaged":
        raise RunError(result.reason)
    return rows.Row(str(folder), (result,))


# ---------------------------------------------------------------- the host


@contextlib.contextmanager
def _shown(progress: bool | None) -> Iterator[None]:
    """Lines and bars, as a notebook draws them or on stderr; nothing where they are not asked for."""
    from tlbench.base import notebook

    inside = notebook.is_one()
    if progress is False or (progress is None and not inside):
        yield
        return
    display = notebook.bar if inside else console.terminal
    handler = notebook.Lines(logging.INFO) if inside else console.Lines(logging.INFO)
    with logs.heard_by(handler), console.drawn_on(display):
        yield


@contextlib.contextmanager
def _host_kept() -> Iterator[None]:
    """Python's and NumPy's own random numbers go on as if nothing had been drawn meanwhile."""
    drawn, of_numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(drawn)
        np.random.set_state(of_numpy)
