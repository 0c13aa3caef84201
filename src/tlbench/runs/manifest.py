"""manifest.json, the file that says what a run folder is: begun, sealed with a checksum, and checked."""

import contextlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tlbench.base import files
from tlbench.base.errors import RunError
from tlbench.config.migrations import FORMAT
from tlbench.runs.layout import MANIFEST

STATES = ("running", "completed", "failed", "interrupted")
RECORDS = (
    *("data", "hardware", "versions", "weights", "features", "batch_norm", "files"),
    *("extension", "requires"),
)
PACKAGES = ("tlbench", "tensorflow", "keras", "numpy", "hydra-core", "omegaconf", "pillow")
MOST_BYTES = 2**24  # no run of ours comes near

Manifest = dict[str, Any]


def begun(command: str, config_hash: str, facts: Mapping[str, object]) -> Manifest:
    """What is known of a run when it starts."""
    return {
        "format": FORMAT,
        "status": "running",
        "command": command,
        "config_hash": config_hash,
        "started": now(),
        "versions": _versions(),
        "git_commit": _git_commit(),
        **facts,
    }


def write(folder: Path, manifest: Manifest) -> None:
    """Put a manifest with its checksum into a run's folder."""
    files.write_json(folder / MANIFEST, {**manifest, "checksum": files.checksum(manifest)})


def read(folder: Path) -> Manifest:
    """A run's manifest. Raises RunError when the folder is no run, damaged or of a newer version."""
    path = folder / MANIFEST
    try:
        manifest = files.read_json(path, MOST_BYTES)
        _check_format(folder, manifest)
        if manifest.pop("checksum", None) != files.checksum(manifest):
            raise ValueError("its checksum is not that of its contents")
        _check(manifest)
    except FileNotFoundError:
        raise RunError(f"{folder} is no run: it has no {MANIFEST}.") from None
    except OSError as error:
        raise RunError(f"{path} is damaged ({error.strerror}).") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}).") from error
    return manifest


def _check_format(folder: Path, manifest: Any) -> None:
    if not isinstance(manifest, dict) or type(manifest.get("format")) is not int:
        raise ValueError("it is no record")
    if manifest["format"] < 1:
        raise ValueError("it has no format")
    if manifest["format"] > FORMAT:
        raise RunError(f"{folder} was written by a newer tlbench; upgrade to read it.")


def _check(manifest: Manifest) -> None:
    """Raise ValueError for what is not shaped as a run writes it, so that nobody need doubt it later."""
    if manifest.get("status") not in STATES:
        raise ValueError("no status")
    for key in RECORDS:
        if not isinstance(manifest.get(key, {}), dict):
            raise ValueError(f"{key} is no record")
    data = manifest.get("data", {})
    names, images = data.get("class_names", []), data.get("images", {})
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError("class_names are no names")
    if not (isinstance(images, dict) and all(map(_is_count, images.values()))):
        raise ValueError("images are no counts")
    if not isinstance(manifest.get("resumed", []), list):
        raise ValueError("resumed is no list")
    if not _is_count(manifest.get("extension", {"epochs": 0}).get("epochs")):
        raise ValueError("the extension's epochs are no count")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def now() -> str:
    """The time, in seconds of UTC."""
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
