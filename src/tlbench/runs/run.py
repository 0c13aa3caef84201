"""One run's folder: what is written there, whole or not at all, and how it is read back."""

import contextlib
import fcntl
import logging
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tlbench.base import files
from tlbench.base.errors import ConfigError, RunError
from tlbench.config import checks, migrations, words
from tlbench.config.schema import Config
from tlbench.runs import manifest
from tlbench.runs.manifest import Manifest

RESULTS = (
    *("config.yaml", "images.npz", "history.csv", "metrics.json", "model.keras"),
    "predictions.npz",
)
METRICS_BYTES = 2**24  # no run of ours comes near

log = logging.getLogger("tlbench")


@dataclass
class Run:
    """A run folder. As a context it is `running`, and `completed` or `failed` when the block ends.

    Results are written to `new`, and become the run's own when the manifest names them: one rename
    decides, so a completed run stays as it is until an extension of it is completed. The files are
    moved to their places after that; a move that was killed is made again.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def start(cls, folder: Path, cfg: Config, command: str, facts: Mapping[str, object]) -> "Run":
        """Take a folder for a new run. Raises RunError when it holds one, or cannot be written."""
        if (folder / manifest.NAME).exists():
            raise RunError(
                f"{folder} holds a run already. Choose another folder: hydra.run.dir=..."
            )
        run = cls(folder, manifest.begun(command, cfg.config_hash, facts))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            run._lock()
            files.write_text(folder / "config.yaml", cfg.to_yaml())
            run.record(files=run._written())
        except OSError as error:
            raise RunError(
                f"{_unwritable(error, folder)} Choose another folder: hydra.run.dir=..."
            ) from error
        return run

    def resume(self, cfg: Config, command: str, facts: Mapping[str, Any]) -> "Run":
        """Take this run up again. Raises RunError when its images or first weights are others now."""
        for part, key, way_on in (
            ("data", "fingerprint", "Put the images back as they were, or set data.root to them"),
            ("weights", "sha256", "Give the file that it began with: backbone.weights=..."),
        ):
            before, now = (
                str(kept.get(key)) for kept in (self.manifest.get(part, {}), facts[part])
            )
            if before != now:
                raise RunError(
                    f"{self.folder} cannot go on: its {part} changed ({key} {before[:16]} then, "
                    f"{now[:16]} now). {way_on}. Or train anew."
                )
        try:
            self._lock()
            self._take_up(cfg, command)
        except OSError as error:
            raise RunError(
                f"{_unwritable(error, self.folder)} A run goes on in its own folder."
            ) from error
        return self

    def _take_up(self, cfg: Config, command: str) -> None:
        files.write_text(self.new / "config.yaml", cfg.to_yaml())
        resumed = [*self.manifest.get("resumed", []), {"at": manifest.now(), "command": command}]
        if self.status == "completed":
            asked = {"epochs": cfg.epochs, "config_hash": cfg.config_hash}
            self.record(resumed=resumed, extension={"status": "running", **asked})
        else:
            self.manifest.pop("reason", None)
            self._publish(status="running", resumed=resumed, config_hash=cfg.config_hash)

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read a run's manifest. Raises RunError when the folder is no run, damaged or of a newer version."""
        return cls(folder, manifest.read(folder))

    @classmethod
    def finished(cls, folder: Path) -> "Run":
        """A run whose model is there, whole. Raises RunError when it is under way, failed or damaged."""
        run = cls.open(folder)
        if run.killed:
            raise RunError(f"{folder} was killed. Go on with: {resume_command(folder)}")
        if run.status == "running":
            raise RunError(f"{folder} is still running. Wait until it is completed.")
        if run.status != "completed":
            reason = run.manifest.get("reason", "no reason was recorded")
            raise RunError(f"{folder} {run.status} and has no finished model: {reason}")
        if not run.class_names:
            raise RunError(f"{folder / manifest.NAME} is damaged (no class names).")
        run.file("model.keras")
        return run

    @property
    def status(self) -> str:
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
    def new(self) -> Path:
        """The folder for results that are not the run's own yet."""
        folder = self.folder / ".new"
        if folder.is_symlink():  # of a run from elsewhere: it could lead anywhere
            folder.unlink()
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def model(self) -> Path:
        """The trained classifier, a Keras file."""
        return self._place("model.keras")

    @property
    def class_names(self) -> list[str]:
        """The classes in label order; empty before the data is known."""
        return self.manifest.get("data", {}).get("class_names", [])

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

    def config(self) -> Config:
        """The resolved configuration. Raises RunError when another version of tlbench wrote it."""
        path, tree = self._settings()
        if odd := migrations.compare(tree):
            raise RunError(
                f"{self._written_elsewhere}: {odd}. Go on with that version, or train anew."
            )
        return _checked(path, tree)

    def config_for_reading(self) -> Config:
        """The resolved configuration; what another version's lacks is as this version has it."""
        path, tree = self._settings()
        if not migrations.compare(tree):
            return _checked(path, tree)
        from tlbench.cli import hydra

        tree, odd = migrations.completed(tree, hydra.defaults())
        decisive = [f"{key}={value}" for key, value in odd.lacking.items() if key[:5] == "data."]
        if decisive:
            log.warning("%s; taken as here: %s", self._written_elsewhere, ", ".join(decisive))
        return _checked(path, tree)

    def _settings(self) -> tuple[Path, dict[str, Any]]:
        path = self.file("config.yaml")
        try:
            return path, checks.read(path)
        except ConfigError as error:
            raise RunError(str(error)) from error

    @property
    def _written_elsewhere(self) -> str:
        version = self.manifest.get("versions", {}).get("tlbench", "unknown")
        return f"{self.folder} was written by another version of tlbench ({version})"

    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds; empty before the run is evaluated."""
        if "metrics.json" not in self.manifest.get("files", {}):
            return {}
        path = self.file("metrics.json")
        try:
            found = files.read_json(path, METRICS_BYTES)
        except (OSError, ValueError) as error:
            raise RunError(f"{path} is damaged ({error}).") from error
        if not isinstance(found, dict):
            raise RunError(f"{path} is damaged (it holds no figures).")
        return found

    def complete(self) -> None:
        """Record that the run ended well, and what its files hold."""
        extension = self.manifest.pop("extension", {})
        config_hash = extension.get("config_hash", self.manifest.get("config_hash"))
        self._publish(status="completed", finished=manifest.now(), config_hash=config_hash)

    def record(self, **facts: object) -> None:
        """Add facts to the manifest."""
        self.manifest.update(facts)
        manifest.write(self.folder, self.manifest)

    def _publish(self, **facts: object) -> None:
        """Make what lies in `new` the run's own, together with the facts."""
        self.record(**facts, files=self._written(), moving=True)
        self._settle()

    def _settle(self) -> None:
        """Finish what a publication began: its files go to their places. Other new ones are dropped."""
        if self.manifest.get("moving"):
            for path in sorted(self.new.rglob("*")):
                place = self.folder / path.relative_to(self.new)
                if path.is_dir():
                    files.own_folder(place)
                elif not path.name.startswith(files.TEMPORARY):
                    path.replace(place)
        shutil.rmtree(self.new)
        if self.manifest.pop("moving", False):
            self.record()

    def _place(self, name: str) -> Path:
        """Where a file of the run lies, be it that a publication was killed before it moved it."""
        new = self.folder / ".new" / name
        return new if self.manifest.get("moving") and new.exists() else self.folder / name

    def _written(self) -> dict[str, object]:
        """What each file of RESULTS holds, the new one where there is one."""
        found: dict[str, object] = {}
        for name in RESULTS:
            for path in (self.folder / name, self.new / name):
                if path.is_file():
                    found[name] = files.file_facts(path)
        return found

    def _lock(self) -> None:
        """Keep every other process out of the folder for the life of this one, and tidy it up."""
        self._held = files.append(self.folder / ".lock")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._held.seek(0)
            holder = " ".join(self._held.read(200).split())
            raise RunError(f"{self.folder} is in use by {holder}.") from None
        self._held.truncate(0)
        self._held.write(f"process {os.getpid()} on {platform.node()}")
        self._held.flush()
        self._said = files.append(self.folder / "train.log")
        for name in ("checkpoint", "plots"):
            files.refuse_link(self.folder / name)
            files.remove_temporaries(self.folder / name)
        self._settle()
        files.remove_temporaries(self.folder)

    def _held_elsewhere(self) -> bool:
        """Whether a process trains in the folder."""
        with contextlib.suppress(OSError), files.opened(self.folder / ".lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def __enter__(self) -> Self:
        self._logger = logging.StreamHandler(self._said)
        self._logger.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(self._logger)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.complete()
        else:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            reason = " ".join(str(error).split()) or type(error).__name__
            if status == "failed":
                log.debug("%s", reason, exc_info=error)
            else:
                log.debug("Interrupted by %s", reason)
            with contextlib.suppress(OSError):  # the error itself is what the user has to see
                self._record_end(status, reason)
        log.removeHandler(self._logger)
        self._said.close()
        self._held.close()

    def _record_end(self, status: str, reason: str) -> None:
        """Why the run, or the extension of a completed one, did not end well."""
        if self.status == "completed":
            self.record(extension={**self.extension, "status": status, "reason": reason})
        else:
            self.record(status=status, reason=reason, finished=manifest.now())


def _checked(path: Path, tree: dict[str, Any]) -> Config:
    try:
        return checks.load(tree)
    except ConfigError as error:
        raise RunError(f"{path} is damaged ({error}).") from error


def _unwritable(error: OSError, folder: Path) -> str:
    return f"{error.filename or folder} cannot be written ({error.strerror})."


def resume_command(folder: Path) -> str:
    """What to type to go on with a run."""
    with contextlib.suppress(ValueError, OSError):  # OSError: the working folder is gone
        folder = folder.relative_to(Path.cwd())
    return words.command("train", words.setting("resume", folder))
