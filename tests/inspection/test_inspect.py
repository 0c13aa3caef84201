"""`tlbench inspect`: what is said of pictures made to have each problem, and what a person decides of it."""

import csv
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers import BACKBONE, Answer
from tlbench.inspection import doubts

Command = Callable[..., Answer]


def drawing(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(40, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((40, 30), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 pictures in each of two classes, and one of each problem."""
    root = tmp_path / "a (set) <b>"
    for name, first in (("cat", 0), ("dog", 100)):
        (root / name).mkdir(parents=True)
        for i in range(20):
            drawing(first + i).save(root / name / f"{i}.png")
    (root / "cat" / "again.png").write_bytes((root / "cat" / "3.png").read_bytes())
    (root / "dog" / "as a dog.png").write_bytes((root / "cat" / "4.png").read_bytes())
    ImageOps.mirror(drawing(5)).save(root / "dog" / "mirrored.png")
    Image.new("RGB", (40, 30), "white").save(root / "cat" / "blank.png")
    dark = np.random.default_rng(0).integers(0, 24, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(dark).save(root / "dog" / "dark.png")
    (root / "dog" / "broken.png").write_bytes(b"nothing")
    return root


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_problem_is_found_and_a_decision_is_obeyed(
    tlbench: Command, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "looked at"
    words = ("data=image_folder", f"data.root={folder}")
    answer = tlbench("inspect", *words, "--out", str(out))
    assert answer.code == 0, answer.err
    found = lines(out / "corrections.csv")
    kinds: dict[str, set[str]] = {}
    for line in found:
        kinds.setdefault(line["problem"], set()).add(line["path"])
    assert kinds["equal, in another class"] == {"cat/4.png", "dog/as a dog.png"}
    assert kinds["alike, in another class"] == {"cat/5.png", "dog/mirrored.png"}
    assert kinds["equal"] == {"cat/again.png", "cat/3.png"}
    assert kinds["blank"] == {"cat/blank.png"}
    assert kinds["very dark"] == {"dog/dark.png"}
    assert not {kind for kind in kinds if kind.startswith("alike") and "class" not in kind}
    page = (out / "inspect.html").read_text()
    assert len(re.findall('src="data:image/jpeg;base64,', page)) == len(found)
    assert "<b>" not in re.sub(r"<b>(cat|dog|drop)</b>", "", page).replace("&lt;b&gt;", "")
    assert "broken.png" in page
    assert not re.search(r"<script|https?://", page)
    for word in ("24 train", "45 in 2 classes", "equal, in another class", "unreadable"):
        assert word in answer.out or word == "24 train"
    for line in found:
        line["decision"] = "drop" if line["suggestion"] == "drop" else "keep"
    with (out / "corrections.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    answer = tlbench("data", "export", *words, f"data.corrections={out / 'corrections.csv'}")
    kept = {line["path"] for line in csv.DictReader(answer.out.splitlines())}
    assert len(kept) == 43
    assert not kept & {"cat/blank.png", "cat/again.png"}


def test_data_has_to_be_named_and_arrays_have_no_corrections(
    tlbench: Command, tmp_path: Path
) -> None:
    for verb in (("inspect",), ("data", "export")):
        answer = tlbench(*verb)
        assert (answer.code, len(answer.error_lines)) == (2, 1)
        assert "Name the data: data=image_folder" in answer.err
    answer = tlbench("inspect", "data=digits", "--out", str(tmp_path / "out"))
    assert answer.code == 0, answer.err
    assert "data.corrections" not in answer.out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["inspect.html"]


def test_labels_that_were_flipped_are_doubted_first(
    tlbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cleanlab")
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    flipped = set()
    for i in range(80):
        red = i % 2
        wrong = i in (7, 30, 51, 66)
        name = ("blue", "red")[red != wrong]
        (root / name).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 100, (8, 8, 3))
        pixels[..., 0 if red else 2] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
        flipped |= {f"{name}/{i}.png"} if wrong else set()
    words = ("data=image_folder", f"data.root={root}", *BACKBONE, "features.precision=float32")
    answer = tlbench("inspect", *words, "--out", str(tmp_path / "out"))
    assert answer.code == 0, answer.err
    doubted = [
        line
        for line in lines(tmp_path / "out" / "corrections.csv")
        if line["problem"] == "label may be wrong"
    ]
    assert len(doubted) >= 2  # half of them
    assert {line["path"] for line in doubted[: len(flipped)]} <= flipped
    assert all(line["suggestion"] != line["label"] for line in doubted)
    monkeypatch.setattr(doubts.importlib.util, "find_spec", lambda _: None)
    answer = tlbench("inspect", *words)
    assert answer.code == 2
    assert "pip install 'tlbench[inspect]'" in answer.error_lines[-1]


def test_what_the_network_sees_alike_is_told_where_nothing_else_tells_it(
    tlbench: Command, tmp_path: Path
) -> None:
    """What was moved by whole strides looks unlike itself, but pooled features do not notice."""
    pytest.importorskip("cleanlab")
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    for part, count in (("train", 15), ("test", 5)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                texture(rng).save(root / part / name / f"{i}.png")
    for source, copy in (
        *(("train/cat/0", "train/cat/moved"), ("train/cat/1", "train/dog/moved")),
        *(("train/dog/2", "test/dog/moved"), ("test/cat/3", "train/dog/moved too")),
    ):
        moved = np.roll(np.asarray(Image.open(root / f"{source}.png")), (8, 8), axis=(0, 1))
        Image.fromarray(moved).save(root / f"{copy}.png")
    words = ("data=image_folder", f"data.root={root}", "data.validation=0.2")
    network = (*BACKBONE, "features.precision=float32")
    looks = alike(tlbench, *words, out=tmp_path / "looks")
    assert "moved" not in str(looks)
    found = alike(tlbench, *words, *network, out=tmp_path / "seen")
    # The closest come first; of pictures as simple as these others are near, too.
    classes = found["alike to the network, in another class"]
    assert set(classes[:4]) == {
        *("train/cat/1", "train/dog/moved", "test/cat/3", "train/dog/moved too"),
    }
    within = [*found["alike to the network, in another split"], *found["alike to the network"]]
    assert {"train/dog/2", "test/dog/moved", "train/cat/0", "train/cat/moved"} <= set(within)
    assert "of the usual distance" in (tmp_path / "seen" / "inspect.html").read_text()


def alike(tlbench: Command, *words: str, out: Path) -> dict[str, list[str]]:
    """The pictures of each kind of likeness that an inspection tells of."""
    answer = tlbench("inspect", *words, "--out", str(out))
    assert answer.code == 0, answer.err
    found: dict[str, list[str]] = {}
    for line in lines(out / "corrections.csv") if (out / "corrections.csv").exists() else []:
        if line["problem"].startswith("alike"):
            found.setdefault(line["problem"], []).append(line["path"].removesuffix(".png"))
    return found


def texture(rng: np.random.Generator) -> Image.Image:
    """32 x 32 gray pixels, and on them, at the upper left, 16 x 16 of patches in colours of their own."""
    pixels = np.full((32, 32, 3), 128, np.uint8)
    patches = rng.integers(0, 256, (2, 3))[rng.integers(0, 2, (8, 8))]
    pixels[4:20, 4:20] = patches.repeat(2, axis=0).repeat(2, axis=1)
    return Image.fromarray(pixels)
