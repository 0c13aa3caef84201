"""Pictures that have several classes, or none: how tables say so, how they are split, what is refused."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import make_config
from tlbench.base import labels
from tlbench.base.errors import ConfigError, DataError
from tlbench.data import datasets
from tlbench.data.datasets import Dataset
from tlbench.data.resize import Resize

SIDE = Resize(8, "crop", "bilinear")
TAGS = ["sea|beach", "", "dog", "beach | dog", "sea"]  # of picture i the one at i % 5


def write(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """The names of 100 pictures, no two of them alike."""
    names = [f"{i}.png" for i in range(100)]
    rng = np.random.default_rng(0)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / name)
    return names


def tagged(pictures: list[str]) -> list[tuple[str, str]]:
    return [("path", "label"), *((name, TAGS[i % 5]) for i, name in enumerate(pictures))]


def load(table: Path, *overrides: str) -> Dataset:
    words = ("task=multilabel", "data=table", f"data.table={table}", *overrides)
    return datasets.load(make_config(*words).data, SIDE)


def refused(table: Path, *overrides: str) -> str:
    with pytest.raises((DataError, ConfigError)) as raised:
        load(table, *overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_one_cell_holds_all_classes(pictures: list[str]) -> None:
    found = load(write(Path("labels.csv"), tagged(pictures)))
    assert found.class_names == ["beach", "dog", "sea"]
    expected = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(found.labels, expected * 20)
    assert found.label(0) == "beach|sea"
    assert found.label(1) == ""


@pytest.mark.parametrize("separator", [",", ";", " ", "|", "/"])
def test_what_stands_between_is_a_setting(pictures: list[str], separator: str) -> None:
    rows = [("path", "label"), *((name, f"a{separator}b") for name in pictures[:50])]
    rows += [(name, "a") for name in pictures[50:]]
    found = load(write(Path("labels.csv"), rows), f"data.separator={separator}")
    assert found.class_names == ["a", "b"]
    assert labels.counts(found.labels, 2).tolist() == [100, 50]


def test_a_column_for_each_class(pictures: list[str]) -> None:
    spelled = [("1", "0"), ("true", "false"), ("yes", ""), ("TRUE", "no"), ("1.0", "0.0")]
    rows = [("path", "day", "night", "place")]
    rows += [(name, *spelled[i % 5][:: (1, -1)[i % 2]], "here") for i, name in enumerate(pictures)]
    found = load(write(Path("flags.csv"), rows), "data.label_columns=[day,night]")
    assert found.class_names == ["day", "night"]
    np.testing.assert_array_equal(found.labels, [[1, 0], [0, 1]] * 50)
    assert list(found.columns) == ["place"]


def test_rows_of_one_picture_are_put_together(
    pictures: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("path", "label"), *((name, "a") for name in pictures)]
    rows += [(name, "b") for name in pictures[:40]]
    found = load(write(Path("labels.csv"), rows))
    assert len(found.images) == 100
    np.testing.assert_array_equal(found.labels, [[1, 1]] * 40 + [[1, 0]] * 60)
    assert (
        f"40 rows are of a picture named before in {Path.cwd()}/labels.csv (line 102, 103, 104 and 37 more)"
        in caplog.text
    )


def test_every_split_holds_of_each_class_its_share(pictures: list[str]) -> None:
    """One image in 25 has the rare class: a draw by chance leaves it out of the test images one time in six."""
    rows = [
        (name, f"{tags}|rare" if i % 25 < 2 else tags)
        for i, (name, tags) in enumerate(tagged(pictures)[1:])
    ]
    table = write(Path("labels.csv"), [("path", "label"), *rows])
    for seed in range(10):
        found = load(table, "data.test=0.25", "data.validation=0.25", f"data.split_seed={seed}")
        for split, images in (("test", 25), ("validation", 19)):
            here = found.labels_of(split)
            assert abs(len(here) - images) <= 1
            np.testing.assert_allclose(here.sum(0), found.labels.sum(0) * images / 100, atol=1.6)
            assert here[:, found.class_names.index("rare")].any()


def test_groups_and_equal_pictures_stay_on_one_side(pictures: list[str]) -> None:
    for i in range(0, 20, 2):  # each is equal to the next
        Path(pictures[i + 1]).write_bytes(Path(pictures[i]).read_bytes())
    rows = [("path", "label", "group")]
    rows += [(name, tags, str(i // 4)) for i, (name, tags) in enumerate(tagged(pictures)[1:])]
    table = write(Path("labels.csv"), rows)
    tested = []
    for fold in range(5):
        found = load(table, "data.folds=5", f"data.fold={fold}")
        assert found.straddling == 0
        tested += found.splits["test"].tolist()
    assert sorted(tested) == list(range(100))


def test_an_exported_split_is_read_again(pictures: list[str]) -> None:
    found = load(write(Path("labels.csv"), tagged(pictures)))
    Path("split.csv").write_text(found.listing(), encoding="utf-8")
    again = load(Path("split.csv"))
    assert again.contents == found.contents
    for split in datasets.SPLITS:
        assert sorted(again.ids_of(split)) == sorted(found.ids_of(split))


def test_corrections_name_all_classes_that_are_right(pictures: list[str]) -> None:
    table = write(Path("labels.csv"), tagged(pictures))
    head = ("path", "label", "problem", "suggestion", "decision")
    lines = [
        ("0.png", "", "", "dog|sea", "relabel"),
        ("1.png", "", "", "", "drop"),
        ("2.png", "", "", "", "relabel"),
    ]
    decided = write(Path("corrections.csv"), [head, *lines])
    found = load(table, f"data.corrections={decided}")
    assert [found.label(row) for row in (0, 2, 3)] == ["dog|sea", "", "beach|dog"]
    assert 1 not in np.concatenate(list(found.splits.values()))
    assert found.corrected is not None
    assert (found.corrected["relabelled"], found.corrected["dropped"]) == (2, 1)
    write(decided, [head, ("0.png", "", "", "dog|cat", "relabel")])
    assert "'cat' is no class" in refused(table, f"data.corrections={decided}")


def test_what_cannot_be_meant_is_refused_in_one_line(pictures: list[str]) -> None:
    table = write(Path("labels.csv"), tagged(pictures))
    for words, said in (
        (["data.label_columns=[day]"], "no column 'day'"),
        (["data.label_columns=[label]"], "Column 'label' of"),
        (["data.class_names=[sea,dog]"], "1 label of"),
        (["data.superclasses={wet:[sea,beach],dry:[dog]}"], "needs task=multiclass"),
        (["head=ridge", "trainable=false", "loss.class_weights=balanced"], "trained in steps"),
    ):
        assert said in refused(table, *words)
    single = make_config("data=table", f"data.table={table}").data
    assert len(datasets.load(single, SIDE).class_names) == 4  # each cell is a class, and one empty
    with pytest.raises(ConfigError, match=r"pictures that may have several classes.*data=digits"):
        make_config("task=multilabel", "data=digits")
    with pytest.raises(ConfigError, match="add task=multilabel"):
        make_config("data=table", "data.table=labels.csv", "data.label_columns=[a,b]")
    rows = [("path", "label"), *((name, "a|b") for name in pictures), (pictures[0], "once")]
    assert "Class 'once' has 1 image" in refused(write(Path("rare.csv"), rows))


def test_rows_of_one_picture_agree_on_its_split_and_columns_have_names_of_classes(
    pictures: list[str],
) -> None:
    rows = [("path", "label", "split"), *((name, "a", "train") for name in pictures)]
    table = write(Path("labels.csv"), [*rows, (pictures[3], "b", "test")])
    said = refused(table)
    assert "1 row has another split than the row of the same picture before" in said
    assert "(line 102)" in said
    flags = write(Path("flags.csv"), [("path", "day"), *((name, "1") for name in pictures)])
    assert "not among data.class_names: day" in refused(
        flags, "data.label_columns=[day]", "data.class_names=[sun,moon]"
    )


def test_labels_given_in_python() -> None:
    from tlbench.data.sources import given

    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3))
    cfg = make_config("task=multilabel", "data=given").data
    named = given.contents(pixels, [["a", "b"], [], ["b"], ["a"], ["b", "a"], ["a"]], cfg, SIDE)
    assert named.class_names == ["a", "b"]
    matrix = [[1, 1], [0, 0], [0, 1], [1, 0], [1, 1], [1, 0]]
    np.testing.assert_array_equal(named.labels, matrix)
    cfg = make_config("task=multilabel", "data=given", "data.class_names=[a,b]").data
    np.testing.assert_array_equal(
        given.contents(pixels, np.array(matrix), cfg, SIDE).labels, matrix
    )
    with pytest.raises(DataError, match="0 and 1"):
        given.contents(pixels, np.array(matrix) * 2, cfg, SIDE)
    with pytest.raises(DataError, match="3 columns"):
        given.contents(pixels, np.zeros((6, 3), int), cfg, SIDE)


def test_equal_pictures_that_were_tested_are_found_each_by_its_name(pictures: list[str]) -> None:
    for i in range(0, 60, 3):  # three of each
        for other in (1, 2):
            Path(pictures[i + other]).write_bytes(Path(pictures[i]).read_bytes())
    rows = [
        ("path", "label"),
        *((name, ("a", "b|c")[i // 3 % 2]) for i, name in enumerate(pictures)),
    ]
    table = write(Path("labels.csv"), rows)
    found = load(table)
    again = datasets.load_for_testing(
        make_config("task=multilabel", "data=table", f"data.table={table}").data,
        SIDE,
        found.ids_of("test"),
        every=False,
    )
    assert found.repeated
    tested = [[data.file(row) for row in data.splits["test"]] for data in (found, again)]
    assert len(set(found.ids_of("test"))) < len(tested[0])
    assert tested[0] == tested[1]
