"""The cache of frozen features as a whole: what is in it, and how it is emptied.

Only what is provably the cache's own is ever removed: a folder or a file whose name is the checksum of the
recipe in it, and in a folder nothing but files that carry the cache's names. The rest is left, and told.
"""

import contextlib
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tlbench.base.columns import Column, FittedTable
from tlbench.base.files import TEMPORARY, checksum
from tlbench.base.locks import held
from tlbench.base.text import printable
from tlbench.features.store import ABOUT, BLOCK, LOCK, facts_in, is_block, read_json

NAME = re.compile(r"[0-9a-f]{24}")
HEADER = 128  # bytes that NumPy puts before an array's
CUT_OFF = re.compile(r"\.[0-9a-f]{24}-.+")  # removals that a crash cut off
UNFINISHED = re.compile(
    rf"{re.escape(TEMPORARY)}[0-9a-f]{{8}}\.(json|npy)"
)  # writes that it cut off


@dataclass(frozen=True)
class Entry:
    """What a listing shows of one entry."""

    folder: Path
    about: dict[str, Any]  # empty where it cannot be read
    rows: int
    size: int  # bytes
    used: float  # seconds since the epoch


@dataclass
class Emptied:
    """What was removed, and a line for each thing that was not, with the reason."""

    removed: list[Entry] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def entries(root: Path) -> list[Entry]:
    """Every entry of a cache, the most recently used first; those of no rows are left by a crash."""
    found = []
    for folder in root.glob("*"):
        if NAME.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            with contextlib.suppress(OSError):  # removed meanwhile
                found.append(_entry(folder))
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def _entry(folder: Path) -> Entry:
    about, marker = read_json(folder / ABOUT), folder / ABOUT
    if not isinstance(about, dict) or not isinstance(about.get("features"), int):
        about = {}
    sizes = [path.stat().st_size for path in folder.iterdir() if BLOCK.fullmatch(path.name)]
    used = (marker if marker.exists() else folder).stat().st_mtime
    row = 16 + 4 * max(0, about.get("features", 0))
    rows = sum(max(0, size - HEADER) // row for size in sizes) if about else 0
    return Entry(folder, about, rows, sum(sizes), used)


LISTED = (
    Column("backbone"),
    Column("weights", rank=4, path=True),
    Column("data", rank=1),
    Column("engine", rank=3),
    Column("used", rank=2),
    Column("images", "right"),
    Column("MiB", "right"),
)


def listing(root: Path) -> FittedTable:
    """What each entry belongs to and how large it is, the most recently used first."""
    found = entries(root)
    total = sum(entry.size for entry in found) / 2**20
    caption = f"{total:,.1f} MiB in {root}" if found else f"{root} is empty"
    return FittedTable(LISTED, [_cells(entry) for entry in found], caption=printable(caption))


def _cells(entry: Entry) -> list[str]:
    about = entry.about
    words = ["unreadable", entry.folder.name, "", ""]
    if about:
        engine = [str(about[key]) for key in ("engine", "precision") if key in about]
        weights = str(about.get("weights") or "random")
        backbone, data = (str(about.get(key, "?")) for key in ("backbone", "data"))
        words = [backbone, weights, data, " ".join(engine)]
    used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
    figures = [used, f"{entry.rows:,}", f"{entry.size / 2**20:,.1f}"]
    return [*(printable(word) for word in words), *figures]


def prune(root: Path, limit_bytes: float) -> Emptied:
    """Remove the least recently used entries until the rest fit; entries in use stay."""
    result, total = Emptied(), 0
    for entry in entries(root):
        total += entry.size
        if total <= limit_bytes:
            continue
        if why := _remove(entry):
            result.left.append(f"{entry.folder}: {why}")
        else:
            result.removed.append(entry)
            total -= entry.size
    return result


def clear(root: Path) -> Emptied:
    """Remove every entry that is not in use and what was remembered; say what else is there."""
    result = Emptied()
    for entry in entries(root):
        if why := _remove(entry):
            result.left.append(f"{entry.folder}: {why}")
        else:
            result.removed.append(entry)
    foreign = []
    for path in sorted(root.glob("*")):
        if facts_in(path) is not None and not path.is_symlink():
            path.unlink(missing_ok=True)
        elif _is_lock(path):
            with contextlib.suppress(OSError), held(path, wait=False):
                pass  # one that a crash left: it goes as any lock does, at its end
        elif CUT_OFF.fullmatch(path.name):
            # A removal that goes on holds its lock, and is looked at no further.
            with contextlib.suppress(OSError), held(root / f"{path.name[1:25]}{LOCK}", wait=False):
                if _is_cut_off(path):
                    shutil.rmtree(path)
                elif path.exists():
                    foreign.append(path)
        elif not NAME.fullmatch(path.name):
            foreign.append(path)
    if foreign:
        example = f"not the cache's own: {len(foreign):,}, such as {foreign[0].name}"
        result.left.append(f"{root}: {example}")
    return result


def _is_lock(path: Path) -> bool:
    if not (path.name.endswith(LOCK) and NAME.fullmatch(path.stem)):
        return False
    with contextlib.suppress(FileNotFoundError):  # whoever held it is done
        facts = path.lstat()
        return stat.S_ISREG(facts.st_mode) and not facts.st_size
    return True


def _is_cut_off(path: Path) -> bool:
    """Whether a removal of ours that a crash cut off left this: a folder with an entry in it, or nothing."""
    if path.is_symlink() or not path.is_dir():
        return False
    inside = list(path.iterdir())
    if not inside:
        return True
    return [p.name for p in inside] == ["entry"] and not _foreign(inside[0], path.name[1:25])


def _remove(entry: Entry) -> str:
    """Remove an entry; why it stays, if it does."""
    folder = entry.folder
    try:
        with held(folder.with_suffix(LOCK), wait=False) as locked:
            if not locked:
                return "cannot be locked, so somebody may be using it"
            if why := _foreign(folder, folder.name):
                return why
            # Aside first, by one rename: nobody ever finds half an entry.
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            folder.rename(aside / "entry")
            shutil.rmtree(aside)
    except BlockingIOError:
        return "in use"
    except FileNotFoundError:
        return ""  # another process was quicker
    except OSError as error:
        return f"cannot be removed ({error.strerror})"
    return ""


def _foreign(folder: Path, key: str) -> str:
    """What in a folder is not the cache's own; nothing where all of it is. key: the entry's name."""
    names = [path.name for path in folder.iterdir()]
    for name in names:
        own = name in (ABOUT, "lock") or BLOCK.fullmatch(name) or UNFINISHED.fullmatch(name)
        if not own or not (folder / name).is_file() or (folder / name).is_symlink():
            return f"holds '{printable(name)}', which is not the cache's own"
    about = read_json(folder / ABOUT)
    if isinstance(about, dict) and checksum(about.get("recipe", {}))[:24] == key:
        return ""
    # A crash or a flipped bit may have cost about.json: blocks, named by their checksums, prove it too.
    blocks = [folder / name for name in names if BLOCK.fullmatch(name)]
    nothing = all(not (folder / name).stat().st_size for name in names)
    if nothing or (blocks and all(map(is_block, blocks))):
        return ""
    return "cannot be told to be the cache's own"
