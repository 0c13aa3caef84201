"""`tlbench report` on run folders written by hand in the format of real ones. No TensorFlow."""

import copy
import csv
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, f1_score

from helpers import SMALL, make_config
from tlbench.base import intervals
from tlbench.base.console import THEME
from tlbench.base.errors import RunError
from tlbench.base.files import write_json
from tlbench.cli import main
from tlbench.report import comparison, rows, statistics, tables
from tlbench.runs import metrics, results
from tlbench.runs.recording import Recording
from tlbench.runs.run import Run

ALL = {"fc", "exp0", "exp1", "exp2", "digits", "late", "now"}
REASON = "out of <b>memory</b> | [red]"
CLASSES = [f"class {i}" for i in range(20)]
UNDER_WAY: list[Run] = []


composed = functools.cache(make_config)


def make_run(
    folder: Path,
    *overrides: str,
    evaluation_target: float = 0.8,
    parameters: int = 1_000_000,
    seconds: float = 60.0,
    images: int = 10_000,
    classes: Sequence[str] = CLASSES,
    status: str = "completed",
    reason: str = "",
    fingerprint: str = "0123456789abcdef",
    labels: np.ndarray | None = None,
) -> Path:
    """A run folder as `train` leaves it, with predictions of about the accuracy asked for.

    labels: of the test images; as many of each class where none are given.
    """
    cfg = copy.deepcopy(composed(*overrides))
    splits = {"train": 45_000, "validation": 5_000, "test": images}
    facts = {
        "hardware": {"processor": "test", "device": "cpu", "precision": "float32"},
        "data": {
            "name": cfg.data.name,
            "fingerprint": fingerprint,
            "class_names": list(classes),
            "images": splits,
        },
    }
    run = Recording.start(folder, cfg, "tlbench train " + " ".join(overrides), facts)
    if status == "running":
        UNDER_WAY.append(run)  # which holds its folder as long as it lives
    elif status not in ("killed", "completed"):
        run.record(status=status, **({"reason": reason} if reason else {}))
    if status != "completed":
        return folder
    draw = np.random.default_rng([cfg.seed, *folder.name.encode()])
    if labels is None:
        labels = np.arange(images) % len(classes)
    wrong = draw.random(images) >= evaluation_target
    taken = np.where(
        wrong, (labels + draw.integers(1, len(classes), images)) % len(classes), labels
    )
    probabilities = np.full((images, len(classes)), 0.1 / len(classes), np.float32)
    probabilities[np.arange(images), taken] += 0.9
    np.savez_compressed(folder / "predictions.npz", labels=labels, probabilities=probabilities)
    found = {
        **{"parameters": parameters, "accuracy": evaluation_target + 0.05, "epochs": 5},
        "val_accuracy": evaluation_target + 0.01,
        **metrics.metrics(labels, probabilities, list(classes)),
        **{"training_seconds": seconds, "images_per_second": 45_000 * 5 / seconds},
    }
    write_json(folder / "metrics.json", found)
    lines = ["stage,epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds"]
    for epoch in range(1, 6):
        share = evaluation_target * (1 - 0.6**epoch)
        lines.append(f"train,{epoch},{2 - share},{share},{2.1 - share},{share - 0.02},0.001,12")
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    (folder / "model.keras").write_bytes(b"0" * 1000)
    run.complete()
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the report and others: seeds, a failure, one under way. Tests only read them."""
    folder = tmp_path_factory.mktemp("outputs")
    make_run(folder / "fc", "report=mobilenetv3_fc", evaluation_target=0.63, parameters=4_023_956)
    for seed in (0, 1, 2):
        make_run(
            folder / f"exp{seed}",
            *("report=mobilenetv3_exp", f"seed={seed}"),
            **{"evaluation_target": 0.825, "parameters": 5_565_076, "seconds": 90.0 + seed},
        )
    make_run(
        folder / "digits",
        *("report=resnet50_fc", "data=digits", "backbone.weights=null"),
        **{"evaluation_target": 0.9, "images": 359, "classes": list("0123456789")},
        fingerprint="digits",
    )
    make_run(folder / "late", "backbone=vgg16", status="failed", reason=REASON)
    make_run(folder / "now", "backbone=xception", status="running")
    return folder


def report(*words: object) -> int:
    return main.main(["report", *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line of a command that is bad input."""
    assert report(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("tlbench: error: ")
    return captured.err


def as_json(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    report(*words, "--json")
    return json.loads(capsys.readouterr().out)


# ---------------------------------------------------------------- rows


def test_runs_that_differ_in_seed_become_one_row(runs, capsys):
    found = {row["run"]: row for row in as_json(capsys, runs)["rows"]}
    exp = found["MobileNetV3(exp)"]
    assert exp["seeds"] == [0, 1, 2]
    assert exp["runs"] == 3
    single = [results.read(runs / f"exp{seed}").metrics["evaluation"] for seed in range(3)]
    assert exp["evaluation"] == pytest.approx(np.mean(single))
    assert exp["evaluation_std"] == pytest.approx(np.std(single, ddof=1))
    assert exp["evaluation_low"] is None
    assert len(as_json(capsys, runs, "--each")["rows"]) == len(found) + 2


def test_names_say_what_differs(tmp_path):
    for name, *words in (
        ("a", "head=linear"),
        ("b", "head=exp"),
        ("c", "head=exp", "epochs=9"),
        ("d", "head=exp", "trainable=false"),
    ):
        make_run(tmp_path / name, "backbone=mobilenet", *words, images=40)
    names = {row.first.folder.name: row.name for row in rows.rows(results.collect([tmp_path]))}
    assert names == {
        "a": "mobilenet linear",
        "b": "mobilenet exp all layers epochs=5",
        "c": "mobilenet exp all layers epochs=9",
        "d": "mobilenet exp head only",
    }


def test_names_tell_the_data_where_it_differs(tmp_path):
    for folder, root, epochs, contents in (
        ("a", "big/photos.v2", 5, "one"),
        ("b", "big/emoji", 9, "two"),
        ("c", "small/emoji", 5, "three"),
    ):
        words = ("data=image_folder", f"data.root={tmp_path / root}", f"epochs={epochs}")
        make_run(tmp_path / folder, *words, fingerprint=contents, images=40)
    made = rows.rows(results.collect([tmp_path]))
    names = {row.first.folder.name: row.name for row in made}
    assert names == {
        "a": "mobilenetv3 photos.v2",
        "b": "mobilenetv3 big/emoji",
        "c": "mobilenetv3 small/emoji",
    }
    made = rows.rows([row.first for row in made if row.first.folder.name != "c"])
    names = {row.first.folder.name: row.name for row in made}
    assert names == {"a": "mobilenetv3 photos.v2", "b": "mobilenetv3 emoji"}


def test_a_table_of_pictures_and_a_model_file_are_called_by_their_names(tmp_path):
    for folder, table in (("a", "left.csv"), ("b", "right.csv")):
        words = ("data=table", f"data.table={tmp_path / table}", f"backbone.weights={SMALL}")
        make_run(tmp_path / folder, "backbone=file", *words, fingerprint=folder, images=40)
    made = rows.rows(results.collect([tmp_path]))
    assert {row.name for row in made} == {"small left", "small right"}


def test_where_takes_paths_as_they_are_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        words = ("data=image_folder", f"data.root={tmp_path / 'sets' / folder}")
        make_run(tmp_path / folder, *words, "backbone=file", f"backbone.weights={SMALL}", images=40)
    found = results.collect([tmp_path])
    for condition in ("data.root=sets/a", "data.root=./sets/a/", f"data.root={tmp_path}/sets/a"):
        assert [r.folder.name for r in rows.where(found, [condition])] == ["a"]
    assert rows.where(found, ["data.root=a"]) == []
    assert len(rows.where(found, [f"backbone.weights={os.path.relpath(SMALL)}"])) == 2
    assert len(rows.where(found, ["backbone=small", "data=b"])) == 1


def test_runs_on_other_data_are_not_merged(tmp_path):
    make_run(tmp_path / "a", images=40, fingerprint="one")
    make_run(tmp_path / "b", "seed=1", images=40, fingerprint="two")
    assert len(rows.rows(results.collect([tmp_path]))) == 2


def test_unfinished_runs_are_rows_with_their_reason(runs, capsys):
    found = {row["run"]: row for row in as_json(capsys, runs)["rows"]}
    assert found["vgg16 default cifar100"]["reason"] == REASON
    assert found["xception default cifar100"]["status"] == "running"
    report(runs)
    assert f"failed: {REASON}" in " ".join(capsys.readouterr().out.split())


def test_a_run_that_was_killed_says_how_to_go_on(tmp_path, capsys):
    make_run(tmp_path / "a b", status="killed")
    (row,) = as_json(capsys, tmp_path)["rows"]
    assert row["status"] == "killed"
    assert row["reason"] == "go on with: tlbench train 'resume=a b'"
    report(tmp_path, "--where", "status=killed")
    assert row["reason"] in " ".join(capsys.readouterr().out.split())


def test_wilson_interval():
    # Newcombe (1998), table I: 81 of 263, and 0 of 20.
    assert intervals.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert intervals.wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("backbone=vgg16", {"late"}),
        ("backbone.name=vgg16", {"late"}),
        ("seed=2", {"exp2"}),
        ("status=running", {"now"}),
        ("optimizer=adam", ALL),
        ("optimizer.learning_rate.frozen=1e-3", ALL),
        ("backbone.weights=null", {"digits"}),
        ("trainable=false", {"fc", "digits"}),
        ("head.widths=[1024,1024,512]", {"exp0", "exp1", "exp2"}),
    ],
)
def test_where(runs, condition, kept):
    found = rows.where(results.collect([runs]), [condition])
    assert {result.folder.name for result in found} == kept


def test_several_conditions_all_hold(runs, capsys):
    found = as_json(capsys, runs, "--where", "seed=0", "--where", "backbone=mobilenetv3")["rows"]
    assert {row["run"] for row in found} == {"MobileNetV3(FC)", "MobileNetV3(exp)"}


def test_the_column_that_is_sorted_by_is_shown(runs, capsys):
    report(runs)
    assert "size" not in capsys.readouterr().out.splitlines()[0]
    report(runs, "--sort", "size")
    assert "size" in capsys.readouterr().out.splitlines()[0]


def test_sort_puts_the_best_first_and_rows_without_figures_last(runs, capsys):
    found = as_json(capsys, runs, "--sort", "evaluation")["rows"]
    values = [row["evaluation"] for row in found]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=True)
    assert values[len(known) :] == [None, None]
    cheap = as_json(capsys, runs, "--sort", "time")["rows"]
    assert cheap[0]["training_seconds"] == 60
    assert as_json(capsys, runs, "--sort", "time", "--reverse")["rows"][0]["training_seconds"] == 91


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("width", [20, 40, 80, 160])
def test_table_fits_and_never_breaks_a_word_it_need_not(runs, width):
    from rich.console import Console

    console = Console(width=width, file=io.StringIO(), theme=THEME)
    console.print(tables.Terminal(rows.rows(results.collect([runs]))))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    if width >= 80:
        for heading in ("test", "95 %", "time", "ep") if width < 120 else ("test", "training time"):
            assert heading in text.splitlines()[0]
        for name in ("MobileNetV3(exp)", "  std of 3 seeds", "MobileNetV3(FC)"):
            assert any(line.startswith(name) for line in text.splitlines())


def test_published_rows_stand_beside_comparable_runs_only(runs, capsys):
    found = {row["run"]: row for row in as_json(capsys, runs)["rows"]}
    assert found["MobileNetV3(FC)"]["pass"] is True
    assert found["MobileNetV3(FC)"]["difference"]["parameters"] == 0
    assert "published" not in found["ResNet50(FC) digits"]
    report(runs)
    shown = capsys.readouterr().out
    assert "0.6348" in shown  # MobileNetV3(FC)'s published test accuracy
    assert "0.6551" not in shown  # ResNet50(FC)'s: the run was on other data
    assert " ".join(tables.NOT_COMPARED.split()) in " ".join(shown.split())


def test_check_tells_by_its_exit_code(runs, tmp_path, capsys):
    assert report(runs, "--check") == 0
    assert "check: PASS, 2 compared" in capsys.readouterr().err
    assert report(runs, "--check", "--tolerance", "0.0001") == 1
    make_run(tmp_path / "off", "report=resnet50_all", evaluation_target=0.86, parameters=26_220_949)
    assert report(tmp_path, "--check") == 1
    assert "ResNet50(All) (parameters)" in capsys.readouterr().err
    assert report(runs, "--where", "data=digits", "--check") == 1
    assert "no run can be compared" in capsys.readouterr().err


def test_a_trial_of_the_report_is_not_compared(tmp_path):
    make_run(tmp_path / "a", "report=resnet50_fc", "data.limit=100", images=40)
    make_run(tmp_path / "b", "report=resnet50_fc", "backbone.image_size=96")
    make_run(tmp_path / "c", "report=resnet50_fc", images=9_999)
    assert all(row.verdict(1.0) is None for row in rows.rows(results.collect([tmp_path])))


def test_tolerance_includes_its_end(tmp_path):
    folder = make_run(tmp_path / "a", "report=resnet50_fc", parameters=26_220_948)
    found = json.loads((folder / "metrics.json").read_text())
    write_json(folder / "metrics.json", {**found, "evaluation": 0.6551 + 0.02})
    Recording.open(folder).complete()
    (row,) = rows.rows(results.collect([tmp_path]))
    assert row.verdict(0.02) == []
    assert row.verdict(0.0199) == ["evaluation"]


def test_figures_by_class_stand_beside_the_accuracy_where_classes_differ_in_size(tmp_path, capsys):
    labels = np.repeat([0, 1, 2], [60, 58, 6])
    words = ("data=digits", "report=resnet50_fc")
    kind = {"classes": ["a", "b", "c"], "fingerprint": "uneven", "images": len(labels)}
    make_run(tmp_path / "uneven" / "run", *words, **kind, labels=labels)
    make_run(tmp_path / "even" / "run", *words, **{**kind, "images": 120})
    for name, there in (("uneven", True), ("even", False)):
        page, folder = tmp_path / f"{name}.html", tmp_path / name
        assert report(folder, "--html", page, "--markdown") == 0
        assert ("| balanced accuracy | macro F1 |" in capsys.readouterr().out) is there
        assert ("<th>balanced accuracy</th><th>macro F1</th>" in page.read_text()) is there
        (row,) = as_json(capsys, folder)["rows"]
        with np.load(folder / "run" / "predictions.npz") as saved:
            true, predicted = saved["labels"], saved["probabilities"].argmax(axis=1)
        assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(true, predicted))
        assert row["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"))
    report(tmp_path / "uneven")
    (row,) = rows.rows(results.collect([tmp_path / "uneven"]))
    shown = f"{row.figures['balanced_accuracy']:.4f}"
    assert shown in capsys.readouterr().out
    assert report(tmp_path, "--sort", "balanced_accuracy") == 0


def test_the_page_says_how_surely_the_recall_of_a_class_is_known(tmp_path):
    labels = np.repeat([0, 1, 2], [60, 58, 6])
    words = ("data=digits", "report=resnet50_fc")
    folder = make_run(tmp_path / "a", *words, classes=["a", "b", "c"], images=124, labels=labels)
    assert report(tmp_path, "--html", tmp_path / "r.html") == 0
    text = (
        (tmp_path / "r.html").read_text().partition("Recall by class")[2].partition("</table>")[0]
    )
    with np.load(folder / "predictions.npz") as saved:
        right = saved["probabilities"].argmax(axis=1) == saved["labels"]
    for label, images in enumerate((60, 58, 6)):
        found = binomtest(int(right[labels == label].sum()), images).proportion_ci(method="wilson")
        low, high = (f"{bound:.3f}".removeprefix("0") for bound in (found.low, found.high))
        assert f"<small>{low}-{high}</small>" in text


# ---------------------------------------------------------------- files


def test_csv_and_markdown(runs, tmp_path, capsys):
    assert report(runs, "--csv", tmp_path / "t.csv", "--markdown", tmp_path / "t.md") == 0
    records = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert {record["status"] for record in records} == {"completed", "failed", "running"}
    assert next(r for r in records if r["run"] == "MobileNetV3(exp)")["runs"] == "3"
    lines = [line for line in (tmp_path / "t.md").read_text().splitlines() if line.startswith("|")]
    cells = {line.replace("\\|", "").count("|") for line in lines}
    left_out = len(tables.OF_CLASSES) + len(tables.OF_SEVERAL)  # classes of one size, one each
    assert cells == {len(tables.COLUMNS) - left_out + 2}
    assert r"out of \<b\>memory\</b\> \| \[red\]" in (tmp_path / "t.md").read_text()
    assert "**PASS**" in (tmp_path / "t.md").read_text()
    assert "MobileNetV3(exp)" in capsys.readouterr().out  # files do not replace the table


def test_stdout_carries_the_format_alone(runs, capsys):
    assert report(runs, "--csv") == 0
    assert capsys.readouterr().out.startswith("run,status,")


# ---------------------------------------------------------------- A against B


def test_mcnemar_is_the_exact_binomial():
    assert comparison.mcnemar(0, 0) == 1.0
    assert comparison.mcnemar(5, 5) == 1.0
    assert comparison.mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert comparison.mcnemar(0, 10_000) == 0.0
    assert 0 < comparison.mcnemar(4_900, 5_100) < 0.05


def test_compare_counts_images_that_one_got_right(tmp_path, capsys):
    for name, predicted in (("a", [0, 1, 1, 0, 0, 1]), ("b", [1, 0, 1, 0, 0, 0])):
        folder = make_run(tmp_path / name, f"head={'exp' if name == 'a' else 'linear'}", images=40)
        labels = np.array([0, 1, 1, 1, 0, 1])
        np.savez(folder / "predictions.npz", labels=labels, probabilities=np.eye(2)[predicted])
        Recording.open(folder).complete()
    found = as_json(capsys, "--compare", tmp_path / "a", tmp_path / "b")["comparison"]
    (pair,) = found["pairs"]
    assert (pair["only_a"], pair["only_b"], pair["images"]) == (3, 0, 6)
    assert pair["difference"] == pytest.approx(0.5)
    low, high = pair["interval"]  # Agresti and Min: n = 8, b = 3.5, c = 0.5
    assert (low, high) == pytest.approx((0.375 - 0.4154, 0.375 + 0.4154), abs=1e-3)
    assert pair["p"] == pytest.approx(0.25)
    report("--compare", tmp_path / "a", tmp_path / "b")
    assert "6 test images do not tell them apart" in capsys.readouterr().out


def test_compare_pairs_seeds(tmp_path, capsys):
    for head in ("linear", "exp"):
        for seed in (0, 1):
            make_run(
                tmp_path / f"{head}{seed}",
                *(f"head={head}", f"seed={seed}"),
                evaluation_target=0.6 if head == "linear" else 0.8,
            )
    found = as_json(capsys, tmp_path, "--compare", "mobilenetv3 exp", "mobilenetv3 linear")
    assert [pair["seed"] for pair in found["comparison"]["pairs"]] == [0, 1]
    report(tmp_path, "--compare", "mobilenetv3 exp", "mobilenetv3 linear")
    assert "over 2 seeds; A is better in 2" in " ".join(capsys.readouterr().out.split())


def test_compare_refuses_what_does_not_pair(runs, capsys):
    line = refused(capsys, runs, "--compare", "MobileNetV3(FC)", "ResNet50(FC) digits")
    assert "different images" in line
    assert "is failed" in refused(capsys, runs, "--compare", "fc", "late")
    line = refused(capsys, runs, "--compare", "fc", "MobileNetV3(ex)")
    assert "Did you mean 'MobileNetV3(exp)'?" in line


# ---------------------------------------------------------------- the page


class Page(HTMLParser):
    """Tags, ids, text and addresses of a page; tags that do not nest fail."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        assert not {"src", "href", "onclick", "onload"} & {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        links = [value or "" for name, value in attrs if name.endswith("href")]
        assert all(link.startswith("data:image/png;base64,") for link in links)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_page_holds_every_part_and_nothing_from_elsewhere(runs, tmp_path):
    assert report(runs, "--html", tmp_path / "r.html", "--compare", "fc", "exp0") == 0
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert page.ids == ["results", "comparison", "differences", "runs"]
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    for outside in ("http:", "https:", "url(", "@import"):
        assert outside not in text
    for words in ("Accuracy against cost", "Pareto", "Validation loss", "F1 by class", "✓ PASS"):
        assert words in page.words
    assert page.tags.count("figure") == 2 * 7  # two test sets: three costs, four curves each
    assert page.words.count("Confusion matrix of") == 3
    assert REASON in page.words  # as words, not as a tag


def test_page_of_very_many_classes_shows_the_hardest_and_says_so(tmp_path):
    make_run(tmp_path / "run", images=390, classes=[f"class {i}." for i in range(130)])
    assert report(tmp_path, "--html", tmp_path / "r.html") == 0
    page = Page((tmp_path / "r.html").read_text())
    assert len(re.findall(r"class \d+\.", page.words)) == 2 * 100  # F1 and recall
    assert "And 30 better ones, in the runs' metrics.json." in page.words
    assert "predicted ones: the 100 classes with the most mistakes, of 130;" in page.words


def test_page_escapes_what_runs_say(tmp_path):
    evil = "</title><script>alert('x')</script>\"&"
    folder = make_run(tmp_path / "x'<i>", images=40, classes=[evil, "b"])
    make_run(tmp_path / "y", "head=exp", images=40, classes=[evil, "b"])
    (folder / "history.csv").unlink()
    assert report(tmp_path, "--html", tmp_path / "r.html") == 0
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert "i" not in page.tags or "<i>" not in text.replace('<i style="--share', "")
    assert evil in page.words
    assert "has no history.csv" in page.words


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_finds_the_parts(runs, tmp_path):
    report(runs, "--html", tmp_path / "r.html")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = ["chromium", *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    address = (tmp_path / "r.html").as_uri()
    done = subprocess.run(
        [*command, address], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.count("<figure>") == 14
    for part in ('id="results"', 'id="differences"', 'id="runs"', "F1 by class"):
        assert part in done.stdout


# ---------------------------------------------------------------- bad input


def test_bad_words_are_one_line(runs, tmp_path, capsys, monkeypatch):
    assert "does not exist" in refused(capsys, tmp_path / "none")
    assert "No run in" in refused(capsys, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert "There is no outputs/ here" in refused(capsys)
    assert "Did you mean 'evaluation'?" in refused(capsys, runs, "--sort", "evaluatoin")
    assert "Did you mean 'backbone'?" in refused(capsys, runs, "--where", "backbon=x")
    assert "Expected key=value" in refused(capsys, runs, "--where", "backbone")
    assert "No run has seed=77" in refused(capsys, runs, "--where", "seed=77")
    assert "--tolerance" in refused(capsys, runs, "--tolerance", "abc")
    assert "0 to 1" in refused(capsys, runs, "--tolerance", "nan")
    assert "--reverse" in refused(capsys, runs, "--reverse")
    assert "--help" in refused(capsys, runs, "--unknown")
    assert "can go to stdout" in refused(capsys, runs, "--csv", "--json")
    assert "is a folder" in refused(capsys, "--json", runs)


def test_nothing_is_written_when_anything_cannot_be(runs, tmp_path, capsys):
    line = refused(capsys, runs, "--csv", tmp_path / "t.csv", "--html", tmp_path / "no" / "r.html")
    assert "does not exist" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "content", "sealed"),
    [
        ("manifest.json", "{", False),
        ("manifest.json", '{"status": "completed"}', False),
        ("manifest.json", '{"status": "completed", "format": 99}', False),
        ("metrics.json", '{"evaluation": 0.5}', False),
        # What follows was written by something that knows how to record checksums.
        ("metrics.json", "[]", True),
        ("metrics.json", '{"evaluation": "high"}', True),
        ("metrics.json", '{"evaluation": NaN}', True),
        ("metrics.json", '{"evaluation": 0.5, "test_images": -1}', True),
        ("metrics.json", "{", True),
        ("config.yaml", "a: [", True),
        ("config.yaml", "", True),
    ],
)
def test_damaged_runs_are_told_and_the_rest_is_shown(tmp_path, capsys, file, content, sealed):
    folder = make_run(tmp_path / "bad", images=40)
    (folder / file).write_text(content)
    if sealed:
        Recording.open(folder).complete()
    refused(capsys, tmp_path)  # nothing else is there
    make_run(tmp_path / "good", images=40)
    assert report(tmp_path) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert str(folder) in captured.err
    assert "damaged" in captured.out
    assert "mobilenetv3" in captured.out


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"])
def test_damaged_predictions(tmp_path, capsys, content):
    folder = make_run(tmp_path / "a", images=40)
    (folder / "predictions.npz").write_bytes(content)
    Recording.open(folder).complete()
    make_run(tmp_path / "b", "head=exp", images=40)
    assert "predictions.npz is damaged" in refused(capsys, tmp_path, "--compare", "a", "b")
    assert report(tmp_path, "--html", tmp_path / "r.html") == 0
    assert "predictions.npz is damaged" in Page((tmp_path / "r.html").read_text()).words


def test_predictions_are_never_unpickled(tmp_path):
    folder = make_run(tmp_path / "a", images=40)
    objects = np.array([print], dtype=object)
    np.savez(folder / "predictions.npz", labels=objects, probabilities=objects)
    Recording.open(folder).complete()
    with pytest.raises(RunError, match="damaged"):
        Run.open(folder).tested()


@pytest.mark.parametrize("content", ["", "epoch\n", "stage,epoch,loss\ntrain,x,1\n"])
@pytest.mark.parametrize("sealed", [True, False])
def test_damaged_history(tmp_path, content, sealed):
    folder = make_run(tmp_path / "a", images=40)
    (folder / "history.csv").write_text(content)
    if sealed:
        Recording.open(folder).complete()
    with pytest.raises(RunError, match="damaged"):
        Run.open(folder).epochs()


# ---------------------------------------------------------------- the verb


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as exit_:
        report("--help")
    assert exit_.value.code == 0
    assert "tlbench report --html report.html" in capsys.readouterr().out


def test_tab_offers_flags_columns_and_runs(runs, capsys, monkeypatch):
    monkeypatch.chdir(runs.parent)
    monkeypatch.setattr("tlbench.cli.arguments.OUTPUTS", Path(runs.name))

    def offered(line: str) -> list[str]:
        monkeypatch.setenv("COMP_LINE", line)
        assert main.main(["-sc", "query=bash"]) == 0
        return capsys.readouterr().out.split()

    assert "--html" in offered("tlbench report --")
    assert "evaluation" in offered("tlbench report --sort ")
    assert f"{runs.name}/exp0" in offered("tlbench report --check ")
    assert offered("tlbench report --html ") == []  # the shell's own: files


def test_a_sweep_leaves_table_page_and_curves(runs, tmp_path, capsys):
    from tlbench.sweep import table

    found = [*results.collect([runs]), results.Result(tmp_path / "9", "failed", "no folder")]
    table.show(found, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"table.md", "report.html", "curves.png"}
    assert "failed: no folder" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (("--compare", "fc", "exp0"), ("tensorflow", "keras", "sklearn", "matplotlib")),
        (("--html", "r.html"), ("tensorflow", "keras", "matplotlib.pyplot")),
    ],
)
def test_report_imports_no_more_than_it_needs(runs, words, heavy):
    code = (
        "import sys; from tlbench.cli.main import main; "
        f"assert main({['report', str(runs), *words]!r}) == 0; "
        f"heavy = set({heavy!r}) & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_curves_of_several_runs_are_a_picture(runs, tmp_path):
    from PIL import Image

    from tlbench.runs import plots

    histories = [(f"run {i}", Run.open(runs / "fc").epochs()) for i in range(7)]
    plots.all_curves(histories, tmp_path / "curves.png")
    width, height = Image.open(tmp_path / "curves.png").size
    assert width > height > 400


def test_tables_go_into_what_is_no_file(runs, tmp_path):
    """As `--csv /dev/stdout` and `--json >(cat)` do; in a process, which has a stdout of its own."""
    command = [sys.executable, "-m", "tlbench", "report", str(runs)]
    done = subprocess.run(
        [*command, "--csv", "/dev/stdout"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("run,status,")
    with (tmp_path / "out.json").open("w") as out:
        subprocess.run([*command, "--json", "/dev/fd/1"], stdout=out, check=True)
    assert json.loads((tmp_path / "out.json").read_text())["rows"]
    reader, writer = os.pipe()
    words = [*command, "--json", f"/dev/fd/{writer}"]
    done = subprocess.run(words, pass_fds=[writer], capture_output=True, text=True, check=True)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert json.load(pipe)["rows"]
    assert done.stdout.startswith("run ")


def test_folds_are_compared_by_a_test_that_knows_that_they_overlap() -> None:
    gaps, share = [0.02, 0.01, 0.03, 0.0, 0.04], 0.25
    # Nadeau and Bengio 2003: the variance of the mean is (1/k + n2/n1) s^2.
    error = np.sqrt(np.var(gaps, ddof=1) * (1 / 5 + 0.25))
    low, high, p = statistics.resampled(gaps, share)
    quantile = 2.7764451051977987  # of Student's t with four degrees of freedom, 97.5 %
    assert (low, high) == pytest.approx((0.02 - quantile * error, 0.02 + quantile * error))
    assert p == pytest.approx(0.13242, abs=1e-5)
    assert statistics.resampled([0.0] * 3, share)[2] == 1
