"""Pictures that look alike, and decisions on pictures."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from helpers import make_config
from tlbench.base.errors import DataError
from tlbench.data import datasets, images, near
from tlbench.data.datasets import Dataset
from tlbench.data.images import ArrayImages
from tlbench.data.resize import Resize


def drawing(seed: int) -> Image.Image:
    """A smooth coloured picture of 200 x 150, as photographs are."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((200, 150), Image.Resampling.BICUBIC)


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda picture: picture.resize((90, 70)),
    "gray": lambda picture: picture.convert("L"),
    "mirrored": ImageOps.mirror,
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "cut": lambda picture: picture.crop((2, 2, 198, 148)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_is_like_its_picture_and_no_other(way: str, tmp_path: Path) -> None:
    paths = []
    for seed in range(12):
        paths.append(tmp_path / f"{seed}.png")
        drawing(seed).save(paths[-1])
    paths.append(tmp_path / "copy.jpg")
    WAYS[way](drawing(4)).save(paths[-1], quality=80)
    table, _, _ = images.read(paths, Resize(16, "crop", "bilinear"), 1e9)
    found = near.pairs(near.looks(table))
    assert list(zip(found.first, found.second, strict=True)) == [(4, 12)]
    assert found.mirrored.tolist() == [way == "mirrored"]


def test_looks_of_arrays_and_flat_pictures() -> None:
    pixels = np.stack([np.asarray(drawing(seed).resize((32, 32))) for seed in range(3)])
    pixels = np.concatenate([pixels, pixels[1:2], np.full((2, 32, 32, 3), 250, np.uint8)])
    looks = near.looks(ArrayImages.of(pixels))
    assert looks.flat.tolist() == [False] * 4 + [True] * 2
    assert looks.brightness[4:] == pytest.approx([250, 250], abs=0.1)
    found = near.pairs(looks)
    assert list(zip(found.first, found.second, strict=True)) == [(1, 3)]


# ---------------------------------------------------------------- in splits, and corrected

SIDE = Resize(8, "crop", "bilinear")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of 12 pictures; three more of `cat` are mirrored copies."""
    for name, first in (("cat", 0), ("dog", 100)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(12):
            drawing(first + i).save(tmp_path / "set" / name / f"{i}.png")
    for i in range(3):
        ImageOps.mirror(drawing(i)).save(tmp_path / "set" / "cat" / f"copy {i}.png")
    return tmp_path / "set"


def load(folder: Path, *overrides: str) -> Dataset:
    words = ("data=image_folder", f"data.root={folder}", "data.validation=0.2", *overrides)
    return datasets.load(make_config(*words).data, SIDE)


def test_near_duplicates_stay_on_one_side_where_that_is_asked_for(folder: Path) -> None:
    apart = False
    for seed in range(4):
        for how in ("near", "exact"):
            found = load(folder, f"data.duplicates={how}", f"data.split_seed={seed}")
            side = {found.file(row): split for split, rows in found.splits.items() for row in rows}
            together = all(side[f"cat/{i}.png"] == side[f"cat/copy {i}.png"] for i in range(3))
            assert together or how == "exact"
            apart |= not together
    assert apart  # or the picture proves nothing


def test_corrections_are_obeyed(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = folder.parent / "corrections.csv"
    lines = [
        "path,label,problem,suggestion,decision",
        "cat/copy 0.png,cat,equal,drop,drop",
        "cat/1.png,cat,wrong,dog,Relabel",
        "cat/2.png,cat,wrong,dog,keep",
        "cat/3.png,cat,wrong,dog,",
        "gone.png,cat,equal,drop,drop",
    ]
    file.write_text("\n".join(lines))
    with caplog.at_level(logging.INFO):
        found = load(folder, f"data.corrections={file}")
    assert "Corrections: 1 dropped, 1 relabelled" in caplog.text
    label = {
        found.file(r): found.class_names[found.labels[r]]
        for rows in found.splits.values()
        for r in rows
    }
    assert len(label) == 26
    assert "cat/copy 0.png" not in label
    assert (label["cat/1.png"], label["cat/2.png"], label["cat/3.png"]) == ("dog", "cat", "cat")
    assert found.corrected is not None
    assert (found.corrected["dropped"], found.corrected["relabelled"]) == (1, 1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "cat/1.png,cat,wrong,dog,relable",
            "line 2: unknown decision 'relable'. Did you mean 'relabel'?",
        ),
        (
            "cat/1.png,cat,wrong,cow,relabel",
            "line 2: 'cow' is no class. Expected one of: cat, dog.",
        ),
        (
            "cat/1.png,cat,wrong,dog,relabel\ncat/1.png,cat,equal,drop,drop",
            "line 3: cat/1.png is decided on in two ways. Leave one of them.",
        ),
    ],
)
def test_decisions_that_are_none_are_refused(folder: Path, line: str, words: str) -> None:
    file = folder.parent / "corrections.csv"
    file.write_text(f"path,label,problem,suggestion,decision\n{line}\n")
    with pytest.raises(DataError) as raised:
        load(folder, f"data.corrections={file}")
    assert words in str(raised.value)
