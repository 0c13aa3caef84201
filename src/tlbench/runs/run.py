"""One run's folder, read back: held against the checksums in its manifest."""

import contextlib
import fcntl
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from tlbench.base import files
from tlbench.base.errors import ConfigError, RunError
from tlbench.config import checks, migrations, words
from tlbench.config.schema import Config, unlike
from tlbench.runs import layout, manifest, multilabel, records
from tlbench.runs.manifest import Manifest

METRICS_BYTES = 2**24  # no run of ours comes near


@dataclass(repr=False)
class Run:
    """A run's folder and its manifest."""

    folder: Path
    manifest: Manifest

    def __repr__(self) -> str:
        """Where it is and what became of it: the manifest is for those who ask for it."""
        accuracy = None
        with contextlib.suppress(RunError):
            accuracy = self.metrics.get("evaluation")
        figure = f", test accuracy {accuracy:.4f}" if isinstance(accuracy, float) else ""
        return f"Run('{self.folder}', {self.status}{figure})"

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read a run's manifest. Raises RunError when the folder is no run, damaged or of a newer version."""
        return cls(folder, manifest.read(folder))

    @classmethod
    def finished(cls, folder: Path) -> Self:
        """A run whose model is there, whole. Raises RunError when it is under way, failed or damaged."""
        run = cls.open(folder)
        if run.killed:
            raise RunError(f"{folder} was killed. Go on with: {resume_command(folder)}")
        if run.status == "running":
            raise RunError(f"{folder} is still running. Wait until it is completed.")
        if run.status != "completed":
            reason = run.manifest.get("reason", "no reason was recorded")
            if run.status == "interrupted":
                raise RunError(f"{folder} was interrupted. Go on with: {resume_command(folder)}")
            raise RunError(f"{folder} {run.status} and has no finished model: {reason}")
        if not run.class_names:
            raise RunError(f"{folder / layout.MANIFEST} is damaged (no class names).")
        run.file(layout.MODEL)
        return run

    @property
    def status(self) -> str:
        """running, completed, failed or interrupted."""
        return self.manifest["status"]

    @property
    def killed(self) -> bool:
        """Whether the run ended without a word: it says that it is running, and no process does."""
        return self.status == "running" and not self._held_elsewhere()

    @property
    def extension(self) -> dict[str, Any]:
        """More epochs of a completed run that are not completed: epochs, status, reason; else empty."""
        return self.manifest.get("extension", {})

    @property
    def model(self) -> Path:
        """The trained classifier, a Keras file."""
        return self._place(layout.MODEL)

    @property
    def class_names(self) -> list[str]:
        """The classes in label order; empty before the data is known."""
        return self.manifest.get("data", {}).get("class_names", [])

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds; empty before the run is evaluated."""
        if layout.METRICS not in self.manifest.get("files", {}):
            return {}
        path = self.file(layout.METRICS)
        try:
            found = files.read_json(path, METRICS_BYTES)
        except (OSError, ValueError) as error:
            raise RunError(f"{path} is damaged ({error}).") from error
        if not isinstance(found, dict):
            raise RunError(f"{path} is damaged (it holds no figures).")
        return found

    @property
    def history(self) -> Any:
        """An entry an epoch: stage, epoch, losses and accuracies. A DataFrame where pandas is installed, else
        a dict of arrays."""
        epochs = self.epochs()
        columns = {key: [epoch.get(key, math.nan) for epoch in epochs] for key in epochs[0]}
        return records.as_table(columns)

    @property
    def predictions(self) -> Any:
        """The test images in their order: `path` where they have one, `true`, `predicted`, `confidence` and a
        probability for each class. A DataFrame where pandas is installed, else a dict of arrays.
        """
        files = self.files.get("test")
        paths = {} if files is None else {"path": files}
        found = records.named(*self.tested(), self.class_names, self.thresholds)
        return records.as_table({**paths, **found})

    @property
    def files(self) -> dict[str, list[str]]:
        """The paths of the images that the run was made from, by split; empty where they have none."""
        if layout.SPLIT_FILES not in self.manifest.get("files", {}):
            return {}
        return records.split_files(self.file(layout.SPLIT_FILES))

    def epochs(self) -> list[records.Epoch]:
        """history.csv, a record an epoch."""
        return records.epochs(self.file(layout.HISTORY))

    def tested(self) -> tuple[np.ndarray, np.ndarray]:
        """predictions.npz: labels and the probabilities given, as `runs/metrics` has them."""
        return records.predictions(self.file(layout.PREDICTIONS))

    @property
    def thresholds(self) -> np.ndarray | None:
        """From which probability on an image has each class, (classes,); None where an image has one class."""
        try:
            return multilabel.chosen(self.metrics, self.class_names)
        except (TypeError, KeyError, ValueError) as error:
            raise RunError(f"{self.folder / layout.METRICS} is damaged (no thresholds).") from error

    @property
    def image_ids(self) -> dict[str, np.ndarray]:
        """Digests of the images that the run was made from, by split; empty before it has read its data."""
        if layout.IMAGES not in self.manifest.get("files", {}):
            return {}
        return records.image_ids(self.file(layout.IMAGES))

    def file(self, name: str) -> Path:
        """A file that the run wrote, held against its SHA-256. Raises RunError when it is missing or another."""
        path, recorded = self._place(name), self.manifest.get("files", {}).get(name)
        try:
            # The size first: what somebody else put there may be endless.
            size = recorded.get("bytes") if isinstance(recorded, dict) else None
            if path.stat().st_size == size and files.file_facts(path) == recorded:
                return path
        except FileNotFoundError:
            raise RunError(f"{self.folder} has no {name}.") from None
        except OSError as error:
            raise RunError(f"{path} cannot be read ({error.strerror}).") from error
        raise RunError(f"{path} is damaged: it is not what the run wrote. Put it back.")

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What config.yaml holds, under today's names. Raises RunError when it is damaged."""
        try:
            tree = checks.read(self.file(layout.CONFIG))
        except ConfigError as error:
            raise RunError(str(error)) from error
        return migrations.migrated(tree, self.manifest["format"])

    def config(self) -> Config:
        """The resolved configuration. Raises RunError when another version of tlbench wrote it."""
        if odd := unlike(self.settings):
            version = self.manifest.get("versions", {}).get("tlbench", "unknown")
            raise RunError(
                f"{self.folder} was written by another version of tlbench ({version}): {odd}. "
                "Go on with that version, or train anew."
            )
        try:
            return checks.load(dict(self.settings))
        except ConfigError as error:
            raise RunError(f"{self.folder / layout.CONFIG} is damaged ({error}).") from error

    def _place(self, name: str) -> Path:
        """Where a file of the run lies, be it that a publication was killed before it moved it."""
        new = self.folder / layout.NEW / name
        return new if self.manifest.get("moving") and new.exists() else self.folder / name

    def _held_elsewhere(self) -> bool:
        """Whether a process trains in the folder."""
        with contextlib.suppress(OSError), files.opened(self.folder / layout.LOCK) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def resume_command(folder: Path) -> str:
    """What to type to go on with a run."""
    with contextlib.suppress(ValueError, OSError):  # OSError: the working folder is gone
        folder = folder.relative_to(Path.cwd())
    return words.command("train", words.setting("resume", folder))
