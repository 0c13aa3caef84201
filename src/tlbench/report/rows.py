"""Results -> rows of a table: chosen, named by what differs, seeds merged. No TensorFlow."""

import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tlbench.base.errors import ConfigError, suggest
from tlbench.base.intervals import wilson
from tlbench.config import names
from tlbench.config.identity import FOLD, SEED, counts
from tlbench.config.words import expanded
from tlbench.runs import metrics, published
from tlbench.runs.results import FIGURES, Result

MORE_IS_BETTER = (
    *("accuracy", "val_accuracy", "evaluation", "balanced_accuracy", "macro_f1"),
    *("mean_average_precision", "micro_f1", "images_per_second"),
)
PATHS = ("data.root", "data.table", "backbone.weights", "features.folder")


@dataclass(frozen=True)
class Row:
    """One line of the table: a run, or runs that differ in their seed or fold only."""

    name: str
    runs: tuple[Result, ...]

    @property
    def first(self) -> Result:
        return self.runs[0]

    @property
    def completed(self) -> bool:
        return self.first.completed

    @cached_property
    def figures(self) -> dict[str, float | None]:
        """Means over the runs, of folds the test accuracy over all their images; None where a run lacks the figure."""
        means = {key: _mean([run.metrics.get(key) for run in self.runs]) for key in FIGURES}
        if self.folds and self.test_images and means["evaluation"] is not None:
            means["evaluation"] = self._right / self.test_images
        return means

    @cached_property
    def spread(self) -> dict[str, float | None]:
        """Standard deviations over the runs (n - 1); None for a single run."""
        return {key: _deviation([run.metrics.get(key) for run in self.runs]) for key in FIGURES}

    @property
    def folds(self) -> bool:
        """Whether the runs are the parts of one cross-validation, each image tested at most once."""
        folds = {run.fold for run in self.runs}
        return None not in folds and len(folds) == len(self.runs)

    @property
    def test_images(self) -> int:
        """All images that the runs were tested on."""
        return sum(int(run.metrics.get("test_images") or 0) for run in self.runs)

    @property
    def _right(self) -> float:
        """How many test images all runs together got right."""
        return sum(r.metrics["evaluation"] * (r.metrics.get("test_images") or 0) for r in self.runs)

    @property
    def count(self) -> str:
        """How many runs: "3 seeds", "5 folds", or "3 runs" where they differ in both, or in neither."""
        if self.folds and len(self.runs) > 1:
            parts, asked = len(self.runs), self.first.settings["data.folds"]
            return f"{parts} folds" if parts == asked else f"{parts} of {asked} folds"
        seeds = {run.settings.get(SEED) for run in self.runs}
        return f"{len(self.runs)} {'seeds' if len(seeds) == len(self.runs) else 'runs'}"

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the test accuracy of a single run, or of the folds' images together."""
        accuracy = self.figures["evaluation"]
        if (len(self.runs) > 1 and not self.folds) or accuracy is None or not self.test_images:
            return None
        return wilson(accuracy, self.test_images)

    @property
    def uneven(self) -> bool:
        """Whether the classes that a run was tested on differ in size."""
        return any(metrics.uneven(run.metrics.get("per_class")) for run in self.runs)

    def verdict(self, tolerance: float) -> list[str] | None:
        """The figures that miss the published row: [] is PASS, None: nothing to compare."""
        row = self.first.published
        if row is None or not all(run.comparable for run in self.runs):
            return None
        return published.misses(self.figures, row, tolerance)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return known[0] if len(set(known)) == 1 else statistics.fmean(known)  # counts stay whole


def _deviation(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) == len(values) > 1 else None


# ---------------------------------------------------------------- choosing


def where(results: Sequence[Result], conditions: Iterable[str]) -> list[Result]:
    """The runs with these settings: `backbone=resnet50`, `epochs=5`, `status=failed`."""
    kept = list(results)
    keys = {key for result in results for key in result.settings}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals:
            raise ConfigError(f"--where {condition} is not valid. Expected key=value.")
        if name == "status":
            kept = [result for result in kept if result.status == value]
            continue
        key = next((k for k in (name, f"{name}.name", f"{name}.label") if k in keys), None)
        if key is None:
            groups = {k.rpartition(".")[0] for k in keys if k.endswith((".name", ".label"))}
            options = {*keys, *groups, "status"}
            near = [k for k in options if k.rpartition(".")[2] == name] or options
            raise ConfigError(f"Unknown --where key '{name}'. {suggest(name, near)}")
        kept = [r for r in kept if key in r.settings and _fits(r.settings, key, value)]
    return kept


def _fits(settings: Mapping[str, Any], key: str, typed: str) -> bool:
    """Whether a setting is what was typed: a path wherever it begins, a name as the table shows it too."""
    setting = settings[key]
    if key in PATHS and setting is not None and typed:
        return os.path.realpath(str(setting)) == os.path.realpath(expanded(typed))
    called = {"backbone.name": names.backbone, "data.name": names.data}.get(key)
    return _equal(setting, typed) or (called is not None and _equal(called(settings), typed))


def _equal(setting: Any, typed: str) -> bool:
    """Whether a setting is what was typed; 0.001 and 1e-3 are equal, Adam and adam."""
    if setting is None:
        return typed.lower() in ("null", "none", "")
    if isinstance(setting, int | float) and not isinstance(setting, bool):
        try:
            return float(typed) == setting
        except ValueError:
            return False
    return str(setting).replace(" ", "").casefold() == typed.replace(" ", "").casefold()


def ordered(rows: Sequence[Row], column: str, *, reverse: bool = False) -> list[Row]:
    """Rows by a figure, the best first, or by name; rows without the figure are last."""
    if column == "run":
        return sorted(rows, key=lambda row: row.name.casefold(), reverse=reverse)
    known = [row for row in rows if row.figures[column] is not None]
    downwards = (column in MORE_IS_BETTER) != reverse
    known.sort(key=lambda row: row.figures[column] or 0.0, reverse=downwards)
    return known + [row for row in rows if row.figures[column] is None]


# ---------------------------------------------------------------- naming and merging

# The settings that tell runs of one name apart, the most telling first; others follow by name.
TELLING = (
    *("head.name", "data.name", "trainable", "strategy.name", "backbone.weights"),
    *("backbone.image_size", "epochs", "optimizer.name", "learning_rate", "augment.name"),
    *("schedule.name", "batch_size", "data.limit", "head.widths", "backbone.arguments.alpha"),
    *("augment.shift", "precision"),
)
BARE = ("head.name", "data.name")  # values that say by themselves what they are


def rows(results: Sequence[Result], *, merge: bool = True) -> list[Row]:
    """Runs -> rows with telling names; merge: completed runs that differ in seed or fold become one."""
    groups: dict[Any, list[Result]] = {}
    for i, result in enumerate(results):
        own = (i,) if not (merge and result.completed) else ()
        groups.setdefault((result.identity, *own), []).append(result)
    members = [tuple(group) for group in groups.values()]
    called = _names([group[0] for group in members], seeds=not merge)
    made = [Row(name, group) for name, group in zip(called, members, strict=True)]
    return [row for row in made if row.completed] + [row for row in made if not row.completed]


def _names(results: Sequence[Result], *, seeds: bool) -> list[str]:
    """The label or backbone, then what is not the same in all, then what differs within a name.

    seeds: whether a seed may be a part of a name. Unfinished runs may share a name: their line
    shows the folder.
    """
    words = [[_stem(result)] for result in results]
    readable = [result for result in results if result.settings]
    for key in BARE:
        called = {id(r): _called(r, key, readable) for r in readable}
        if len(set(called.values())) > 1:
            for result, name in zip(results, words, strict=True):
                implied = result.published and (result.comparable or key == "head.name")
                if result.settings and not implied:
                    name.append(called[id(result)])
    finished = [i for i, result in enumerate(results) if result.completed]
    _tell_apart([(results[i], words[i]) for i in finished], seeds=seeds)
    return [" ".join(name) for name in words]


def _stem(result: Result) -> str:
    if not result.settings:
        return result.folder.name
    if result.published:
        return str(result.published["label"])
    return names.backbone(result.settings)


def _called(result: Result, key: str, results: Sequence[Result]) -> str:
    """What says a value that is bare in a name: of data its folder, and the one above where that alone tells."""
    if key != "data.name":
        return str(result.settings.get(key))
    name, place = names.data(result.settings), _place(result)
    for other in results:
        elsewhere = _place(other) != place and names.data(other.settings) == name
        if elsewhere and _contents(other) != _contents(result):
            return "/".join(Path(place).parts[-2:])
    return name


def _place(result: Result) -> str:
    """Where the pictures of a run lie."""
    return str(result.settings.get("data.table") or result.settings.get("data.root") or "")


def _contents(result: Result) -> str | None:
    """A digest of them; older runs tell only that of them and their split."""
    return result.data.get("contents") or result.data.get("fingerprint")


def _tell_apart(named: Sequence[tuple[Result, list[str]]], *, seeds: bool) -> None:
    """Add to names that are alike the setting that parts them best, until none are alike."""
    alike: dict[str, list[tuple[Result, list[str]]]] = {}
    for result, name in named:
        alike.setdefault(" ".join(name), []).append((result, name))
    for group in alike.values():
        if len(group) == 1:
            continue
        key = _telling([result for result, _ in group], seeds=seeds)
        for result, name in group:
            value = result.settings.get(key) if key else None
            name.append(_phrase(key, value) if key else f"({result.folder.name})")
        if key:
            _tell_apart(group, seeds=seeds)


def _telling(results: Sequence[Result], *, seeds: bool) -> str | None:
    """The setting with the most different values among the telling ones, else among the rest."""
    keys = {key for result in results for key in result.settings}
    # Where two data sets lie may be all that a reader knows them by.
    silent = {key for key in keys if not counts(key) and key not in ("data.root", "data.table")}
    rest = sorted(keys - set(TELLING) - silent - {SEED, FOLD})
    for options in (TELLING, rest, [SEED, FOLD] if seeds else []):
        values = {key: {str(r.settings.get(key)) for r in results} for key in options}
        best = max(options, key=lambda key: len(values[key]), default=None)
        if best and len(values[best]) > 1:
            return best
    return None


def _phrase(key: str, value: Any) -> str:
    if key == "trainable" and isinstance(value, bool):
        return "all layers" if value else "head only"
    if key in BARE:
        return str(value)
    short = key.removesuffix(".name").rpartition(".")[2]
    if value is None or isinstance(value, bool):
        value = "null" if value is None else str(value).lower()
    return f"{short}={value}".replace(", ", ",")
