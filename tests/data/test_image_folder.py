"""Folders of pictures: which of them are classes, splits or neither, and what is said of the rest."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import TINY, Answer, make_config
from tlbench.base.errors import ConfigError, DataError
from tlbench.config.checks import load as load_config
from tlbench.data import datasets
from tlbench.data.datasets import Dataset
from tlbench.data.index import Index, listed
from tlbench.data.resize import Resize
from tlbench.runs import plots

ROOT = Path("it's a (trial) Übung")
TRAIN = ("train", *TINY[1:-1], "data=image_folder", "epochs=1")


def put(*folders: str, count: int = 4, root: Path = ROOT) -> None:
    """So many different pictures in each folder."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.random.default_rng(abs(hash((folder, i)))).integers(0, 256, (8, 8, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"{i}.png")


def index(*overrides: str, root: Path = ROOT) -> Index:
    config = make_config("data=image_folder", "data.root=x", *overrides).data
    config.root = str(root)
    return listed(config)


def load(*overrides: str) -> Dataset:
    config = make_config("data=image_folder", "data.root=x", *overrides).data
    config.root = str(ROOT)
    return datasets.load(config, Resize(8, config.resize, "bilinear"))


# ---------------------------------------------------------------- splits


@pytest.mark.parametrize(
    "names",
    [("train", "valid", "test"), ("Train", "Val", "Test"), ("training", "validation", "testing")],
)
def test_splits_are_known_in_any_case_and_by_their_usual_names(names: tuple[str, ...]) -> None:
    put(*(f"{split}/{name}" for split in names for name in ("cat", "dog")))
    found = index()
    assert found.class_names == ["cat", "dog"]
    assert {part: found.parts.count(part) for part in set(found.parts)} == {
        "": 8,
        "validation": 8,
        "test": 8,
    }


def test_a_class_called_train_beside_other_classes_is_a_class() -> None:
    put("train", "bus", "test")
    assert index().class_names == ["bus", "test", "train"]
    assert set(index().parts) == {""}


def test_folders_without_pictures_beside_splits_are_no_class() -> None:
    put("train/cat", "train/dog", "test/cat", "test/dog")
    (ROOT / "annotations").mkdir()
    (ROOT / "annotations" / "cat.xml").touch()
    assert index().class_names == ["cat", "dog"]


@pytest.mark.parametrize(
    ("folders", "as_splits", "as_classes"),
    [
        (
            ["train/cat", "train/dog", "bird"],
            "train (cat, dog), with bird in the way",
            "bird, train",
        ),
        (["Train/a", "Train/b", "Test"], "Train (a, b), with Test in the way", "Test, Train"),
        (["train", "test"], "test, train, without classes", "test, train"),
    ],
)
def test_what_may_be_both_is_refused_with_both_readings(
    folders: list[str], as_splits: str, as_classes: str
) -> None:
    put(*folders)
    with pytest.raises(DataError) as refusal:
        index()
    assert f"As splits: {as_splits}. As classes: {as_classes}." in str(refusal.value)
    names = as_classes.replace(" ", "")
    assert f"data.class_names=[{names}]" in str(refusal.value)
    assert index(f"data.class_names=[{names}]").class_names == names.split(",")


def test_two_folders_for_one_split_are_refused() -> None:
    put("train/a", "train/b", "training/a", "test/a")
    with pytest.raises(DataError, match="two folders for one split: train and training"):
        index()


def test_splits_without_one_to_train_on_are_splits() -> None:
    put("val/a", "val/b", "test/a", "test/b")
    assert index().class_names == ["a", "b"]
    with pytest.raises(DataError, match="train"):
        load()


def test_a_class_with_test_images_alone_is_refused() -> None:
    put("train/a", "train/b", "test/a", "test/b", "test/c")
    (ROOT / "train" / "c").mkdir()
    with pytest.raises(DataError, match="Class 'c' has images, but none to train on"):
        load("data.validation=0.5")


# ---------------------------------------------------------------- what is no data


def test_outputs_are_no_class() -> None:
    put("a", "b")
    for run in ("outputs/one", "outputs/sweep/0", "results"):
        put(f"{run}/plots", count=1)
        (ROOT / run / "manifest.json").write_text('{"format": 1, "config_hash": "0"}')
    put("multirun/x/0", count=1)
    (ROOT / "multirun" / "x" / "multirun.yaml").touch()
    (ROOT / "a" / "old").mkdir()
    put("a/old/plots", count=1)
    (ROOT / "a" / "old" / "manifest.json").write_text('{"config_hash": "0"}')
    found = index()
    assert found.class_names == ["a", "b"]
    assert len(found.paths) == 8


def test_a_class_may_be_called_outputs() -> None:
    put("outputs", "inputs")
    (ROOT / "outputs" / "manifest.json").write_text('{"name": "an app"}')
    assert index().class_names == ["inputs", "outputs"]


def test_training_among_the_pictures_twice(
    tlbench: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time there is an outputs folder with plots in it."""
    put("a", "b", count=12)
    monkeypatch.chdir(ROOT)
    for folder in ("outputs/first", "second"):
        answer = tlbench(*TRAIN, "data.root=.", f"hydra.run.dir={folder}")
        assert answer.code == 0, answer.err
        assert "2 classes" in answer.err
    assert Path(load_config(Path("second/config.yaml")).data.root or "") == Path.cwd()


@pytest.mark.parametrize("place", ["", "cat", "train/cat"])
def test_no_run_is_written_over_the_pictures(tlbench: Callable[..., Answer], place: str) -> None:
    put(
        *(
            (f"{split}/{name}" for split in ("train", "test") for name in ("cat", "dog"))
            if place.startswith("train")
            else ("cat", "dog")
        ),
        root=Path("photos"),
    )
    before = sorted(Path("photos").rglob("*"))
    folder = Path("photos", place)
    answer = tlbench(*TRAIN, "data.root=photos", f"hydra.run.dir={folder}")
    assert answer.code == 2
    assert len(answer.error_lines) == 1
    assert f"hydra.run.dir={folder.absolute()} holds pictures of data.root" in answer.err
    sweep = ("--multirun", "seed=0,1", f"hydra.sweep.dir={folder}")
    answer = tlbench(*TRAIN, "data.root=photos", *sweep)
    assert answer.code == 2
    assert f"hydra.sweep.dir={folder.absolute()} holds pictures of data.root" in answer.err
    assert sorted(Path("photos").rglob("*")) == before


def test_what_a_run_left_among_the_classes_is_no_class() -> None:
    put("cat", "dog", "plots", "evaluation/other", "exports", "checkpoint", ".new")
    assert {*index().class_names} == {"cat", "dog", "plots", "evaluation", "exports", "checkpoint"}
    (ROOT / "manifest.json").write_text('{"config_hash": "0123456789abcdef"}')
    assert index().class_names == ["cat", "dog"]


def test_hidden_and_system_files_are_no_pictures_at_any_depth() -> None:
    put("a", "b", "a/deep")
    put("a/.ipynb_checkpoints", "a/deep/@eaDir", "__MACOSX", ".hidden", "a/deep/.x", count=1)
    for name in ("._0.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (ROOT / "a" / name).touch()
    found = index()
    assert found.class_names == ["a", "b"]
    assert len(found.paths) == 12
    assert (found.unreadable, found.left_out) == ([], "")


def test_left_out_files_are_counted_by_suffix_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tlbench.data import pictures

    monkeypatch.setattr(pictures, "formats", lambda: pictures.FORMATS)  # without pillow-heif
    put("a", "b")
    for name in ("1.HEIC", "2.heic", "3.svg", "4.txt", "README"):
        (ROOT / "a" / name).write_text("x")
    Image.new("RGB", (8, 8)).save(ROOT / "beside.png")
    found = index()
    assert found.left_out == (
        "Left out 6 files: 1 beside the class folders, 2 .heic (pip install 'tlbench[heic]' reads them), "
        "1 without suffix, 1 .svg (convert them to PNG or JPEG), 1 .txt"
    )
    assert found.missed == 4
    with pytest.raises(DataError, match=r"2 \.heic.*data\.unreadable=skip"):
        load("data.unreadable=refuse")


def test_pictures_beside_splits_and_beside_their_classes_are_counted() -> None:
    put(".", "train", count=1)
    put("train/a", "train/b", "test/a", "test/b")
    assert index().left_out == "Left out 2 files: 2 beside the class folders"


# ---------------------------------------------------------------- roots that are none


@pytest.mark.parametrize(
    ("make", "root", "words"),
    [
        (lambda: put("."), ROOT, "has pictures but no classes"),
        (lambda: put("one"), ROOT, "holds 1 class (one)"),
        (lambda: put("set/a", "set/b"), ROOT, "holds no classes, but set in it does"),
        (lambda: put("set/a", "set/b") or (ROOT / "notes").mkdir(), ROOT, "but set in it does"),
        (
            lambda: Path("photos.zip").touch(),
            Path("photos.zip"),
            "is an archive. Unpack it (unzip ",
        ),
        (lambda: Path("photo.png").touch(), Path("photo.png"), "is a file"),
        (lambda: Path("x").mkdir(), Path("x"), "holds no images"),
    ],
)
def test_a_root_without_classes_is_refused_before_anything_is_read(
    tlbench: Callable[..., Answer],
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], object],
    root: Path,
    words: str,
) -> None:
    from tlbench.data import images

    make()
    monkeypatch.setattr(images, "read", lambda *_: pytest.fail("pictures were read"))
    answer = tlbench(*TRAIN, f"data.root={root}")
    assert answer.code == 2
    assert len(answer.error_lines) == 1
    assert words in answer.err


@pytest.mark.parametrize(
    ("folder", "words"), [("set/a", "but set in it does"), (".", "has pictures but no classes")]
)
def test_evaluate_says_the_same(
    tlbench: Callable[..., Answer], digits_run: Path, folder: str, words: str
) -> None:
    put(folder, "set/b" if folder != "." else ".")
    answer = tlbench("evaluate", str(digits_run), "data=image_folder", f"data.root={ROOT}")
    assert answer.code == 2
    assert words in answer.error_lines[-1]


# ---------------------------------------------------------------- names


def test_names_of_any_kind_stay_text(tmp_path: Path) -> None:
    put("yes", "no", "1e3", "日本", "007")
    assert index().class_names == ["007", "1e3", "no", "yes", "日本"]
    cfg = make_config("data.class_names=[yes,no,'1e3','007','日本']")
    (tmp_path / "c.yaml").write_text(cfg.to_yaml(), encoding="utf-8")
    again = load_config(tmp_path / "c.yaml")
    assert again.data.class_names == ["yes", "no", "1e3", "007", "日本"]


@pytest.mark.parametrize("name", ["true", "1e3", "null"])
def test_a_name_that_was_not_quoted_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"Quote names such as"):
        make_config(f"data.class_names=[a,{name}]")


def test_one_class_in_two_forms_of_unicode() -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != apart
    put(f"train/{composed}", "train/b", f"test/{apart}", "test/b")
    found = index()
    assert found.class_names == ["b", composed]
    assert np.bincount(found.labels).tolist() == [8, 8]


def test_a_name_that_is_no_utf8_can_be_written_everywhere() -> None:
    put("a", "caf\udce9")  # Latin-1 on disk
    assert index().class_names == ["a", "caf\\xe9"]
    assert load("data.validation=0.34").sha256  # which encodes them


@pytest.mark.filterwarnings("error:Glyph")
def test_a_plot_takes_a_font_that_has_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen
    from matplotlib import font_manager

    from tlbench.runs import fonts

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 500), (500, 500), (500, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "sun"])
    builder.setupCharacterMap({ord("日"): "sun"})
    builder.setupGlyf({".notdef": pen.glyph(), "sun": pen.glyph()})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", "sun"), (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Only Sun", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "sun.ttf")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "sun.ttf")])
    fonts.families_for.cache_clear()
    assert fonts.families_for(frozenset("日")) == (("Only Sun",), frozenset())
    plots.confusion_matrix(np.eye(2, dtype=int), ["日", "a"], "title", tmp_path / "m.png")
    assert not [record for record in caplog.records if record.name.startswith("tlbench")]
    plots.confusion_matrix(np.eye(2, dtype=int), ["本", "a"], "title", tmp_path / "m.png")
    (record,) = [record for record in caplog.records if record.name.startswith("tlbench")]
    assert "No installed font has 本" in record.getMessage()
