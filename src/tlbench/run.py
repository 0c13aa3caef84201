"""One run's folder: what is written there, whole or not at all, and how it is read back."""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from tlbench import validation, words
from tlbench.config import Config
from tlbench.errors import ConfigError, RunError

FORMAT = 1  # of the folder; a newer one is refused by older versions
RESULTS = (
    *("config.yaml", "images.npz", "history.csv", "metrics.json", "model.keras"),
    "predictions.npz",
)
PACKAGES = ("tlbench", "tensorflow", "keras", "numpy", "hydra-core", "omegaconf", "pillow")

log = logging.getLogger("tlbench")


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix, that takes its place when the block ends well."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        # A full disk tells no name, and the temporary one tells nobody anything.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all; NumPy scalars become plain numbers."""
    write_text(path, json.dumps(value, indent=2, default=_plain) + "\n")


def file_facts(path: Path) -> dict[str, object]:
    """SHA-256 and bytes of a file, as a manifest records them."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def checksum(facts: dict[str, Any]) -> str:
    """SHA-256 of what a mapping says as JSON, whatever its order and spacing."""
    text = json.dumps(facts, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class Run:
    """A run folder. As a context it is `running`, and `completed` or `failed` when the block ends."""

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def start(cls, folder: Path, cfg: Config, command: str, facts: Mapping[str, object]) -> "Run":
        """Take a folder for a new run. Raises RunError when it holds one, or cannot be written."""
        if (folder / "manifest.json").exists():
            raise RunError(
                f"{folder} holds a run already. Choose another folder: hydra.run.dir=..."
            )
        manifest = {
            "format": FORMAT,
            "status": "running",
            "command": command,
            "config_hash": cfg.config_hash,
            "started": _now(),
            "versions": _versions(),
            "git_commit": _git_commit(),
            **facts,
        }
        run = cls(folder, manifest)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            run._lock()
            write_text(folder / "config.yaml", cfg.to_yaml())
            run.record(files=run._written())
        except OSError as error:
            raise RunError(
                f"{folder} cannot be written ({error.strerror}). Choose another folder: hydra.run.dir=..."
            ) from error
        return run

    def resume(self, cfg: Config, command: str, facts: Mapping[str, Any]) -> "Run":
        """Take this run up again. Raises RunError when its images or first weights are others now."""
        for part, key in (("data", "fingerprint"), ("weights", "sha256")):
            before, now = self.manifest.get(part, {}).get(key), facts[part][key]
            if before != now:
                raise RunError(
                    f"{self.folder} cannot go on: its {part} changed ({key} {before} then, {now} now)."
                )
        self._lock()
        write_text(self.folder / "config.yaml", cfg.to_yaml())
        self.manifest.pop("reason", None)
        resumed = [*self.manifest.get("resumed", []), {"at": _now(), "command": command}]
        self.record(
            status="running",
            resumed=resumed,
            config_hash=cfg.config_hash,
            files=self._written(),
        )
        return self

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read a run's manifest. Raises RunError when the folder is no run, damaged or of a newer version."""
        path = folder / "manifest.json"
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(manifest, dict) or "status" not in manifest:
                raise ValueError("no status")
        except FileNotFoundError:
            raise RunError(f"{folder} is no run: it has no manifest.json.") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path} is damaged ({error}).") from error
        if manifest.get("format", 0) > FORMAT:
            raise RunError(f"{folder} was written by a newer tlbench; upgrade to read it.")
        if manifest.pop("checksum", None) != checksum(manifest):
            raise RunError(f"{path} is damaged (its checksum is not that of its contents).")
        return cls(folder, manifest)

    @classmethod
    def finished(cls, folder: Path) -> "Run":
        """A run whose model is there, whole. Raises RunError when it is under way, failed or damaged."""
        run = cls.open(folder)
        if run.status == "running" and not run._held_elsewhere():
            raise RunError(f"{folder} was killed. Go on with: {resume_command(folder)}")
        if run.status == "running":
            raise RunError(f"{folder} is still running. Wait until it is completed.")
        if run.status != "completed":
            reason = run.manifest.get("reason", "no reason was recorded")
            raise RunError(f"{folder} {run.status} and has no finished model: {reason}")
        if not run.class_names:
            raise RunError(f"{folder / 'manifest.json'} is damaged (no class names).")
        run.file("model.keras")
        return run

    @property
    def status(self) -> str:
        return self.manifest["status"]

    @property
    def model(self) -> Path:
        """The trained classifier, a Keras file."""
        return self.folder / "model.keras"

    @property
    def class_names(self) -> list[str]:
        """The classes in label order; empty before the data is known."""
        data = self.manifest.get("data")
        names = data.get("class_names") if isinstance(data, dict) else None
        return [str(name) for name in names] if isinstance(names, list) else []

    def file(self, name: str) -> Path:
        """A file that the run wrote, held against its SHA-256. Raises RunError when it is missing or another."""
        path = self.folder / name
        try:
            found = file_facts(path)
        except FileNotFoundError:
            raise RunError(f"{self.folder} has no {name}.") from None
        except OSError as error:
            raise RunError(f"{path} cannot be read ({error.strerror}).") from error
        if found != self._files.get(name):
            raise RunError(f"{path} is damaged: it is not what the run wrote. Put it back.")
        return path

    @property
    def _files(self) -> dict[str, Any]:
        """SHA-256 and bytes of each file of RESULTS, by name."""
        files = self.manifest.get("files")
        return files if isinstance(files, dict) else {}

    def config(self) -> Config:
        """The resolved configuration of the run."""
        path = self.file("config.yaml")
        try:
            return validation.load(path)
        except ConfigError as error:
            raise RunError(f"{path} is damaged ({error}).") from error

    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds; empty before the run is evaluated."""
        if "metrics.json" not in self._files:
            return {}
        path = self.file("metrics.json")
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{path} is damaged ({error}).") from error

    def complete(self) -> None:
        """Record that the run ended well, and what its files hold."""
        self.record(status="completed", finished=_now(), files=self._written())

    def record(self, **facts: object) -> None:
        """Add facts to the manifest."""
        self.manifest.update(facts)
        self._save()

    def _lock(self) -> None:
        """Keep every other process out of the folder for the life of this one."""
        file = (self.folder / ".lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise RunError(f"{self.folder} is in use by {file.read().strip()}.") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        self._held = file

    def _held_elsewhere(self) -> bool:
        """Whether a process trains in the folder."""
        with contextlib.suppress(OSError), (self.folder / ".lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def __enter__(self) -> Self:
        self._log_file = logging.FileHandler(self.folder / "train.log", encoding="utf-8")
        self._log_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(self._log_file)
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
            log.debug("%s", reason, exc_info=error)
            with contextlib.suppress(OSError):  # the error itself is what the user has to see
                self.record(status=status, reason=reason, finished=_now())
        log.removeHandler(self._log_file)
        self._log_file.close()
        self._held.close()

    def _save(self) -> None:
        sealed = {**self.manifest, "checksum": checksum(self.manifest)}
        write_json(self.folder / "manifest.json", sealed)

    def _written(self) -> dict[str, object]:
        return {
            name: file_facts(self.folder / name)
            for name in RESULTS
            if (self.folder / name).is_file()
        }


def find(paths: list[Path]) -> list[Run]:
    """Every run at or below the paths, in the order of their folders' names."""
    manifests = sorted({m for path in paths for m in path.rglob("manifest.json")}, key=natural)
    runs = []
    for manifest in manifests:
        with contextlib.suppress(RunError):
            runs.append(Run.open(manifest.parent))
    return runs


def resume_command(folder: Path) -> str:
    """What to type to go on with a run."""
    with contextlib.suppress(ValueError):
        folder = folder.relative_to(Path.cwd())
    return words.command("train", words.setting("resume", folder))


def natural(path: Path) -> list[tuple[int, int | str]]:
    """Sorts job 10 of a sweep after job 9."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in path.parts]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _git_commit() -> str | None:
    """The commit of the checkout the command was typed in, where there is one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
