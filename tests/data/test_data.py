"""Data sets: what is read, how it is split, and what is said when it cannot be."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import make_config, resize_to
from tlbench.base.errors import DataError
from tlbench.data import datasets
from tlbench.data.datasets import Dataset
from tlbench.data.images import ArrayImages, as_ids
from tlbench.data.resize import Resize
from tlbench.data.sources import Contents, given


def load(*overrides: str, image_size: int = 16) -> Dataset:
    cfg = make_config(*overrides).data
    return datasets.load(cfg, Resize(cfg.image_size or image_size, cfg.resize, "bilinear"))


def assert_disjoint_and_stratified(dataset: Dataset) -> None:
    rows = np.concatenate(list(dataset.splits.values()))
    assert len(np.unique(rows)) == len(rows)
    for name in datasets.SPLITS:
        assert set(dataset.labels_of(name)) == set(range(len(dataset.class_names)))


def test_digits() -> None:
    digits = load("data=digits")
    assert {n: len(r) for n, r in digits.splits.items()} == {
        "train": 1294,
        "validation": 144,
        "test": 359,
    }
    assert_disjoint_and_stratified(digits)
    pixels = digits.images.batch(np.arange(10))
    assert pixels.shape == (10, 8, 8, 3)
    assert (pixels.dtype, pixels.max()) == (np.uint8, 255)


def test_cifar100_from_the_official_layout(cifar100: Path) -> None:
    for root in (cifar100, cifar100.parent):
        coarse = load(f"data.root={root}")
        assert {n: len(r) for n, r in coarse.splits.items()} == {
            "train": 360,
            "validation": 40,
            "test": 100,
        }
        assert_disjoint_and_stratified(coarse)
    fine = load("data=cifar100_fine", f"data.root={cifar100}", "data.validation=100")
    assert len(fine.class_names) == 100
    assert len(fine.splits["validation"]) == 100
    with (cifar100 / "test").open("rb") as file:
        raw = pickle.load(file)  # made by this test
    first = raw[b"data"][0].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(fine.images.batch(fine.splits["test"][:1])[0], first)
    assert fine.labels_of("test").tolist() == raw[b"fine_labels"]


def test_cifar10_from_the_official_layout(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        labels = (np.arange(40) % 10).tolist()
        batch = {b"data": rng.integers(0, 256, (40, 3072), dtype=np.uint8), b"labels": labels}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=4))
    dataset = load("data=cifar10", f"data.root={tmp_path}")
    assert {n: len(r) for n, r in dataset.splits.items()} == {
        "train": 180,
        "validation": 20,
        "test": 40,
    }


def test_a_pickle_that_would_run_something_is_refused(cifar100: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            import os

            return os.system, (f"touch {tmp_path}/owned",)

    (cifar100 / "train").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(DataError, match="damaged or not a batch"):
        load(f"data.root={cifar100}")
    assert not (tmp_path / "owned").exists()


def test_a_folder_of_pictures(photos: Path) -> None:
    dataset = load("data=image_folder", f"data.root={photos}")
    assert dataset.class_names == ["blue sky", "grass"]
    assert sum(len(rows) for rows in dataset.splits.values()) == 24
    assert_disjoint_and_stratified(dataset)
    assert dataset.images.shape == (16, 16, 3)
    blue = dataset.images.batch(np.flatnonzero(dataset.labels == 0)).mean(axis=(0, 1, 2))
    assert blue.argmax() == 2


def test_folders_for_each_split_are_kept(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    for i, split in enumerate(("train", "val", "test")):
        for name in ("blue sky", "grass"):
            (root / split / name).mkdir(parents=True)
            files = sorted((photos / name).iterdir())[i::3]
            for file in files:
                (root / split / name / file.name).write_bytes(file.read_bytes())
    dataset = load("data=image_folder", f"data.root={root}")
    assert dataset.class_names == ["blue sky", "grass"]
    assert {n: len(r) for n, r in dataset.splits.items()} == {
        "train": 8,
        "validation": 8,
        "test": 8,
    }


def test_unreadable_pictures_are_skipped_or_refused(photos: Path) -> None:
    (photos / "grass" / "broken.jpg").write_bytes(b"no picture")
    dataset = load("data=image_folder", f"data.root={photos}")
    assert len(dataset.unreadable) == 1
    assert "broken.jpg" in dataset.unreadable[0]
    assert len(dataset.images) == 24
    with pytest.raises(DataError, match=r"1 of 25 images cannot be read.*data\.unreadable=skip"):
        load("data=image_folder", f"data.root={photos}", "data.unreadable=refuse")


def test_every_source_of_files_refuses_unreadable_ones_in_the_same_words(photos: Path) -> None:
    (photos / "grass" / "broken.jpg").write_bytes(b"no picture")
    paths = sorted(photos.glob("*/*.*"))
    labels = [path.parent.name for path in paths]
    rows = [f"{path.relative_to(photos)},{path.parent.name}" for path in paths]
    (photos / "table.csv").write_text("\n".join(["path,label", *rows]))
    refuse = "data.unreadable=refuse"
    cfg = make_config("data=given", refuse).data
    for read in (
        lambda: load("data=image_folder", f"data.root={photos}", refuse),
        lambda: load("data=table", f"data.table={photos / 'table.csv'}", refuse),
        lambda: given.contents(paths, labels, cfg, resize_to(8)),
    ):
        with pytest.raises(
            DataError, match=r"^1 of 25 images cannot be read, .*broken\.jpg.* Mend"
        ):
            read()


def test_the_split_is_seeded_apart_from_the_run() -> None:
    first, again, other = (
        load("data=digits", *extra) for extra in ([], ["seed=5"], ["data.split_seed=1"])
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_the_fingerprint_follows_the_content(photos: Path) -> None:
    before = load("data=image_folder", f"data.root={photos}").fingerprint
    assert load("data=image_folder", f"data.root={photos}").fingerprint == before
    Image.new("RGB", (30, 30)).save(photos / "grass" / "0.png")
    assert load("data=image_folder", f"data.root={photos}").fingerprint != before


def test_equal_pictures_are_never_on_both_sides(photos: Path) -> None:
    for path in list(photos.glob("*/*")):
        shutil.copy(path, path.with_name(f"copy_of_{path.name}"))
    dataset = load("data=image_folder", f"data.root={photos}", "data.test=0.25")
    train, validation, test = (set(dataset.ids_of(split).tolist()) for split in datasets.SPLITS)
    assert not train & test
    assert not train & validation
    assert not validation & test
    assert dataset.repeated == 24
    assert len(dataset.splits["test"]) == 12


def test_a_count_is_exact_though_some_pictures_are_equal(photos: Path) -> None:
    for name in ("0.png", "3.png", "6.png"):
        shutil.copy(photos / "grass" / name, photos / "grass" / f"copy_of_{name}")
    dataset = load("data=image_folder", f"data.root={photos}", "data.test=7", "data.validation=5")
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {
        **{"train": 27 - 12, "validation": 5, "test": 7}
    }
    train = set(dataset.ids_of("train").tolist())
    assert not train & {*dataset.ids_of("validation").tolist(), *dataset.ids_of("test").tolist()}


class Counted(np.ndarray):
    """An array that counts the elements that are compared or computed with, it or what is taken from it."""

    elements = 0

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [np.asarray(given) for given in inputs]
        Counted.elements += max(given.size for given in plain)
        return getattr(ufunc, method)(*plain, **options)


def test_splitting_many_images_of_many_classes_takes_a_few_passes() -> None:
    """Half of the images are their only one, the others ten times there: a count is met by moving some singly."""
    images, classes = 40_000, 500
    kinds = np.concatenate(
        [np.arange(images // 2), np.repeat(np.arange(images // 20), 10) + images]
    )
    ids = as_ids([int(kind).to_bytes(16, "big") for kind in kinds])
    table = ArrayImages(np.broadcast_to(np.uint8(0), (images, 1, 1, 3)), ids)
    names = [f"class {i}" for i in range(classes)]
    given = Contents.unbound(table, kinds % classes, names)
    given = replace(given, labels=given.labels.view(Counted))
    Counted.elements = 0
    cfg = make_config("data=given", "data.test=9000", "data.validation=2000").data
    dataset = datasets.load(cfg, resize_to(1), given)
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {
        **{"train": images - 11_000, "validation": 2000, "test": 9000}
    }
    assert not set(dataset.ids_of("train").tolist()) & set(dataset.ids_of("test").tolist())
    assert Counted.elements < 20 * images  # not every image for every one that moves


def test_a_picture_in_two_classes_is_told(photos: Path) -> None:
    shutil.copy(photos / "grass" / "0.png", photos / "blue sky" / "also.png")
    dataset = load("data=image_folder", f"data.root={photos}")
    assert (dataset.repeated, dataset.contradictory) == (1, 1)


def test_a_class_that_can_only_be_tested_is_refused(photos: Path) -> None:
    (photos / "train").mkdir()
    (photos / "test").mkdir()
    for name in ("blue sky", "grass"):
        shutil.copytree(photos / name, photos / "test" / name)
        shutil.move(photos / name, photos / "train" / name)
    shutil.rmtree(photos / "train" / "grass")
    (photos / "train" / "grass").mkdir()
    with pytest.raises(DataError, match="Class 'grass' has images, but none to train on"):
        load("data=image_folder", f"data.root={photos}")


def test_a_limit_keeps_the_classes_balanced() -> None:
    few = load("data=digits", "data.limit=100")
    sizes = {n: len(r) for n, r in few.splits.items()}
    assert sizes == {"train": 90, "validation": 10, "test": 25}
    assert np.bincount(few.labels_of("train")).tolist() == [9] * 10


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=cifar100", "data.root=empty"], "no file 'train'"),
        (["data=image_folder", "data.root=nowhere"], "does not exist"),
        (["data=image_folder", "data.root=a_file"], "is a file"),
        (["data=image_folder", "data.root=empty"], "no images"),
        (["data=image_folder", "data.root=single"], "1 class (only)"),
        (
            ["data=image_folder", "data.root=scarce"],
            "Class 'b' has 1 image to split by data.test=0.2; it needs at least 3, equal",
        ),
        (
            ["data=image_folder", "data.root=scarce2", "data.test=0.5"],
            "Class 'b' has 1 image left to split by data.validation=0.1; it needs at least 3 in all",
        ),
        (
            ["data=image_folder", "data.root=scarce_parts"],
            "Class 'b' has 1 image to split by data.validation=0.1; it needs at least 2, equal",
        ),
        (["data=image_folder", "data.root=hollow"], "Class 'b' has no readable image"),
        (["data=digits", "data.validation=9"], "data.validation=9"),
        (["data=digits", "data.test=1797"], "data.test=1797"),
        (["data=digits", "data.limit=19"], "Expected at least 20"),
        (["data=digits", "data.class_names=[a,b]"], "Labels go up to 9"),
    ],
)
def test_what_cannot_be_split_or_read(tmp_path: Path, overrides: list[str], words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a_file").touch()
    for folder, counts in {
        "single": {"only": 4},
        "scarce": {"a": 8, "b": 1},
        "scarce2": {"a": 8, "b": 2},
        "scarce_parts": {"train/a": 8, "train/b": 1, "test/a": 8, "test/b": 8},
        "hollow": {"a": 8, "b": 0},
    }.items():
        for name, count in counts.items():
            (tmp_path / folder / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (8, 8), (i, len(name), ord(name[-1]))).save(
                    tmp_path / folder / name / f"{i}.png"
                )
    with pytest.raises(DataError) as refusal:
        load(*overrides)
    assert words in str(refusal.value)
