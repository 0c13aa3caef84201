"""The folders that a command makes for its output, and what is left of them when it is refused.

Hydra makes the folder, and writes a sweep's multirun.yaml, before anybody could refuse: what stood there
before is kept, and only what this very command made is removed.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import itertools
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from hydra._internal.utils import get_args_parser

from tlbench.base import files
from tlbench.base.errors import ConfigError, RunError
from tlbench.config import checks
from tlbench.config.words import TEMPLATES, command, expanded, path_of, setting
from tlbench.runs import layout

BEGUN = layout.MULTIRUN
ASIDE = f".{BEGUN}"

_there: set[Path] = set()  # folders that stood before this command


def remember(words: Sequence[str]) -> None:
    """Note which folders are there before Hydra makes any. words: of the command, as typed."""
    _there.clear()
    _there.update(Path.cwd().absolute().parents, [Path.cwd()])
    _there.update(path.absolute() for path in Path.cwd().iterdir())
    for word in words:
        if word.partition("=")[0] in TEMPLATES and "${" not in word:
            path = path_of(word).absolute()
            _there.update(part for part in (path, *path.parents) if part.exists())


def remove_empty(folder: Path) -> None:
    """Leave nothing of a job that never began: the folder, and those above it that were made for it."""
    folder = folder.absolute()
    for path in (folder, *folder.parents):
        if path in _there or path.is_symlink() or not path.is_dir() or any(path.iterdir()):
            return
        try:
            path.rmdir()
        except OSError:  # a mount point stays
            return


def claimed(folder: Path) -> Path:
    """The folder, or where another process has it already, the next of NAME_2, NAME_3...

    Several commands may begin in one second. Each holds its name by a lock on one byte of a file, for as
    long as it lives: nothing is left behind, and a folder in which somebody works is never the same.
    """
    for number in itertools.count(1):
        path = folder if number == 1 else folder.with_name(f"{folder.name}_{number}")
        if _lock_name(path.absolute()) and not (path.is_dir() and any(path.iterdir())):
            return path
    raise AssertionError


def _lock_name(path: Path) -> bool:
    digest = hashlib.blake2b(os.fsencode(path), digest_size=7).digest()
    try:
        fcntl.lockf(_names(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int.from_bytes(digest))
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)  # no locks here: seconds must do
    return True


@functools.cache
def _names() -> int:
    """A file of this user's whose bytes stand for names; open as long as the process lives."""
    name = f"tlbench-names-{os.getuid()}"
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(Path(tempfile.gettempdir()) / name, flags, 0o600)


# ---------------------------------------------------------------- sweeps


def named(words: Sequence[str], own_yaml: str | None) -> list[str]:
    """The words of a --multirun with a folder of its own, where neither they nor own YAML name one."""
    if any(word.startswith("hydra.sweep.dir=") for word in words) or _speaks_of_sweeps(own_yaml):
        return list(words)
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return [setting("hydra.sweep.dir", claimed(Path("outputs") / f"{now}_sweep")), *words]


def _speaks_of_sweeps(folder: str | None) -> bool:
    paths = Path(expanded(folder)).rglob("*.yaml") if folder else ()
    texts = (p.read_text(encoding="utf-8", errors="ignore") for p in paths if p.is_file())
    return any("sweep" in text for text in texts)


@contextlib.contextmanager
def kept(words: Sequence[str]) -> Iterator[None]:
    """Put an earlier sweep's multirun.yaml back unless the command's jobs are accepted in its folder."""
    typed = [word for word in words if word.startswith("hydra.sweep.dir=") and "${" not in word]
    folder = path_of(typed[-1]) if typed else None
    if folder and (folder / BEGUN).is_file() and not (folder / ASIDE).exists():
        files.write_text(folder / ASIDE, files.read_text(folder / BEGUN, checks.MOST_BYTES))
    try:
        yield
    finally:
        if folder and (folder / ASIDE).exists():
            (folder / ASIDE).replace(folder / BEGUN)


def accepted(sweep: Path) -> None:
    """The jobs are those of this sweep, and Hydra has written its multirun.yaml whole."""
    (sweep / ASIDE).unlink(missing_ok=True)


def refused(sweep: Path) -> None:
    """Leave nothing of a sweep that never began; one that began before stays as it was."""
    if not (sweep / ASIDE).exists():
        (sweep / BEGUN).unlink(missing_ok=True)
    remove_empty(sweep)


def resumed(words: list[str]) -> list[str]:
    """`--multirun resume=SWEEP` as the command that began the sweep, where that was typed.

    Somebody else may have written the folder, so of what it holds tlbench's own settings alone are taken,
    which the schema checks: nothing of Hydra's, no code to call, nothing to be filled in.
    """
    flags = get_args_parser().parse_known_intermixed_args(words)[0]
    asked = [word for word in flags.overrides if word.startswith("resume=")]
    if not (flags.multirun and asked):
        return words
    folder = path_of(asked[0]).absolute()
    place, overrides, own = _begun(folder)
    if own and not flags.config_dir:
        again = command("train", "--multirun", setting("resume", folder), f"--config-dir={own[0]}")
        raise ConfigError(
            f"{folder} was begun with YAML of its own. If you trust it, go on with: {again}"
        )
    kept_words = [word for word in words if word not in asked]
    if flags.config_dir:
        kept_words = [w for w in kept_words if w not in ("--config-dir", "-cd", flags.config_dir)]
        kept_words = [w for w in kept_words if not w.startswith("--config-dir=")]
        kept_words.append(f"--config-dir={Path(flags.config_dir).absolute()}")
    if place.is_dir():
        os.chdir(place)  # where a relative data.root means what it meant
    taken = [_taken(word, folder) for word in overrides]
    # What is typed now comes last, and holds: a data.root that has moved.
    return [*taken, *kept_words, setting("hydra.sweep.dir", folder)]


def _begun(sweep: Path) -> tuple[Path, list[str], list[str]]:
    """Where a sweep was begun, its settings, and the folders of YAML that its command named."""
    aside = sweep / ASIDE
    try:
        text = files.read_text(aside if aside.exists() else sweep / BEGUN, checks.MOST_BYTES)
        begun = files.parse_yaml(text)["hydra"]
        sources = begun["runtime"]["config_sources"]
        own = [str(s["path"]) for s in sources if s["provider"] == "command-line"]
        return Path(begun["runtime"]["cwd"]), [str(w) for w in begun["overrides"]["task"]], own
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunError(f"resume={sweep} is no sweep: it has no readable {BEGUN}.") from error


def _taken(word: str, sweep: Path) -> str:
    key = word.lstrip("+~").partition("=")[0]
    hydras = re.split(r"[./]", key)[0] == "hydra" or not re.fullmatch(r"[\w./]+", key)
    strays = "." not in key and ".." in word  # a group's choice that is no file of conf/
    if hydras or strays or "_target_" in word or "${" in word:
        raise RunError(
            f"{sweep / BEGUN} sets {key}, and only tlbench's own settings, spelled out, are taken from a "
            "folder. Begin a sweep of your own."
        )
    return word
