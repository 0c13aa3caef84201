"""What `summary --show` draws is what training draws."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import MOBILENET, Answer, make_config, resize_to
from tlbench.data import datasets
from tlbench.training.preview import preview

Command = Callable[..., Answer]


def test_a_preview_has_a_row_for_a_class_and_a_column_for_a_draw() -> None:
    cfg = make_config(*MOBILENET, "augment=standard", "seed=3")
    found = preview(cfg)
    assert found.names == ["0", "1", "2", "3", "4", "5"]
    assert [*found.columns] == ["as it is", *(f"draw {n}" for n in range(1, 7))]
    shapes = {(pictures.shape, pictures.dtype.name) for pictures in found.columns.values()}
    size = datasets.load(cfg.data, resize_to(32)).images.shape
    assert shapes == {((6, *size), "uint8")}
    assert len({pictures.tobytes() for pictures in found.columns.values()}) == 7
    again = preview(cfg).columns
    assert all(np.array_equal(again[name], pictures) for name, pictures in found.columns.items())


def test_a_picture_is_drawn_and_nothing_else_is_left(tlbench: Command, tmp_path: Path) -> None:
    answer = tlbench("summary", *MOBILENET, "augment=strong", "--show", "drawn.png")
    assert answer.code == 0, answer.err
    assert "drawn in drawn.png" in answer.out
    assert [path.name for path in tmp_path.iterdir()] == ["drawn.png"]
    with Image.open(tmp_path / "drawn.png") as picture:
        assert min(picture.size) > 500
        assert len(picture.convert("RGB").getcolors(10**6) or []) > 200
