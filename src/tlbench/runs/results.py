"""What run folders hold, read leniently: one that cannot be read is a result too. No TensorFlow."""

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from tlbench.base.errors import RunError
from tlbench.base.text import printable
from tlbench.config.identity import FOLD, SEED, but_for_repeats, flat
from tlbench.runs import layout, published
from tlbench.runs.run import Run, resume_command

# What a row shows of its runs. All but `size` (bytes of model.keras) stand in metrics.json.
FIGURES = (
    *("parameters", "accuracy", "val_accuracy", "epochs", "evaluation"),
    *("balanced_accuracy", "macro_f1", "mean_average_precision", "micro_f1"),
    *("features_seconds", "training_seconds", "evaluation_seconds", "images_per_second"),
    *("latency_ms", "size"),
)
MOST = 1e15  # of a figure; what is beyond is none
LONGEST = 500  # characters of a reason


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
    def run(self) -> Run:
        """The folder, strictly read. Raises RunError when it is damaged."""
        return Run.open(self.folder)

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
    def fold(self) -> int | None:
        """Which part of the data it was tested on; None where it is no part of a cross-validation."""
        return self.settings.get(FOLD) if self.settings.get("data.folds") else None

    @property
    def identity(self) -> str:
        """Equal for runs that differ in their seed or fold only."""
        data = self.data.get("fingerprint" if self.fold is None else "contents")
        return json.dumps([but_for_repeats(self.settings), data], sort_keys=True, default=str)

    @property
    def published(self) -> dict[str, Any] | None:
        """The published row that stands beside this run's configuration, if one does."""
        row = {key: self.settings.get(f"published.{key}") for key in ("label", *published.FIGURES)}
        figures = all(is_number(row[key]) for key in published.FIGURES)
        return row if row["label"] is not None and figures else None

    @property
    def comparable(self) -> bool:
        """Whether it did what the report did."""
        return self.completed and published.is_task(self.settings, self.data.get("images"))


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
        if os.path.lexists(folder / layout.MANIFEST):
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
        return Result(folder, "damaged", printable(error)[:LONGEST])
    status = "killed" if run.killed else run.status
    reason = printable(_reason(run, status))[:LONGEST]
    return Result(folder, status, reason, settings, run.manifest, metrics)


def _reason(run: Run, status: str) -> str:
    """Why a run has no figures yet, or a completed one not those of its extension."""
    if status in ("killed", "interrupted"):
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
    """The settings by dotted names; not held against the schema: runs of other versions stay readable."""
    settings = flat(dict(run.settings))
    for key in (SEED, FOLD):
        if not isinstance(settings.get(key), int | None):
            raise RunError(f"{run.folder / layout.CONFIG} is damaged ({key} is no number).")
    return settings


def _metrics(run: Run) -> dict[str, Any]:
    """metrics.json with `size` added. Raises RunError when it is missing or holds no figures."""
    path = run.folder / layout.METRICS
    found = run.metrics
    if not found:
        raise RunError(f"{run.folder} is a completed run without {layout.METRICS}.")
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
