"""Pictures become squares by the backbone's interpolation: as Pillow makes them, wherever they are read."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlbench as face
from helpers import BACKBONE, SHORT, Answer, resize_to
from tlbench.data import decoding, images

Command = Callable[..., Answer]

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def expected(picture: Image.Image, way: str, interpolation: str) -> np.ndarray:
    """A picture of 60 x 40 as a square of 16."""
    by = FILTERS[interpolation]
    if way == "crop":  # the middle 40 of 60 columns
        return np.asarray(picture.resize((16, 16), by, box=(10, 0, 50, 40)))
    if way == "stretch":
        return np.asarray(picture.resize((16, 16), by))
    padded = np.zeros((16, 16, 3), np.uint8)  # 40 / 60 * 16 = 10.7 rows, as many above as below
    padded[2:13] = np.asarray(picture.resize((16, 11), by))
    return padded


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("way", ["crop", "pad", "stretch"])
def test_a_square_is_what_pillow_makes(tmp_path: Path, way: str, interpolation: str) -> None:
    path, picture = tmp_path / "a.png", noise(60, 40)
    picture.save(path)
    square, resize = expected(picture, way, interpolation), resize_to(16, way, interpolation)
    np.testing.assert_array_equal(decoding.decode(path, resize), square)
    np.testing.assert_array_equal(decoding.fitted(np.asarray(picture), resize), square)
    for memory in (1e9, 0):
        table, _, _ = images.read([path], resize, memory)
        np.testing.assert_array_equal(table.batch(np.array([0]))[0], square)
        assert interpolation in table.decoding


def test_a_photograph_is_decoded_at_a_size_that_leaves_something_to_interpolate(
    tmp_path: Path,
) -> None:
    smooth = noise(12, 9).resize((1200, 900), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=95)
    found = decoding.decode(tmp_path / "a.jpg", resize_to(64, "stretch", "bicubic")).astype(int)
    whole = np.asarray(smooth.resize((64, 64), Image.Resampling.BICUBIC))
    assert np.abs(found - whole).mean() < 1.5


def test_a_run_trains_evaluates_and_predicts_on_the_same_squares(
    tlbench: Command, photos: Path
) -> None:
    words = ["data=image_folder", f"data.root={photos}", *BACKBONE, *SHORT, "trainable=false"]

    def computed(name: str, interpolation: str) -> int:
        settings = [*words, f"backbone.interpolation={interpolation}", f"hydra.run.dir={name}"]
        answer = tlbench("train", *settings)
        assert answer.code == 0, answer.err
        facts = json.loads(Path(name, "manifest.json").read_text())["features"]
        return int(facts["images_computed"])

    assert computed("bicubic", "bicubic") == 24
    assert computed("bilinear", "bilinear") == 24  # features are those of the squares
    assert computed("again", "bicubic") == 0
    assert "equals the record" in tlbench("evaluate", "bicubic").out
    path = photos / "grass" / "0.png"  # 50 x 40
    picture = Image.open(path).convert("RGB")
    squares = [picture.resize((32, 32), by, box=(5, 0, 45, 40)) for by in FILTERS.values()]
    model = face.load("bicubic")
    bilinear, bicubic = model.probabilities(np.stack([np.asarray(square) for square in squares]))
    found = model.predict([path, np.asarray(picture)]).probabilities
    np.testing.assert_allclose(found, [bicubic, bicubic], rtol=1e-6)
    assert np.abs(bicubic - bilinear).max() > 1e-5
    (row,) = json.loads(tlbench("predict", "bicubic", str(path), "--json").out)
    assert row["confidence"] == pytest.approx(bicubic.max(), abs=2e-6)
