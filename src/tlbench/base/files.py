"""Files: written whole or not at all, and read only as far as what we write ever reaches. No TensorFlow.

What is read may come from anywhere: readers raise OSError for what is no regular file, and ValueError
for content that is damaged, too large or made to be a burden.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import yaml

from tlbench.base.text import printable

if TYPE_CHECKING:
    import numpy as np

LINK = "a link, which is not followed"
TEMPORARY = ".tmp-"  # how the names of files begin that are not whole yet
DEEPEST = 50  # levels of JSON and YAML
_QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# ---------------------------------------------------------------- writing


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, with its suffix, that takes its place when the block ends well."""
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}{path.suffix}")
    try:
        # Made by open, not by mkstemp: so the system applies the umask.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        # A full disk tells no name, and the temporary one tells nobody anything.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place, where nothing may be, when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_temporaries(folder: Path, age: float = 0.0) -> None:
    """Remove what writes that were killed have left in a folder, of at least an age in seconds."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(FileNotFoundError):  # of a write that goes on, and has ended
            if path.lstat().st_mtime > time.time() - age:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def own_folder(path: Path) -> Path:
    """A folder of ours below a run's, made where it lacks. Raises OSError for a link.

    Several may write there, so that only what is an hour old was left by a kill.
    """
    refuse_link(path)
    path.mkdir(exist_ok=True)
    remove_temporaries(path, age=3600)
    return path


def refuse_link(path: Path) -> None:
    """Raise OSError for a link, which may lead anywhere."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, LINK, str(path))


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all; NumPy scalars become plain numbers."""
    write_text(path, json.dumps(value, indent=2, default=_plain) + "\n")


@contextlib.contextmanager
def destination(path: Path) -> Iterator[TextIO]:
    """A file that a user named, to write text to: whole or not at all where it is a regular file.

    A pipe or a device is written into, and a link stays one.
    """
    if is_special(path):
        with path.open("w", encoding="utf-8", newline="", errors="replace") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    with atomic(path) as temporary:
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        with temporary.open("w", encoding="utf-8", newline="", errors="replace") as file:
            yield file


def is_stdout(path: Path) -> bool:
    """Whether a path is where stdout goes: /dev/stdout, /dev/fd/1, or the file it was sent to."""
    with contextlib.suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(1))
    return False


def is_special(path: Path) -> bool:
    """Whether a path is no file to replace: a pipe, a device, or what this process has open, /dev/fd/3."""
    handle = path.absolute().parts[1:2] in (("dev",), ("proc",))
    return path.exists() and not path.is_dir() and (handle or not path.is_file())


@dataclass
class CsvLines:
    """Takes the lines of a csv.writer and ends them as Unix does.

    Only a writer whose own lines end in CR LF quotes a lone CR, without which a file name breaks a line.
    """

    file: TextIO

    def write(self, line: str) -> None:
        self.file.write(line.removesuffix("\r\n") + "\n")


def inert(text: str) -> str:
    """Text for a cell of a CSV file: no spreadsheet takes it for a formula, no terminal for a command.

    What would begin a formula gets an apostrophe before it, as OWASP advises.
    """
    text = printable(text)
    return f"'{text}" if text[:1] in tuple("=+-@") else text


def append(path: Path) -> TextIO:
    """A file of ours to read and add to. Raises OSError for a link, which may lead anywhere."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(error.errno, LINK, str(path)) from error
    return os.fdopen(_regular(handle, path), "a+", encoding="utf-8", errors="replace")


# ---------------------------------------------------------------- reading


def opened(path: Path) -> BufferedReader:
    """A regular file to read. Raises OSError for anything else: a pipe or a device might never end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.fdopen(_regular(handle, path), "rb")


def _regular(handle: int, path: Path) -> int:
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "no regular file", str(path))


def read_text(path: Path, limit: int) -> str:
    """A text file of at most `limit` bytes."""
    with opened(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"it is larger than {limit:,} bytes")
    return content.decode("utf-8")


def read_json(path: Path, limit: int) -> Any:
    """What a JSON file of at most `limit` bytes holds."""
    return parse_json(read_text(path, limit))


def parse_json(text: str) -> Any:
    """What JSON says; raises ValueError for nesting and numbers that nothing of ours needs."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    _check_plain(value)
    return value


def read_yaml(path: Path, limit: int) -> Any:
    """What a YAML file of at most `limit` bytes holds, as plain values."""
    return parse_yaml(read_text(path, limit))


def parse_yaml(text: str) -> Any:
    """What YAML says, as plain values; raises ValueError as `parse_json` does, and for aliases."""
    from omegaconf._utils import get_yaml_loader

    try:
        _check_events(yaml.parse(text, Loader=_QUICK))
        value = yaml.load(text, Loader=get_yaml_loader())
    except ValueError:
        raise
    except (
        Exception
    ) as error:  # PyYAML raises nearly anything for a tag that does not fit its value
        reason = " ".join(str(error).split())[:150]
        raise ValueError(f"it is no YAML: {reason}") from None
    _check_plain(value)
    return value


def _check_events(events: Iterable[yaml.Event]) -> None:
    """Refuse aliases, by which a few lines become gigabytes, and deep nesting."""
    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it holds an alias")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError("it is nested too deep")


def _check_plain(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return
    raise ValueError("it is nested too deep")


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("it holds a number of more than 64 bits")
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def read_arrays(path: Path, limit: int) -> "dict[str, np.ndarray]":
    """The arrays of an .npz file that unpack to at most `limit` bytes; nothing is unpickled."""
    import numpy as np

    try:
        with opened(path) as file, np.load(file, allow_pickle=False) as saved:
            if sum(member.file_size for member in saved.zip.infolist()) > limit:
                raise ValueError(f"it unpacks to more than {limit:,} bytes")
            return {name: saved[name] for name in saved.files}
    except OSError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise nearly anything for a damaged file
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise ValueError(reason) from None


# ---------------------------------------------------------------- checksums


def file_facts(path: Path) -> dict[str, object]:
    """SHA-256 and bytes of a file, as a manifest records them."""
    with opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "bytes": os.fstat(file.fileno()).st_size}


def checksum(facts: dict[str, Any]) -> str:
    """SHA-256 of what a mapping says as JSON, whatever its order and spacing."""
    text = json.dumps(facts, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    import numpy as np

    return value.item() if isinstance(value, np.generic) else str(value)
