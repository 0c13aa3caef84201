"""Files and folders that an option names to be written: checked before any work, and named when they cannot be."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tlbench.base import files
from tlbench.base.errors import ConfigError


def check_file(option: str, file: str) -> None:
    """Raise ConfigError where a file cannot be written; a pipe or a device shows that by itself."""
    path = Path(file)
    if files.is_special(path):
        return
    if path.is_dir():
        raise ConfigError(f"{option} {file} is a folder. Expected a file.")
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {file} cannot be written: its folder does not exist.")
    with _named(option, file):
        _try(path.parent)


def check_folder(option: str, folder: str | Path) -> None:
    """Raise ConfigError where a folder cannot be made or written."""
    path = Path(folder).absolute()
    with _named(option, folder):
        _try(next(part for part in (path, *path.parents) if part.exists()))


def _try(folder: Path) -> None:
    """Write into a folder a file without a name: rights tell nothing of /proc, or of a disk that is read-only."""
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextlib.contextmanager
def writing(option: str, file: str) -> Iterator[TextIO]:
    """A file to write text to, as `files.destination` gives it."""
    with _named(option, file), files.destination(Path(file)) as opened:
        yield opened


@contextlib.contextmanager
def _named(option: str, path: str | Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # its reader is gone
        raise
    except OSError as error:
        raise ConfigError(
            f"{option} {path} cannot be written ({error.strerror or error})."
        ) from error
