"""Tables of pictures: what is read of them, what is refused, and which pictures stay on one side of a split."""

import csv
import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlbench as face
from helpers import BACKBONE, SHORT, Answer, make_config
from tlbench.base.errors import ConfigError, DataError
from tlbench.data import datasets, tabular
from tlbench.data.datasets import Dataset
from tlbench.data.images import ArrayImages
from tlbench.data.resize import Resize
from tlbench.data.sources import Contents
from tlbench.runs.run import Run

Command = Callable[..., Answer]
SIDE = Resize(8, "crop", "bilinear")


def paint(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def write(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """40 pictures of 8 patients in two classes, in `it's a (set)/`, and their table beside them."""
    rows = [["path", "label", "patient", "age"]]
    for i in range(40):
        name = f"p{i % 8}_{i}.png"
        paint(tmp_path / "it's a (set)" / "pictures" / name, i)
        rows.append([f"pictures/{name}", ("ill", "well")[i % 2], f"p{i % 8}", str(20 + i)])
    return write(tmp_path / "it's a (set)" / "labels.csv", rows)


def load(table: Path, *overrides: str) -> Dataset:
    config = make_config("data=table", f"data.table={table}", *overrides).data
    return datasets.load(config, SIDE)


def refused(table: Path, *overrides: str) -> str:
    with pytest.raises((DataError, ConfigError)) as raised:
        load(table, *overrides)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# ---------------------------------------------------------------- reading

CELLS = {"path": ["a,b.png", "ü.png", 'say "c".png'], "label": ["007", "true", "2024-01-05"]}


def as_csv(delimiter: str, end: str = "\n") -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    writer.writerows([list(CELLS), *zip(*CELLS.values(), strict=True)])
    return text.getvalue()


WAYS = {
    "utf8.csv": as_csv(",").encode(),
    "bom.csv": as_csv(",").encode("utf-8-sig"),
    "windows.csv": as_csv(",", "\r\n").encode(),
    "excel.csv": as_csv(";", "\r\n").encode("cp1252"),
    "utf16.csv": as_csv(",").encode("utf-16"),
    "tabs.tsv": as_csv("\t").encode(),
    "blank lines.csv": as_csv(",").replace("\n", "\n\n").encode(),
    "lines.jsonl": "\n".join(
        json.dumps({"path": path, "label": label})
        for path, label in zip(*CELLS.values(), strict=True)
    ).encode(),
}


@pytest.mark.parametrize("name", WAYS)
def test_one_table_in_many_forms_is_the_same_text(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(WAYS[name])
    assert tabular.read(tmp_path / name, ("path", "label")).columns == CELLS


def test_an_encoding_that_was_guessed_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(WAYS["excel.csv"])
    found = tabular.read(tmp_path / "t.csv", ("path",))
    assert "not UTF-8 (line 3): read as Windows-1252" in found.note


def test_json_values_stay_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"path": "a", "label": 1.50}\n\n{"path": "b", "label": true}\n'
    )
    found = tabular.read(tmp_path / "t.jsonl", ("path",))
    assert found["label"] == ["1.50", "true"]
    assert list(found.lines) == [1, 3]


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"path": ["a", "b"], "label": [1, None]}), tmp_path / "t.parquet")
    assert tabular.read(tmp_path / "t.parquet", ()).columns == {
        "path": ["a", "b"],
        "label": ["1", ""],
    }
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match="cannot be read as a table"):
        tabular.read(tmp_path / "t.parquet", ())


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.csv", "path,label\na,b,c\n", "line 2 has 3 cells where 2 have a name"),
        ("t.csv", "path,path\na,b\n", "two columns are called 'path'"),
        ("t.csv", 'path,label\n"a,b\n', "cannot be read as a table"),
        ("t.csv", "path,label\n", "holds no rows"),
        ("t.csv", "", "holds no rows"),
        ("t.jsonl", '{"path": 1}\n[]\n', "line 2 is no object"),
        ("t.jsonl", "{'path'}\n", "line 1 is no JSON"),
        ("t.xlsx", "", "of no kind known here. Expected .csv"),
    ],
)
def test_what_is_no_table_is_refused(name: str, text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert words in refused(tmp_path / name)
    assert "is no file" in refused(tmp_path / "absent.csv")


# ---------------------------------------------------------------- rows and their pictures


def test_labels_that_look_like_numbers_are_names_and_other_columns_come_along(
    tmp_path: Path,
) -> None:
    labels = ["1", "01", "true", "null", "2024-01-05"]
    rows = [["path", "label", "note"]]
    for i in range(30):
        paint(tmp_path / f"{i}.png", i)
        rows.append([f"{i}.png", labels[i % 5], f"note {i}"])
    dataset = load(write(tmp_path / "t.csv", rows), "data.validation=0.25")
    assert dataset.class_names == sorted(labels)
    row = dataset.splits["test"][0]
    number = int(dataset.file(row).removesuffix(".png"))
    assert dataset.class_names[dataset.labels[row]] == labels[number % 5]
    assert dataset.columns["note"][row] == f"note {number}"


def test_each_defect_is_one_line_with_its_count_and_the_first(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = list(csv.reader(table.open(newline="")))
    twice, without = [rows[1]] * 5, [[f"pictures/none{i}.png", " ", "p", "1"] for i in range(2)]
    write(table, [*rows, *twice, *without, ["pictures/gone.png", "ill", "p9", "30"]])
    with caplog.at_level(logging.WARNING):
        dataset = load(table)
    said = [record.getMessage() for record in caplog.records]
    assert [line for line in said if "labels.csv" in line] == [
        f"5 rows say again what another says in {table} (line 42, 43, 44 and 2 more)",
        f"2 rows have no 'label' and are left out in {table} (line 47, 48)",
    ]
    (gone,) = dataset.unreadable
    assert "gone.png cannot be read" in gone
    assert len(dataset.images) == 40
    message = refused(table, "data.unreadable=refuse")
    assert message.startswith("1 of 41 pictures are not there: pictures/gone.png.")


def test_a_wrong_folder_is_said_before_anything_is_read(table: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    message = refused(table, f"data.root={tmp_path / 'elsewhere'}")
    assert message.startswith("40 of 40 pictures are not there: pictures/p0_0.png, ")
    assert message.endswith("set data.root to the folder that their paths begin in.")
    assert len(load(table, f"data.root={table.parent}").labels) == 40


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.label=labels", "has no column 'labels'. Did you mean 'label'?"),
        ("data.path=file", "has no column 'file'. Expected one of: age, label, path, patient"),
        ("data.split=age", "name no split in"),
        ("data.group=nobody", "has no column 'nobody'. Expected one of: age"),
        ("data.class_names=[ill,healthy]", "is not among data.class_names: well."),
    ],
)
def test_a_column_that_does_not_fit_is_refused(table: Path, override: str, words: str) -> None:
    assert words in refused(table, override)


def test_paths_of_another_system_are_found(table: Path) -> None:
    text = table.read_text().replace("pictures/", "pictures\\")
    table.write_text(text)
    assert len(load(table).labels) == 40


# ---------------------------------------------------------------- splits


def test_a_split_column_binds_and_what_it_does_not_name_is_drawn(table: Path) -> None:
    rows = list(csv.reader(table.open(newline="")))
    parts = ["split", *(["Test"] * 6 + [""] * 10 + ["training"] * 24)]
    write(table, [[*row, part] for row, part in zip(rows, parts, strict=True)])
    dataset = load(table)
    assert {dataset.file(row) for row in dataset.splits["test"]} == {row[0] for row in rows[1:7]}
    assert len(dataset.splits["validation"]) == 3  # a tenth of what is left
    drawn = load(table, "data.split=null")
    assert len(drawn.splits["test"]) == 8  # a fifth, as without the column


@pytest.mark.parametrize("group", ["patient", r"(p\d+)_"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_group_is_never_on_two_sides(table: Path, group: str, seed: int) -> None:
    dataset = load(table, f"data.group={group}", f"data.split_seed={seed}", "data.validation=0.25")
    patients = {
        split: {dataset.file(row).split("/")[1].split("_")[0] for row in rows}
        for split, rows in dataset.splits.items()
    }
    assert sum(map(len, patients.values())) == len(set().union(*patients.values())) == 8
    assert len(patients["test"]) == 2  # a fifth of eight patients who have five pictures each
    for rows in dataset.splits.values():
        assert set(dataset.labels[rows]) == {0, 1}


def test_a_column_called_group_is_taken_unless_it_is_not_wanted(table: Path) -> None:
    text = table.read_text().replace("patient", "group")
    table.write_text(text)
    assert load(table).groups is not None
    assert load(table, "data.group=null").groups is None


def test_equal_pictures_tie_their_groups_together(table: Path) -> None:
    folder = table.parent / "pictures"
    (folder / "p0_0.png").write_bytes((folder / "p1_1.png").read_bytes())
    for seed in range(5):
        dataset = load(table, "data.group=patient", f"data.split_seed={seed}")
        side = {dataset.file(row): split for split, rows in dataset.splits.items() for row in rows}
        assert len({side[f"pictures/p{i % 8}_{i}.png"] for i in (0, 8, 16, 1, 9, 17)}) == 1


def test_patterns_that_fit_nothing_or_are_none_are_refused(table: Path) -> None:
    assert "fits none of 40 paths, such as pictures/p0_0.png" in refused(
        table, r"data.group=(q\d)_"
    )
    assert "is no pattern: missing )" in refused(table, r"data.group=(p\d_")


def test_groups_that_the_data_has_split_itself_are_counted(table: Path) -> None:
    rows = list(csv.reader(table.open(newline="")))
    parts = ["split", *("test" if i < 4 else "train" for i in range(40))]
    write(table, [[*row, part] for row, part in zip(rows, parts, strict=True)])
    dataset = load(table, "data.group=patient", "data.validation=0.25")
    assert dataset.straddling == 4


def contents(labels: np.ndarray, groups: np.ndarray | None = None) -> Contents:
    pixels = np.arange(len(labels) * 12, dtype=np.uint32).view(np.uint8).reshape(-1, 4, 4, 3)
    made = Contents.unbound(ArrayImages.of(pixels[: len(labels)]), labels, ["a", "b"])
    return Contents(*(made.images, made.labels, made.part, made.class_names), groups=groups)


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_part_the_images_and_keep_their_classes(grouped: bool) -> None:
    labels = np.repeat([0, 1], [80, 20])
    groups = np.arange(100) // 2 if grouped else None
    tested = []
    for fold in range(5):
        config = make_config("data=given", "data.folds=5", f"data.fold={fold}").data
        dataset = datasets.load(config, SIDE, contents(labels, groups))
        test = dataset.splits["test"]
        assert np.bincount(labels[test]).tolist() == [16, 4]
        assert not set(test) & {*dataset.splits["train"], *dataset.splits["validation"]}
        tested += test.tolist()
        if groups is not None:
            assert not set(groups[test]) & set(groups[dataset.splits["train"]])
    assert sorted(tested) == list(range(100))


def test_folds_that_cannot_be_drawn_are_refused(table: Path) -> None:
    assert "data.fold=5 is not valid. Expected 0 to 4" in refused(
        table, "data.folds=5", "data.fold=5"
    )
    assert "data.folds=1 is not valid" in refused(table, "data.folds=1")
    message = refused(table, "data.folds=9", "data.group=patient")
    assert message.startswith("data.folds needs at least 9 groups, and there are 8.")
    message = refused(table, "data.folds=30")
    assert message.startswith("data.folds=30 needs a class with at least 30 different images")
    rows = list(csv.reader(table.open(newline="")))
    parts = ["split", *("test" if i < 4 else "train" for i in range(40))]
    write(table, [[*row, part] for row, part in zip(rows, parts, strict=True)])
    assert "this data set brings its own" in refused(table, "data.folds=5")


# ---------------------------------------------------------------- from end to end


def test_a_split_is_written_and_read_again(tlbench: Command, table: Path, tmp_path: Path) -> None:
    words = ("data=table", f"data.table={table}", "data.group=patient", "data.split_seed=3")
    table.write_text(table.read_text() + "pictures/p0_0.png,ill,p0,20\n")
    out = tmp_path / "kept split.csv"
    answer = tlbench("data", "export", *words, "--out", str(out))
    assert answer.code == 0, answer.err
    assert answer.err.count("row says again") == 1
    first = load(table, *words[2:])
    again = load(out, f"data.root={table.parent}")
    for split in datasets.SPLITS:
        np.testing.assert_array_equal(first.ids_of(split), again.ids_of(split))
        np.testing.assert_array_equal(first.labels_of(split), again.labels_of(split))
    assert again.columns["age"][0] == first.columns["age"][first.splits["train"][0]]
    shown = tlbench("data", "export", *words)
    assert shown.out == out.read_text()
    answer = tlbench("data", "export", "data=digits")
    assert (answer.code, len(answer.error_lines)) == (2, 1)
    assert "have no paths" in answer.err


def test_a_run_tells_its_pictures_by_their_names(
    tlbench: Command, table: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("data=table", f"data.table={table}", *BACKBONE, *SHORT[:2], "epochs=1")
    table.write_text(table.read_text() + "pictures/p0_0.png,ill,p0,20\n")
    answer = tlbench("train", *words, "data.group=patient", f"hydra.run.dir={run}")
    assert answer.code == 0, answer.err
    assert answer.err.count("row says again") == 1
    kept = list(csv.DictReader((run / "images.csv").open(newline="")))
    tested = [line for line in kept if line["split"] == "test"]
    assert len(kept) == 40
    predicted = list(csv.DictReader((run / "predictions.csv").open(newline="")))
    assert [line["path"] for line in predicted if line["split"] == "test"] == [
        line["path"] for line in tested
    ]
    assert {line["split"] for line in predicted} == {"test", "validation"}
    shares = [float(predicted[0][f"p({name})"]) for name in ("ill", "well")]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert predicted[0]["prediction"] == ("ill", "well")[int(np.argmax(shares))]
    opened = Run.open(run)
    assert list(opened.predictions["path"]) == [line["path"] for line in tested]
    answer = tlbench("evaluate", str(run))
    assert answer.code == 0, answer.err
    found = json.loads((run / "evaluation" / "evaluation.json").read_text())
    names = {line["path"] for line in tested if line["label"] == "ill"}
    for one in found["worst_mistakes"]:
        assert (one["file"] in names) == (one["true"] == "ill")
    for pair in found["most_confused"]:
        assert 1 <= len(pair["files"]) <= 3
    assert (run / "evaluation" / "predictions.csv").is_file()


def test_folds_end_in_one_row_of_every_picture(
    tlbench: Command, table: Path, tmp_path: Path
) -> None:
    words = ("data=table", f"data.table={table}", *BACKBONE, SHORT[0], "trainable=false")
    folds = ("data.folds=4", "data.fold=range(4)", "data.group=patient")
    answer = tlbench(
        *("train", "--multirun", *words, *folds, "head=logistic,ridge"),
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    )
    assert answer.code == 0, answer.err
    answer = tlbench("report", str(tmp_path / "sweep"), "--json")
    rows = json.loads(answer.out)["rows"]
    assert [row["runs"] for row in rows] == [4, 4]
    right, tested = 0, set()
    for number in range(4):
        for line in csv.DictReader(
            (tmp_path / f"sweep/{number * 2}/predictions.csv").open(newline="")
        ):
            if line["split"] == "test":
                right += line["label"] == line["prediction"]
                tested.add(line["path"])
    assert len(tested) == 40
    alone = tmp_path / "alone"
    answer = tlbench(
        *("train", *words, "data.folds=4", "data.fold=2", "data.group=patient", "head=logistic"),
        f"hydra.run.dir={alone}",
    )
    assert answer.code == 0, answer.err
    shared = tmp_path / "sweep" / "4" / "predictions.npz"
    assert (alone / "predictions.npz").read_bytes() == shared.read_bytes()
    assert rows[0]["evaluation"] == pytest.approx(right / 40)
    answer = tlbench("report", str(tmp_path / "sweep"), "--compare", rows[0]["run"], rows[1]["run"])
    assert answer.code == 0, answer.err
    assert "corrected for folds that overlap" in " ".join(answer.out.split())


def test_a_table_given_in_python_is_the_same_data(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    columns = {name: [line[name] for line in lines] for name in lines[0]}
    words = (*BACKBONE, SHORT[0], "head=logistic", "trainable=false", "data.group=patient")
    run = face.train(*words, table=columns, folder=tmp_path / "run")
    named = load(table, "data.group=patient")
    assert run.files["test"] == [named.file(row) for row in named.splits["test"]]
    with pytest.raises(DataError, match="unlike lengths"):
        face.train(*words, table={"path": ["a", "b"], "label": ["c"]}, folder=tmp_path / "no")
    assert tabular.of({"path": ["a"], "label": [float("nan")]})["label"] == [""]
    with pytest.raises(ConfigError, match="Give one of them"):
        face.train(images=[], labels=[], table=columns)
