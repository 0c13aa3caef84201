"""The index of pictures: a start reads what is new or has changed, and nothing else."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import TINY, Answer, make_config, resize_to
from tlbench.base.errors import DataError
from tlbench.data import datasets, decoding, images, known, near, pictures
from tlbench.data.images import FileImages
from tlbench.data.near import Looks

INDEX = "index"
NO_MEMORY, ALL = 0, 1e9


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written a moment ago are trusted."""
    monkeypatch.setattr(known, "COARSE_NS", 0)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pictures whose content is read, as they are read."""
    names: list[str] = []
    read = pictures.content

    def content(path: Path) -> bytes:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(pictures, "content", content)
    return names


@pytest.fixture
def paths() -> list[Path]:
    """Five pictures, each of a colour of its own and noise."""
    Path("photos").mkdir()
    return [put(Path("photos", f"{i}.png"), seed=i) for i in range(5)]


def put(path: Path, seed: int) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def read(paths: list[Path], memory: float = NO_MEMORY) -> tuple[FileImages, list[int], list[str]]:
    table, good, lines = images.read(paths, resize_to(8), memory, index=INDEX)
    return table, good.tolist(), lines


@pytest.mark.parametrize("memory", [NO_MEMORY, ALL])
def test_a_second_start_opens_no_picture(
    paths: list[Path], opened: list[str], memory: float
) -> None:
    first, _, _ = read(paths, memory)
    assert sorted(opened) == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    opened.clear()
    second, good, lines = read([path.absolute() for path in paths], memory)
    assert (opened, good, lines) == ([], [0, 1, 2, 3, 4], [])
    assert second.ids.tobytes() == first.ids.tobytes()
    rows = np.array([3, 1, 3])
    np.testing.assert_array_equal(second.batch(rows), first.batch(rows))


def test_pixels_stay_in_memory_from_the_first_time_they_are_decoded(
    paths: list[Path], opened: list[str]
) -> None:
    read(paths)
    table, _, _ = read(paths, ALL)
    opened.clear()
    first = table.batch(np.array([2, 0, 2]))
    assert sorted(opened) == ["0.png", "2.png"]
    np.testing.assert_array_equal(table.batch(np.array([0, 1, 2]))[[2, 0, 2]], first)
    assert sorted(opened) == ["0.png", "1.png", "2.png"]


def test_without_an_index_each_start_reads_each_picture(
    paths: list[Path], opened: list[str]
) -> None:
    for _ in range(2):
        images.read(paths, resize_to(8), NO_MEMORY)
    assert len(opened) == 10


@pytest.mark.parametrize("same_time", [False, True])
def test_a_picture_that_changed_is_read_again(
    paths: list[Path], opened: list[str], same_time: bool
) -> None:
    before, _, _ = read(paths)
    about = paths[1].stat()
    content = put(Path("other.png"), seed=99).read_bytes()
    paths[1].write_bytes(content)
    if same_time:  # as `cp -p` and `rsync -t` leave it: the time of the inode tells
        os.utime(paths[1], ns=(about.st_atime_ns, about.st_mtime_ns))
    opened.clear()
    after, _, _ = read(paths)
    assert opened == ["1.png"]
    assert (before.ids != after.ids).tolist() == [False, True, False, False, False]


def test_what_is_new_is_read_and_what_is_gone_is_forgotten_about(
    paths: list[Path], opened: list[str]
) -> None:
    read(paths[:3])
    opened.clear()
    table, good, _ = read(paths[2:])
    assert sorted(opened) == ["3.png", "4.png"]
    assert good == [0, 1, 2]
    paths[4].unlink()
    _, good, lines = read(paths[2:])
    assert good == [0, 1]
    assert lines == ["photos/4.png cannot be read (No such file or directory)."]
    assert len(table) == 3


def test_a_damaged_picture_keeps_its_line(paths: list[Path], opened: list[str]) -> None:
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:-40])
    paths[3].write_bytes(b"")
    bare, _, expected = images.read(paths, resize_to(8), NO_MEMORY)
    assert len(expected) == 2
    for _ in range(2):
        opened.clear()
        table, good, lines = read(paths)
        assert (good, lines) == ([0, 2, 4], expected)
        assert table.ids.tobytes() == bare.ids.tobytes()
    assert sorted(opened) == ["1.png", "3.png"]
    paths[1].write_bytes(whole)
    assert read(paths)[1] == [0, 1, 2, 4]


def test_damaged_pictures_among_those_in_memory_leave_no_gap(paths: list[Path]) -> None:
    paths[1].write_bytes(b"")
    expected, _, _ = images.read(paths, resize_to(8), NO_MEMORY)
    for _ in range(2):  # decoded at the start, and known
        table, _, _ = read(paths, ALL)
        np.testing.assert_array_equal(table.batch(np.arange(4)), expected.batch(np.arange(4)))


def test_pictures_without_contrast_are_told_at_each_start(caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (9, 9)).save("black.png")
    for _ in range(2):
        caplog.clear()
        read([Path("black.png")])
        assert "1 of 1 pictures have hardly any contrast" in caplog.text


def test_a_picture_that_just_changed_is_not_trusted(
    paths: list[Path], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change again within the same tick of the file system's clock."""
    monkeypatch.setattr(known, "COARSE_NS", 2 * 10**9)
    now = max(path.stat().st_ctime_ns for path in paths)
    for seconds, count in ((1, 5), (1, 5), (3, 5), (3, 0)):  # the third is the first that is kept
        monkeypatch.setattr(known.time, "time_ns", lambda at=seconds: now + at * 10**9)
        opened.clear()
        read(paths)
        assert len(opened) == count


def test_a_time_in_the_future_is_a_time_like_others(paths: list[Path], opened: list[str]) -> None:
    os.utime(paths[0], (4e9, 4e9))  # a camera's clock
    read(paths)
    opened.clear()
    read(paths)
    assert opened == []


def test_two_processes_at_once_both_add_what_they_read(
    paths: list[Path], opened: list[str]
) -> None:
    code = (
        "import sys; from pathlib import Path; from tlbench.data import images, known;"
        "from tlbench.data.resize import Resize; known.COARSE_NS = 0; sys.stdin.read();"
        "images.read([Path(sys.argv[1])], Resize(8, 'crop', 'bilinear'), 0, index='index')"
    )
    words = [sys.executable, "-c", code]
    running = [subprocess.Popen([*words, path], stdin=subprocess.PIPE) for path in paths[:3]]
    for one in running:
        assert one.stdin
        one.stdin.close()  # now
    assert [one.wait(60) for one in running] == [0, 0, 0]
    read(paths)
    assert sorted(opened) == ["3.png", "4.png"]
    assert [path.name for path in Path(INDEX).iterdir()] == [known.NAME]


def test_where_nothing_can_be_written_all_goes_on_without(
    paths: list[Path], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(INDEX).touch()  # in the place of the folder
    for _ in range(2):
        assert read(paths)[1:] == ([0, 1, 2, 3, 4], [])
    assert len(opened) == 10
    Path(INDEX).unlink()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert read(paths)[1:] == ([0, 1, 2, 3, 4], [])
    assert list(Path(INDEX).iterdir()) == []


def test_an_index_that_cannot_be_written_is_read(
    paths: list[Path], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read(paths[:3])

    def closed(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(known, "held", closed)
    opened.clear()
    for _ in range(2):
        read(paths)
    assert sorted(opened) == ["3.png", "3.png", "4.png", "4.png"]


@pytest.mark.parametrize("damage", ["a bit", "cut off", "empty", "text"])
def test_a_damaged_index_is_thrown_away_in_one_line(
    paths: list[Path], opened: list[str], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    read(paths)
    file = Path(INDEX, known.NAME)
    whole = file.read_bytes()
    changed = {
        "a bit": whole[:-1] + bytes([whole[-1] ^ 2]),
        "cut off": whole[:-10],
        "empty": b"",
        "text": b"hello",
    }
    file.write_bytes(changed[damage])
    opened.clear()
    assert read(paths)[1:] == ([0, 1, 2, 3, 4], [])
    assert len(opened) == 5
    assert len(caplog.records) == 1
    assert "is damaged: they are read again" in caplog.text
    opened.clear()
    read(paths)
    assert opened == []


@pytest.mark.parametrize(("name", "value"), [("PILLOW", "99.0"), ("DECODING", 99)])
def test_another_decoder_reads_all_anew(
    paths: list[Path],
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: object,
) -> None:
    """It may read what the last one could not, or not what that one could."""
    read(paths)
    monkeypatch.setattr(decoding, name, value)
    opened.clear()
    read(paths)
    assert len(opened) == 5


def test_another_size_needs_no_picture_read_to_begin(paths: list[Path], opened: list[str]) -> None:
    read(paths)
    opened.clear()
    images.read(paths, resize_to(16, "pad", "bicubic"), ALL, index=INDEX)
    assert opened == []


def test_an_index_that_was_wrong_about_a_picture_is_forgotten(paths: list[Path]) -> None:
    """As on a file system whose times do not move: `Train anew` has to help."""
    seen = known.Known.of(paths, Path(INDEX), decoding.reader())
    for place in range(5):
        seen.add(place, b"another picture", plain=False)
    seen.keep()
    table, _, _ = read(paths)
    with pytest.raises(DataError, match=r"0\.png has changed"):
        table.batch(np.arange(1))
    table, _, _ = read(paths)
    assert table.batch(np.arange(5)).shape == (5, 8, 8, 3)


def test_what_was_read_before_an_interruption_is_known(
    paths: list[Path], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pictures.content

    def interrupted(path: Path) -> bytes:
        if path.name == "4.png":
            raise KeyboardInterrupt
        return whole(path)

    monkeypatch.setattr(pictures, "content", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(paths)
    monkeypatch.setattr(pictures, "content", whole)
    opened.clear()
    read(paths)
    assert known.count(Path(INDEX)) == 5
    assert len(opened) <= 1


def test_what_is_new_is_written_now_and_then(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill then costs the reading of half a minute."""
    seen = known.Known.of(paths, Path(INDEX), decoding.reader())
    seen.add(0, b"a picture", plain=False)
    seen.keep_now_and_then()
    assert known.count(Path(INDEX)) == 0
    monkeypatch.setattr(known, "SECONDS", -1)
    seen.keep_now_and_then()
    seen.keep_now_and_then()
    assert known.count(Path(INDEX)) == 1


def test_an_index_of_the_most_rows_forgets_the_oldest(
    paths: list[Path], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "MOST_ROWS", 3)
    read(paths[:2])
    read(paths[2:4])
    assert known.count(Path(INDEX)) == 3
    opened.clear()
    read(paths[:4])
    assert opened == ["0.png"]


# ---------------------------------------------------------------- what pictures look like


def same(one: Looks, other: Looks) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("waves", "flat", "brightness")
    )


def test_a_second_start_looks_at_no_picture_that_is_what_it_was(
    paths: list[Path], opened: list[str]
) -> None:
    first = near.looks(read(paths)[0])
    opened.clear()
    assert same(near.looks(read(paths)[0]), first)
    assert opened == []
    put(paths[1], seed=77)
    put(Path("photos", "5.png"), seed=5)
    more = [*paths, Path("photos", "5.png")]
    again = near.looks(read(more)[0])
    assert sorted(opened) == ["1.png", "1.png", "5.png", "5.png"]  # to read it, and to look at it
    assert same(again, near.looks(images.read(more, resize_to(8), NO_MEMORY)[0]))
    assert not np.array_equal(again.waves[1], first.waves[1])


def test_a_look_goes_with_the_picture_and_not_with_its_place(
    paths: list[Path], opened: list[str]
) -> None:
    first = near.looks(read(paths)[0])
    paths[3].rename("photos/moved.png")
    table, _, _ = read([Path("photos", "moved.png"), paths[0]])
    opened.clear()
    assert np.array_equal(near.looks(table).waves, first.waves[[3, 0]])
    assert opened == []


def test_looks_of_another_decoder_or_in_a_damaged_file_are_made_anew(
    paths: list[Path],
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = near.looks(read(paths)[0])
    file = Path(INDEX, known.LOOKS)
    file.write_bytes(file.read_bytes()[:-1])
    opened.clear()
    assert same(near.looks(read(paths)[0]), first)
    assert len(opened) == 5
    assert "is damaged: they are read again" in caplog.text
    monkeypatch.setattr(near, "VERSION", 99)
    near.looks(read(paths)[0])
    assert len(opened) == 10
    monkeypatch.setattr(decoding, "DECODING", 99)
    near.looks(read(paths)[0])
    assert len(opened) == 20


def test_near_duplicates_are_kept_together_without_a_picture_opened(
    photos: Path, opened: list[str]
) -> None:
    words = ("data=image_folder", f"data.root={photos}", f"data.index={INDEX}")
    cfg = make_config(*words, "data.duplicates=near", "data.memory_limit_gb=0").data
    first = datasets.load(cfg, resize_to(8))
    assert len(opened) == 2 * len(first.images)
    opened.clear()
    assert datasets.load(cfg, resize_to(8)).sha256 == first.sha256
    assert opened == []


def test_a_run_on_features_that_were_found_opens_no_picture(
    tlbench: Callable[..., Answer], photos: Path, opened: list[str]
) -> None:
    (photos / "grass" / "bad.jpg").write_bytes(b"nothing")
    words = (*TINY[1:-2], "data=image_folder", f"data.root={photos}", "trainable=false", "epochs=1")
    lines = []
    for folder in ("first", "second"):
        opened.clear()
        answer = tlbench("train", *words, f"hydra.run.dir={folder}")
        assert answer.code == 0, answer.err
        lines.append([line for line in answer.err.splitlines() if "bad.jpg" in line])
    assert opened == ["bad.jpg"]
    assert lines[0] == lines[1]
    assert len(lines[0]) == 1
    refused = tlbench("train", *words, "data.unreadable=refuse", "hydra.run.dir=third")
    bare = tlbench(
        "train", *words, "data.unreadable=refuse", "data.index=null", "hydra.run.dir=third"
    )
    assert refused.code == bare.code == 2
    assert refused.error_lines[-1] == bare.error_lines[-1]
    assert "1 of 25 images cannot be read" in refused.error_lines[-1]


def test_the_cache_tells_of_the_index_and_clears_it(
    tlbench: Callable[..., Answer], paths: list[Path]
) -> None:
    folder = Path("cache", "index")
    near.looks(images.read(paths, resize_to(8), NO_MEMORY, index=str(folder))[0])
    assert len(list(folder.iterdir())) == 2
    assert "5 pictures are known in" in tlbench("cache").out
    assert "known" not in tlbench("cache", "--folder", "elsewhere").out
    assert "0 pictures are known in" in tlbench("cache", "--clear").out
    assert list(folder.iterdir()) == []
