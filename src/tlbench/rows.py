"""Run folders -> rows of a table: named by what differs, seeds merged. No TensorFlow."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from tlbench.config import NOT_IDENTITY, suggest
from tlbench.errors import ConfigError, RunError
from tlbench.run import Run, natural

# What a row shows of its runs. All but `size` (bytes of model.keras) stand in metrics.json.
FIGURES = (
    *("parameters", "accuracy", "val_accuracy", "epochs", "evaluation"),
    *("training_seconds", "images_per_second", "size"),
)
PUBLISHED = FIGURES[:5]
MORE_IS_BETTER = ("accuracy", "val_accuracy", "evaluation", "images_per_second")
SPLITS = {"train": 45_000, "validation": 5_000, "test": 10_000}  # of the report


@dataclass(frozen=True)
class Result:
    """One run as it was found: figures and settings are empty where the run has none."""

    folder: Path
    status: str  # completed, running, failed, interrupted, or damaged: it cannot be read
    reason: str = ""
    settings: dict[str, Any] = field(default_factory=dict)  # dotted keys -> values
    manifest: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def completed(self) -> bool:
        return self.status == "completed"

    @property
    def data(self) -> dict[str, Any]:
        """What the manifest says of the data: fingerprint, class_names, images."""
        return self.manifest.get("data", {})

    @property
    def identity(self) -> str:
        """Equal for runs that differ in their seed only."""
        chosen = {
            key: value
            for key, value in self.settings.items()
            if key != "seed" and key.partition(".")[0] not in NOT_IDENTITY
        }
        return json.dumps([chosen, self.data.get("fingerprint")], sort_keys=True, default=str)

    @property
    def published(self) -> dict[str, Any] | None:
        """The published row that stands beside this run's configuration, if one does."""
        keys = ("label", *PUBLISHED)
        found = {key: self.settings.get(f"published.{key}") for key in keys}
        whole = found["label"] is not None and all(_is_number(found[key]) for key in PUBLISHED)
        return found if whole else None

    @property
    def comparable(self) -> bool:
        """Whether it did what the report did: its data and splits, ImageNet weights, 224 pixels."""
        asked = {
            **{"data.name": "cifar100", "data.limit": None, "data.test": None},
            **{"backbone.weights": "imagenet", "backbone.image_size": 224},
        }
        return (
            self.completed
            and all(self.settings.get(key) == value for key, value in asked.items())
            and self.data.get("images", SPLITS) == SPLITS
        )


@dataclass(frozen=True)
class Row:
    """One line of the table: a run, or runs that differ in their seed only."""

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
        """Means over the runs; None where a run lacks the figure."""
        return {key: _mean([run.metrics.get(key) for run in self.runs]) for key in FIGURES}

    @cached_property
    def spread(self) -> dict[str, float | None]:
        """Standard deviations over the runs (n - 1); None for a single run."""
        return {key: _deviation([run.metrics.get(key) for run in self.runs]) for key in FIGURES}

    @property
    def count(self) -> str:
        """How many runs: "3 seeds", or "3 runs" where a seed occurs twice."""
        seeds = {run.settings.get("seed") for run in self.runs}
        return f"{len(self.runs)} {'seeds' if len(seeds) == len(self.runs) else 'runs'}"

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the test accuracy of a single run."""
        images = self.first.metrics.get("test_images")
        accuracy = self.figures["evaluation"]
        if len(self.runs) > 1 or accuracy is None or not images:
            return None
        return wilson(accuracy, int(images))

    def verdict(self, tolerance: float) -> list[str] | None:
        """The figures that miss the published row: [] is PASS, None: nothing to compare."""
        published = self.first.published
        if published is None or not all(run.comparable for run in self.runs):
            return None
        parameters, evaluation = self.figures["parameters"], self.figures["evaluation"]
        misses = [] if parameters == published["parameters"] else ["parameters"]
        if evaluation is None or round(abs(evaluation - published["evaluation"]), 9) > tolerance:
            misses.append("evaluation")
        return misses


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of n trials, 95 % for the z given."""
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


# ---------------------------------------------------------------- reading


def collect(paths: Sequence[Path]) -> list[Result]:
    """Every run at or below the paths. Raises RunError when a path or any run is not there."""
    for path in paths:
        if not path.is_dir():
            what = "is no folder" if path.exists() else "does not exist"
            raise RunError(f"{path} {what}. Give run folders, or folders that hold them.")
    manifests = {m.resolve(): m for path in paths for m in path.rglob("manifest.json")}
    if not manifests:
        shown = ", ".join(map(str, paths))
        raise RunError(f"No run in {shown}. `tlbench train` makes one.")
    return [read(path.parent) for path in sorted(manifests.values(), key=natural)]


def read(folder: Path) -> Result:
    """A run as it is; one that cannot be read is `damaged`, with the reason."""
    try:
        run = Run.open(folder)
        _check_manifest(run)
        settings = _settings(folder)
        metrics = _metrics(run) if run.status == "completed" else {}
    except RunError as error:
        return Result(folder, "damaged", str(error))
    reason = str(run.manifest.get("reason") or "")
    if run.status == "running":
        reason = f"started {str(run.manifest.get('started', '?'))[:16].replace('T', ' ')}"
    return Result(folder, run.status, reason, settings, run.manifest, metrics)


def _check_manifest(run: Run) -> None:
    """Refuse what is not shaped as a run writes it, so that later steps need not doubt it."""
    for key in ("data", "hardware", "versions"):
        if not isinstance(run.manifest.get(key, {}), dict):
            raise RunError(f"{run.folder / 'manifest.json'} is damaged ({key} is no record).")
    data = run.manifest.get("data", {})
    names, images = data.get("class_names", []), data.get("images", {})
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise RunError(f"{run.folder / 'manifest.json'} is damaged (class_names are no names).")
    if not (isinstance(images, dict) and all(map(_is_number, images.values()))):
        raise RunError(f"{run.folder / 'manifest.json'} is damaged (images are no counts).")


def _settings(folder: Path) -> dict[str, Any]:
    """config.yaml as dotted keys; not held against the schema: runs of old stay readable."""
    path = folder / "config.yaml"
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        raise RunError(f"{folder} has no config.yaml.") from None
    except (OSError, ValueError, OmegaConfBaseException, YAMLError) as error:
        raise RunError(f"{path} is damaged ({' '.join(str(error).split())}).") from None
    if not isinstance(tree, dict) or not tree:
        raise RunError(f"{path} is damaged (it holds no settings).")
    return flatten(tree)


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"backbone": {"name": "vgg16"}} -> {"backbone.name": "vgg16"}; list items as [0], [1]."""
    if isinstance(tree, dict) and tree:
        parts = ((f"{prefix}.{key}" if prefix else str(key), value) for key, value in tree.items())
    elif isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        parts = ((f"{prefix}[{i}]", value) for i, value in enumerate(tree))
    else:
        return {prefix: tree}
    return {key: value for part in parts for key, value in flatten(part[1], part[0]).items()}


def _metrics(run: Run) -> dict[str, Any]:
    """metrics.json with `size` added. Raises RunError when it is missing or holds no figures."""
    path = run.folder / "metrics.json"
    try:
        found = run.metrics()
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}).") from None
    if not found:
        raise RunError(f"{run.folder} is a completed run without metrics.json.")
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged (it holds no figures).")
    for key in (*FIGURES, "test_images"):
        if found.get(key) is not None and not _is_number(found[key]):
            raise RunError(f"{path} is damaged ({key} is no number).")
    if not 0 <= (found.get("evaluation") or 0) <= 1:
        raise RunError(f"{path} is damaged (evaluation is no share).")
    model = run.folder / "model.keras"
    return {**found, "size": model.stat().st_size if model.is_file() else None}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


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
        kept = [r for r in kept if key in r.settings and _equal(r.settings[key], value)]
    return kept


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
    *("schedule.name", "batch_size", "data.limit", "head.widths"),
)
BARE = ("head.name", "data.name")  # values that say by themselves what they are


def rows(results: Sequence[Result], *, merge: bool = True) -> list[Row]:
    """Runs -> rows with telling names; merge: completed runs that differ in seed become one."""
    groups: dict[Any, list[Result]] = {}
    for i, result in enumerate(results):
        own = (i,) if not (merge and result.completed) else ()
        groups.setdefault((result.identity, *own), []).append(result)
    members = [tuple(group) for group in groups.values()]
    names = _names([group[0] for group in members], seeds=not merge)
    made = [Row(name, group) for name, group in zip(names, members, strict=True)]
    return [row for row in made if row.completed] + [row for row in made if not row.completed]


def _names(results: Sequence[Result], *, seeds: bool) -> list[str]:
    """The label or backbone, then what is not the same in all, then what differs within a name.

    seeds: whether a seed may be a part of a name. Unfinished runs may share a name: their line
    shows the folder.
    """
    words = [[_stem(result)] for result in results]
    readable = [result for result in results if result.settings]
    for key in BARE:
        if len({str(result.settings.get(key)) for result in readable}) > 1:
            for result, name in zip(results, words, strict=True):
                implied = result.published and (result.comparable or key == "head.name")
                if result.settings and not implied:
                    name.append(str(result.settings.get(key)))
    for alike in _alike(words):
        _tell_apart([results[i] for i in alike], [words[i] for i in alike], seeds=seeds)
    for alike in _alike(words):
        finished = [i for i in alike if results[i].completed]
        for i in finished if len(finished) > 1 else []:
            words[i].append(f"({results[i].folder.name})")
    return [" ".join(name) for name in words]


def _stem(result: Result) -> str:
    if not result.settings:
        return result.folder.name
    if result.published:
        return str(result.published["label"])
    return str(result.settings.get("backbone.name", result.folder.name))


def _alike(words: Sequence[list[str]]) -> list[list[int]]:
    """Positions of names that occur more than once, together."""
    places: dict[str, list[int]] = {}
    for i, name in enumerate(words):
        places.setdefault(" ".join(name), []).append(i)
    return [found for found in places.values() if len(found) > 1]


def _tell_apart(results: Sequence[Result], words: Sequence[list[str]], *, seeds: bool) -> None:
    """Add settings to names, one at a time, until all differ or no setting is left."""
    keys = {key for result in results for key in result.settings}
    silent = {key for key in keys if key.partition(".")[0] in NOT_IDENTITY}
    rest = sorted(keys - set(TELLING) - silent - {"seed"})
    for key in (*TELLING, *rest, *(["seed"] if seeds else [])):
        if len({" ".join(name) for name in words}) == len(words):
            return
        values = [result.settings.get(key) for result in results]
        if len(set(map(str, values))) > 1:
            for name, value in zip(words, values, strict=True):
                name.append(_phrase(key, value))


def _phrase(key: str, value: Any) -> str:
    if key == "trainable" and isinstance(value, bool):
        return "all layers" if value else "head only"
    if key in BARE:
        return str(value)
    short = key.removesuffix(".name").rpartition(".")[2]
    return f"{short}={'null' if value is None else value}".replace(", ", ",")
