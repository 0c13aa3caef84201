"""What run folders hold, read leniently: one that cannot be read is a result too. No TensorFlow."""

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from tlbench.base import console
from tlbench.base.errors import ConfigError, RunError
from tlbench.config import checks
from tlbench.config.schema import counts
from tlbench.runs import manifest
from tlbench.runs.run import Run, resume_command

# What a row shows of its runs. All but `size` (bytes of model.keras) stand in metrics.json.
FIGURES = (
    *("parameters", "accuracy", "val_accuracy", "epochs", "evaluation"),
    *("features_seconds", "training_seconds", "evaluation_seconds", "images_per_second"),
    *("latency_ms", "size"),
)
PUBLISHED = FIGURES[:5]
MOST = 1e15  # of a figure; what is beyond is none
LONGEST = 500  # characters of a reason
SPLITS = {"train": 45_000, "validation": 5_000, "test": 10_000}  # of the report


@dataclass(frozen=True)
class Result:
    """One run as it was found: figures and settings are empty where the run has none."""

    folder: Path
    status: str  # completed, running, failed, interrupted, killed, or damaged: it cannot be read
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

    def tested_like(self, other: "Result") -> bool:
        """Whether both were tested on the same images; older runs tell only their whole data."""
        for key in ("test_sha256", "fingerprint"):
            ours, theirs = self.data.get(key), other.data.get(key)
            if ours and theirs:
                return bool(ours == theirs)
        return False

    @property
    def identity(self) -> str:
        """Equal for runs that differ in their seed only."""
        chosen = {
            key: value for key, value in self.settings.items() if key != "seed" and counts(key)
        }
        return json.dumps([chosen, self.data.get("fingerprint")], sort_keys=True, default=str)

    @property
    def published(self) -> dict[str, Any] | None:
        """The published row that stands beside this run's configuration, if one does."""
        keys = ("label", *PUBLISHED)
        found = {key: self.settings.get(f"published.{key}") for key in keys}
        whole = found["label"] is not None and all(is_number(found[key]) for key in PUBLISHED)
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


def collect(paths: Sequence[Path]) -> list[Result]:
    """Every run at or below the paths. Raises RunError when a path or any run is not there."""
    for path in paths:
        if not path.is_dir():
            what = "is no folder" if path.exists() else "does not exist"
            raise RunError(f"{path} {what}. Give run folders, or folders that hold them.")
    folders = find(paths)
    if not folders:
        shown = ", ".join(map(str, paths))
        raise RunError(f"No run in {shown}. `tlbench train` makes one.")
    return [read(folder) for folder in folders]


def find(paths: Iterable[Path]) -> list[Path]:
    """The folders at or below the paths that hold a manifest, each once, in the order of their names.

    What lies within a run is not looked at, and links to folders are not followed.
    """
    found: dict[Path, Path] = {}
    waiting = list(paths)
    while waiting:  # no recursion: folders can be nested deeper than calls
        folder = waiting.pop()
        if os.path.lexists(folder / manifest.NAME):
            found.setdefault(Path(os.path.realpath(folder)), folder)
            continue
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            waiting += [
                Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)
            ]
    return sorted(found.values(), key=natural)


def natural(path: Path) -> list[tuple[int, int | str]]:
    """Sorts job 10 of a sweep after job 9."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in path.parts]


def read(folder: Path) -> Result:
    """A run as it is; one that cannot be read is `damaged`, with the reason."""
    try:
        run = Run.open(folder)
        settings = _settings(run)
        metrics = _metrics(run) if run.status == "completed" else {}
    except RunError as error:
        return Result(folder, "damaged", console.printable(error)[:LONGEST])
    status = "killed" if run.killed else run.status
    reason = console.printable(_reason(run, status))[:LONGEST]
    return Result(folder, status, reason, settings, run.manifest, metrics)


def _reason(run: Run, status: str) -> str:
    """Why a run has no figures yet, or a completed one not those of its extension."""
    if status == "killed":
        return f"go on with: {resume_command(run.folder)}"
    if status == "running":
        return f"started {str(run.manifest.get('started', '?'))[:16].replace('T', ' ')}"
    if run.extension:
        return (
            f"its extension to {run.extension['epochs']} epochs is not completed: "
            f"{resume_command(run.folder)}"
        )
    return " ".join(str(run.manifest.get("reason") or "").split())


def _settings(run: Run) -> dict[str, Any]:
    """config.yaml as dotted keys; not held against the schema: runs of old stay readable."""
    try:
        settings = flatten(checks.read(run.file("config.yaml")))
    except ConfigError as error:
        raise RunError(str(error)) from None
    if not isinstance(settings.get("seed"), int | None):
        raise RunError(f"{run.folder / 'config.yaml'} is damaged (seed is no number).")
    return settings


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
    found = run.metrics()
    if not found:
        raise RunError(f"{run.folder} is a completed run without metrics.json.")
    for key in (*FIGURES, "test_images"):
        if found.get(key) is not None and not is_number(found[key]):
            raise RunError(f"{path} is damaged ({key} is no number).")
    if not 0 <= (found.get("evaluation") or 0) <= 1:
        raise RunError(f"{path} is damaged (evaluation is no share).")
    if (found.get("test_images") or 1) < 1:
        raise RunError(f"{path} is damaged (test_images is no count).")
    return {**found, "size": run.model.stat().st_size if run.model.is_file() else None}


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a figure that a table or a chart can show."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST
