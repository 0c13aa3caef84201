"""Picture files: which files are pictures, where they lie in a folder, and the bytes of one."""

import functools
import importlib.util
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from tlbench.base.errors import DataError
from tlbench.base.files import opened
from tlbench.base.muted import no_warnings
from tlbench.base.text import printable
from tlbench.runs import layout

# What Image.open may take: raster formats of photographs and drawings, none that runs a program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "TGA")
SUFFIXES = frozenset(
    [
        *(
            ".jpg",
            ".jpeg",
            ".jpe",
            ".jfif",
            ".mpo",
            ".png",
            ".apng",
            ".bmp",
            ".dib",
            ".gif",
            ".webp",
        ),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".avif", ".jp2", ".j2k", ".tga"),
    ]
)
HEIF_SUFFIXES = frozenset([".heic", ".heif", ".hif"])
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIF_ADVICE = "pip install 'tlbench[heic]' reads them"
# Pictures that Pillow does not read: they are missed where they are left out, unlike a text beside them.
UNREAD = frozenset(
    [
        *(".svg", ".svgz", ".eps", ".psd", ".xcf", ".jxl", ".ico", ".exr", ".hdr", ".dcm", ".fits"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    ]
)

# What systems put beside pictures; what begins with a dot is hidden everywhere.
SYSTEM_NAMES = frozenset(
    [
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__"),
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
        *("$recycle.bin", "system volume information", "lost+found"),
    ]
)

# The most bytes of one file: 179 million pixels, the most that Pillow admits, take 0.7 GiB as RGBA.
MOST_BYTES = 2**30
# From here on a file is read whole only when its beginning is that of a picture.
LARGE_BYTES = 2**24


@dataclass(frozen=True, slots=True)
class Member:
    """A picture that lies within a larger file: `length` bytes from `offset` on; name: what it is called in there."""

    file: Path
    name: str
    offset: int
    length: int

    def __str__(self) -> str:
        return f"{self.file}/{self.name}"


Place = Path | Member  # where the bytes of a picture are


@dataclass
class Found:
    """What a folder holds: pictures in the order of their paths, and what was left out."""

    pictures: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)  # a line for each
    others: Counter[str] = field(default_factory=Counter)  # files of no picture format, by suffix

    @property
    def missed(self) -> int:
        """How many pictures are among the others."""
        kinds = UNREAD | HEIF_SUFFIXES
        return sum(count for suffix, count in self.others.items() if suffix in kinds)


def find(folder: Path) -> Found:
    """Every picture at or below a folder; links are followed, each folder is entered once.

    Hidden and system files are no pictures, nor is what tlbench or Hydra wrote. A file without a suffix
    is a picture when its beginning says so.
    """
    found = Found()

    def closed(error: OSError) -> None:
        found.unreadable.append(f"{printable(Path(error.filename))}: {_cannot(error)}")

    # A link to a folder above would bring in everything beside this one.
    entered = {_identity(above) for above in (folder, *folder.resolve().parents)}
    for at, folders, files in os.walk(folder, onerror=closed, followlinks=True):
        here = Path(at)
        if here != folder and is_output(here):
            folders.clear()
            continue
        folders[:] = [n for n in sorted(folders) if not hidden(n) and _enter(here / n, entered)]
        for name in files:
            if not hidden(name):
                _sort_in(here / name, found)
    found.pictures.sort(key=lambda path: path.parts)  # as paths compare, only quicker
    return found


def _enter(folder: Path, entered: set[tuple[int, int]]) -> bool:
    """Whether a folder is new; it is not any more."""
    identity = _identity(folder)
    new = identity not in entered
    entered.add(identity)
    return new


def _identity(path: Path) -> tuple[int, int]:
    try:
        about = path.stat()
    except OSError:  # the walk will say so
        return (-1, hash(path))
    return about.st_dev, about.st_ino


def _sort_in(path: Path, found: Found) -> None:
    """Add a file to what it is."""
    suffix = path.suffix.lower()
    if suffix and suffix not in suffixes():
        found.others[suffix] += 1
        return
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        found.unreadable.append(f"{printable(path)}: {_cannot(error)}")
        return
    if not regular:  # reading a pipe or a device might never end
        found.unreadable.append(f"{printable(path)}: not a file.")
    elif suffix or recognised(path):
        found.pictures.append(path)
    else:
        found.others[""] += 1


def _cannot(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link that leads nowhere."
    return f"cannot be read ({error.strerror})."


def visible(folder: Path) -> list[Path]:
    """What a folder holds, sorted, without hidden and system files. Raises DataError when it is closed."""
    try:
        return sorted(path for path in folder.iterdir() if not hidden(path.name))
    except OSError as error:
        raise DataError(f"{printable(folder)} cannot be read ({error.strerror}).") from error


def holds_any(folder: Path) -> bool:
    """Whether there is a picture at or below a folder; nothing is opened."""
    for at, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if not hidden(name) and not is_output(Path(at, name))
        ]
        if any(looks_like_one(Path(name)) for name in files):
            return True
    return False


def looks_like_one(path: Path) -> bool:
    """Whether a file's name is that of a picture."""
    return not hidden(path.name) and path.suffix.lower() in suffixes()


def hidden(name: str) -> bool:
    """Whether a name is of a hidden or a system file, which holds no data."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_output(folder: Path) -> bool:
    """Whether tlbench or Hydra wrote a folder: a run, a sweep or a range test, by what it holds, or a part of a run."""
    if (folder / layout.MULTIRUN).is_file() or (folder / ".hydra").is_dir():
        return True
    if (folder / layout.RATES).is_file() and (folder / layout.RATES_PICTURE).is_file():
        return True
    return _is_run(folder) or (folder.name in layout.FOLDERS and _is_run(folder.parent))


def _is_run(folder: Path) -> bool:
    try:
        with (folder / layout.MANIFEST).open("rb") as file:
            return b'"config_hash"' in file.read(2**16)
    except OSError:
        return False


def holds_outputs_only(folder: Path) -> bool:
    """Whether a folder is an output, or holds outputs and no data beside them."""
    if is_output(folder):
        return True
    folders = []
    try:
        with os.scandir(folder) as inside:
            for entry in inside:
                if looks_like_one(Path(entry.name)):  # mostly the first
                    return False
                if entry.is_dir() and not hidden(entry.name):
                    folders.append(Path(entry.path))
    except OSError:  # a closed folder: it is listed where its pictures are looked for
        return False
    return bool(folders) and all(map(holds_outputs_only, folders))


def left_out(others: Counter[str], beside: int = 0) -> str:
    """One line on files that are no pictures for us, by suffix, with what would read them; "" for none.

    beside: pictures that lie beside the class folders.
    """
    parts = [f"{beside:,} beside the class folders"] if beside else []
    for suffix, count in sorted(others.items(), key=lambda item: (-item[1], item[0])):
        advice = f" ({_advice(suffix)})" if _advice(suffix) else ""
        parts.append(f"{count:,} {printable(suffix) or 'without suffix'}{advice}")
    count = beside + others.total()
    return f"Left out {count:,} file{'s' if count > 1 else ''}: {', '.join(parts)}" if count else ""


def _advice(suffix: str) -> str:
    if suffix in HEIF_SUFFIXES:
        return HEIF_ADVICE
    return "convert them to PNG or JPEG" if suffix in UNREAD else ""


# ---------------------------------------------------------------- formats


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats that Pillow is to try: HEIC among them where pillow-heif is installed."""
    if importlib.util.find_spec("pillow_heif") is None:
        return FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def suffixes() -> frozenset[str]:
    """The suffixes of those formats, in lower case."""
    return SUFFIXES | HEIF_SUFFIXES if "HEIF" in formats() else SUFFIXES


def recognised(path: Path) -> bool:
    """Whether a file begins as a picture does."""
    try:
        with (
            no_warnings,
            path.open("rb") as file,
            Image.open(file, formats=formats()),
        ):
            return True
    except (UnidentifiedImageError, OSError):
        return False
    except Exception:  # a picture all the same: that it is damaged is said when it is read
        return True


def unknown(content: bytes) -> str:
    """Why Pillow knows no format for the bytes of a file."""
    if not content:
        return "an empty file"
    if content[4:8] == b"ftyp" and content[8:12] in HEIF_BRANDS:
        return f"HEIC; {HEIF_ADVICE}"
    if b"<svg" in content[:1000]:
        return "SVG; convert it to PNG"
    return "in no format known here"


def content(path: Place) -> bytes:
    """All bytes of a picture. Raises DataError when it cannot be read, never ends or is too large."""
    try:
        if isinstance(path, Member):
            return _within(path)
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise DataError(f"{printable(path)}: not a file.")
        if about.st_size > LARGE_BYTES and not recognised(path):
            raise DataError(f"{printable(path)}: not a readable image (in no format known here).")
        _refuse_huge(path, about.st_size)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{printable(path)} cannot be read ({error.strerror}).") from error


def _within(member: Member) -> bytes:
    _refuse_huge(member, member.length)
    with opened(member.file) as file:
        file.seek(member.offset)
        found = file.read(member.length)
    if len(found) < member.length:
        raise DataError(f"{printable(member)}: the file ends before the picture does.")
    return found


def _refuse_huge(place: Place, length: int) -> None:
    if length > MOST_BYTES:
        size = f"{length / 2**30:.1f} GiB, more than {MOST_BYTES / 2**30:.0f}"
        raise DataError(f"{printable(place)}: not a readable image ({size}).")
