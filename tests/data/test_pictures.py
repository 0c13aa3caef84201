"""Which files in a folder are pictures, and that reading one always ends."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import resize_to
from tlbench.base.errors import DataError
from tlbench.data import decoding, pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one picture."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(tmp_path / "pictures" / "0.png")
    return tmp_path / "pictures"


def names(found: pictures.Found, folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in found.pictures]


def test_links_are_followed_and_loops_end(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "elsewhere" / "1.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "one.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (folder / "loop").symlink_to(folder)
    (folder / "above").symlink_to(tmp_path)
    found = pictures.find(folder)
    assert names(found, folder) == ["0.png", "linked/1.png", "one.png"]
    assert found.unreadable == []


def test_what_cannot_be_reached_is_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / "shut").mkdir()
    os.mkfifo(folder / "pipe\n.png")
    scan = os.scandir

    def refusing(path: Any) -> Any:  # as for a user who is not root
        if str(path).endswith("shut"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = pictures.find(folder)
    assert names(found, folder) == ["0.png"]
    said = sorted(line.removeprefix(f"{folder}/") for line in found.unreadable)
    assert said == [
        "broken.jpg: a link that leads nowhere.",
        "pipe\N{REPLACEMENT CHARACTER}.png: not a file.",
        "shut: cannot be read (Permission denied).",
    ]


@pytest.mark.parametrize(
    ("suffix", "form"),
    [("jfif", "JPEG"), ("jpe", "JPEG"), ("jp2", "JPEG2000"), ("tga", "TGA"), ("mpo", "MPO")],
)
def test_rarer_suffixes_are_read(folder: Path, suffix: str, form: str) -> None:
    Image.new("RGB", (16, 16), (200, 30, 30)).save(folder / f"1.{suffix}", format=form)
    assert names(pictures.find(folder), folder) == ["0.png", f"1.{suffix}"]
    pixel = decoding.decode(folder / f"1.{suffix}", resize_to(4))[1, 1].astype(int)
    assert np.abs(pixel - (200, 30, 30)).max() <= 10


def test_a_file_without_suffix_is_what_it_begins_as(folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(folder / "picture", format="PNG")
    (folder / "LICENSE").write_text("Permission is granted")
    found = pictures.find(folder)
    assert names(found, folder) == ["0.png", "picture"]
    assert found.others == {"": 1}


def test_heic_is_read_where_pillow_heif_is_installed(folder: Path) -> None:
    import pillow_heif

    red = Image.new("RGB", (64, 64), (200, 30, 30))
    pillow_heif.from_pillow(red).save(folder / "1.HEIC", quality=90)
    (folder / "1.HEIC").rename(folder / "also.jpg")  # as phones' uploads are often called
    assert names(pictures.find(folder), folder) == ["0.png", "also.jpg"]
    pixel = decoding.decode(folder / "also.jpg", resize_to(4))[1, 1].astype(int)
    assert np.abs(pixel - (200, 30, 30)).max() <= 12


def test_without_it_the_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "formats", lambda: pictures.FORMATS)
    (folder / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(DataError, match=r"HEIC; pip install 'tlbench\[heic\]' reads them"):
        decoding.decode(folder / "a.jpg", resize_to(4))


def test_a_large_file_that_is_no_picture_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, beginning in (("no.jpg", b"text"), ("much.png", (folder / "0.png").read_bytes())):
        with (folder / name).open("wb") as file:
            file.write(beginning)
            file.truncate(pictures.MOST_BYTES + 1)  # sparse: it takes no room
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    with pytest.raises(DataError, match=r"no\.jpg: not a readable image \(in no format"):
        decoding.decode(folder / "no.jpg", resize_to(4))
    with pytest.raises(
        DataError, match=r"much\.png: not a readable image \(1\.0 GiB, more than 1\)"
    ):
        decoding.decode(folder / "much.png", resize_to(4))


def test_a_pipe_or_a_device_never_blocks(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    for path in (folder / "pipe.png", Path("/dev/zero")):
        with pytest.raises(DataError, match="not a file"):
            decoding.decode(path, resize_to(4))
