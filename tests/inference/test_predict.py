"""predict: files of every kind in, classes out, whatever else lies among them."""

import csv
import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import resize_to
from tlbench.cli import main
from tlbench.config.checks import load
from tlbench.data.resize import Resize
from tlbench.inference import predict


@pytest.fixture(scope="module")
def pictures(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's test images as PNG files, named by their place in the test split."""
    from tlbench.data import datasets

    folder = tmp_path_factory.mktemp("pictures")
    dataset = datasets.load(load(digits_run / "config.yaml").data, resize_to(8))
    for i, image in enumerate(dataset.images.batch(dataset.splits["test"])):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return folder


def table_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_answers_as_the_recorded_evaluation(
    digits_run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_file, csv_file = tmp_path / "p.json", tmp_path / "p.csv"
    words = ["--json", str(json_file), "--csv", str(csv_file), "--top", "3"]
    assert main.main(["predict", str(digits_run), str(pictures), *words]) == 0
    with np.load(digits_run / "predictions.npz") as saved:
        recorded = saved["probabilities"]
    rows = json.loads(json_file.read_text())
    assert len(rows) == len(recorded)
    for i, row in enumerate(rows):
        assert Path(row["file"]).name == f"{i:03d}.png"
        assert row["class"] == str(recorded[i].argmax())
        assert row["confidence"] == pytest.approx(recorded[i].max(), abs=1e-4)
        assert len(row["top"]) == 3
    assert [line["class"] for line in table_of(csv_file)] == [row["class"] for row in rows]
    assert "class_3" in table_of(csv_file)[0]
    assert f"written to {json_file}" in capsys.readouterr().out


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Images of many kinds and sizes, and files that are none."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    Image.new("L", (30, 40), 200).save(folder / "gray.png")
    Image.new("RGBA", (300, 20), (0, 0, 0, 0)).save(folder / "[b] clear.webp")
    Image.new("P", (9, 9)).save(folder / "palette.gif")
    Image.new("CMYK", (50, 50)).save(folder / "print.jpg")
    Image.fromarray(np.full((12, 12), 40000, np.uint16)).save(folder / "deep.tiff")
    Image.new("RGB", (20_000, 60)).save(folder / "wide.jpg")
    Image.new("RGB", (16, 16)).save(folder / "lies.bmp", format="PNG")
    (folder / "text.png").write_text("not an image")
    (folder / "zero.jpg").touch()
    (folder / "esc\x1b[31m.png").write_text("not an image")
    (folder / "notes.txt").write_text("left alone")
    return folder


def test_unreadable_files_are_reported_and_the_rest_go_on(
    digits_run: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "p.csv"
    words = [str(mixed), str(mixed / "gray.png"), "missing.png", "--csv", str(target)]
    assert main.main(["predict", str(digits_run), *words]) == 1
    names = [Path(row["file"]).name for row in table_of(target)]
    good = ["[b] clear.webp", "deep.tiff", "gray.png", "lies.bmp", "palette.gif", "print.jpg"]
    assert names == [*good, "wide.jpg"]
    said = capsys.readouterr()
    for words_ in ("text.png: not a readable", "zero.jpg: not a readable", "missing.png: no such"):
        assert words_ in said.err
    assert "4 of 11 could not be read" in said.err
    assert "\x1b[31m" not in said.err


def test_prints_a_table(
    digits_run: Path,
    mixed: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(mixed)
    assert main.main(["predict", str(digits_run), "gray.png", "[b] clear.webp"]) == 0
    out = capsys.readouterr().out
    for words in ("file", "class", "confidence", "runner-up", "gray.png"):
        assert words in out
    assert "[b] clear.webp" in out  # and not swallowed as markup


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_stdout_holds_nothing_else(
    digits_run: Path, pictures: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(digits_run), str(pictures / "00*.png"), f"--{kind}"]
    assert main.main(words) == 0
    out = capsys.readouterr().out
    rows = json.loads(out) if kind == "json" else list(csv.DictReader(out.splitlines()))
    assert len(rows) == 10
    assert set(rows[0]) >= {"file", "class", "confidence"}


def test_patterns_and_folders_name_each_file_once(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/b/2.JPG", "a/b/3.txt", "c[1].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    words = ["a", "a/**/*.png", "c[1].png", "a/b/3.txt", "*.nothing", "empty"]
    found = predict.find([str(tmp_path / word) for word in words])
    problems = found.unreadable
    names = [path.relative_to(tmp_path).as_posix() for path in found.pictures]
    assert names == ["a/1.png", "a/b/2.JPG", "c[1].png", "a/b/3.txt"]
    assert len(problems) == 2
    assert "no such file, folder or match" in problems[0]
    assert "without images" in problems[1]


def test_system_files_and_runs_among_the_pictures_are_left_alone(tmp_path: Path) -> None:
    files = ("a/1.png", "a/._1.png", "a/Thumbs.db", "a/@eaDir/1.png", "outputs/run/plots/c.png")
    for name in (*files, "a/2.svg", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "outputs/run/manifest.json").write_text('{"config_hash": "0"}')
    found = predict.find([str(tmp_path)])
    assert [path.name for path in found.pictures] == ["1.png"]
    assert (found.unreadable, found.others, found.missed) == ([], {".svg": 1, ".txt": 1}, 1)
    pattern = predict.find([str(tmp_path / "**" / "*.png"), str(tmp_path / "a" / "._1.png")])
    names = [path.relative_to(tmp_path).as_posix() for path in pattern.pictures]
    assert names == ["a/1.png", "outputs/run/plots/c.png", "a/._1.png"]


def test_at_most_two_batches_are_in_memory(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlbench.inference import loaded
    from tlbench.runs.run import Run

    decoded, lock = [0], threading.Lock()

    def decode(_: Path, resize: Resize) -> np.ndarray:
        with lock:
            decoded[0] += 1
        return np.zeros((resize.size, resize.size, 3), np.uint8)

    monkeypatch.setattr(predict.decoding, "decode", decode)
    classifier = loaded.load(Run.open(digits_run), "cpu")
    taken = 0
    for batch, _ in predict.predicted(classifier, [Path(f"{i}.png") for i in range(1000)], 1):
        taken += len(batch)
        assert decoded[0] <= taken + loaded.BATCH_IMAGES
    assert taken == 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.png"], "There is no image to classify"),
        (["{mixed}/text.png"], "None of the files is a readable image"),
        (["{mixed}/gray.png", "--top", "0"], "Expected at least 1"),
        (["{mixed}/gray.png", "--csv", "nowhere/p.csv"], "its folder does not exist"),
        (["{mixed}/gray.png", "--json", "{mixed}/print.jpg"], "Expected one that ends in .json"),
        (["{mixed}/gray.png", "--json", "--csv"], "cannot both go to stdout"),
        ([], "arguments are required: PATH"),
    ],
)
def test_words_that_do_not_fit(
    digits_run: Path,
    mixed: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted((path.name, path.stat().st_size) for path in mixed.iterdir())
    assert main.main(["predict", str(digits_run), *(w.format(mixed=mixed) for w in words)]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert sorted((path.name, path.stat().st_size) for path in mixed.iterdir()) == before


def test_a_file_of_predictions_is_whole_or_not_there(
    digits_run: Path, mixed: Path, tmp_path: Path
) -> None:
    target = tmp_path / "p.csv"
    target.write_text("from before")
    words = [str(mixed / "text.png"), "--csv", str(target)]
    assert main.main(["predict", str(digits_run), *words]) == 2
    assert target.read_text() == "from before"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["p.csv"]


def test_completes_runs_formats_and_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("outputs/digits").mkdir(parents=True)
    Path("outputs/digits/manifest.json").touch()
    for line, offered in (
        ("tlbench predict ", "outputs/digits"),
        ("tlbench export outputs/digits --format onnx,l", "onnx,litert"),
        ("tlbench export outputs/digits --quantize ", "int8"),
        ("tlbench predict outputs/digits --t", "--top"),
        ("tlbench exp", "export"),
    ):
        monkeypatch.setenv("COMP_LINE", line)
        assert main.main(["-sc", "query=bash"]) == 0
        assert offered in capsys.readouterr().out.split()


def test_words_are_parsed_and_completed_without_tensorflow() -> None:
    code = "import sys; from tlbench.cli import verbs; [verbs.load(name) for name in verbs.NAMES]; "
    code += "sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
