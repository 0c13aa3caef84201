"""Pictures made of two digits: each has up to two classes. From the table to the exported model."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import tlbench as face
from helpers import BACKBONE, Answer, make_config, once
from tlbench.data.datasets import Dataset
from tlbench.data.images import ArrayImages
from tlbench.networks.hardware import keras
from tlbench.runs import metrics, multilabel
from tlbench.runs.run import Run
from tlbench.training import losses

Command = Callable[..., Answer]


def paint(folder: Path) -> None:
    """500 pictures of 16 x 16 with a digit from 0 to 4 on either side, or none, and their table."""
    digits, rng = load_digits(n_class=5), np.random.default_rng(0)
    (folder / "two digits").mkdir()
    rows = [("path", "label")]
    for i in range(500):
        pixels, names = rng.integers(0, 30, (16, 16)).astype(np.uint8), set()
        for side in (0, 8):
            if rng.random() < 0.75:
                which = rng.integers(len(digits.images))
                pixels[4:12, side : side + 8] = np.rint(digits.images[which] * 15)
                names.add(f"digit {digits.target[which]}")
        Image.fromarray(pixels).save(folder / "two digits" / f"{i}.png")
        rows.append((f"two digits/{i}.png", "|".join(sorted(names))))
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    table = once(tmp_path_factory, "two digits", paint) / "labels.csv"
    return ("task=multilabel", "data=table", f"data.table={table}", *BACKBONE, "data.limit=400",
            "features.precision=float32", "head.widths=[16]", "epochs=2")  # fmt: skip


def test_from_the_table_to_the_exported_model(tlbench: Command, words: tuple[str, ...]) -> None:
    trained = tlbench(
        "train", *words, "head=logistic", "head.widths=[]", "trainable=false", "hydra.run.dir=run"
    )
    assert trained.code == 0, trained.err
    assert "mAP" in trained.out
    run = Run.finished(Path("run"))
    figures, (labels, given) = run.metrics, run.tested()
    assert labels.shape == given.shape == (100, 5)

    # The figures, worked out apart: average precision by its sum, the rest by counting.
    average = []
    for there, p in zip(labels.T, given.T, strict=True):
        ranked = there[np.argsort(-p, kind="stable")]
        precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
        average.append(precision[ranked == 1].mean())
    assert figures["mean_average_precision"] == pytest.approx(np.mean(average), abs=1e-6)
    thresholds = [figures["per_class"][name]["threshold"] for name in run.class_names]
    said = given >= thresholds
    assert figures["evaluation"] == pytest.approx((said == labels).all(axis=1).mean())
    hits, false, missed = (
        (said & (labels == 1)).sum(0),
        (said & (labels == 0)).sum(0),
        (~said & (labels == 1)).sum(0),
    )
    assert figures["macro_f1"] == pytest.approx((2 * hits / (2 * hits + false + missed)).mean())
    assert figures["micro_f1"] == pytest.approx(2 * hits.sum() / (2 * hits + false + missed).sum())
    crossed = -np.where(labels, np.log(given), np.log1p(-given)).mean()
    assert figures["evaluation_loss"] == pytest.approx(crossed, rel=1e-4)
    assert (
        np.mean(average) > 2 * labels.mean()
    )  # chance is the share of the images that have the class

    evaluated = tlbench("evaluate", "run")
    assert evaluated.code == 0, evaluated.err
    assert "equals the record" in evaluated.out
    assert "not digit" in evaluated.out
    confusion = np.array(
        json.loads(Path("run/evaluation/evaluation.json").read_text())["confusion"]
    )
    np.testing.assert_array_equal(confusion[:, 1, 1], hits)
    np.testing.assert_array_equal(confusion[:, 0, 1], false)
    assert Path("run/plots/confusion_matrix.png").stat().st_size > 5000

    with Path("run/predictions.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    picture = Path(words[2].partition("=")[2]).parent / first["path"]
    predicted = tlbench("predict", "run", str(picture), "--json")
    (answer,) = json.loads(predicted.out)
    assert answer["classes"] == [name for name in first["prediction"].split("|") if name]
    loaded = face.load("run")
    assert loaded.predict(picture).names == [first["prediction"]]
    table = run.predictions
    assert table["predicted"][0] == first["prediction"]

    for form in ("keras", "onnx"):
        exported = tlbench("export", "run", "--format", form)
        assert exported.code == 0, exported.err
        facts = json.loads(Path(f"run/exports/{form}/export.json").read_text())
        assert facts["output"]["thresholds"] == dict(zip(run.class_names, thresholds, strict=True))
        assert facts["parity"]["accuracy"] == facts["parity"]["accuracy_of_model"]

    reported = tlbench("report", "run", "--html", "page.html")
    assert reported.code == 0, reported.err
    assert f"{figures['mean_average_precision']:.4f}" in tlbench("report", "run", "--csv").out
    assert "An image may have several classes" in Path("page.html").read_text()


def test_fine_tuning_goes_on_to_the_bit(tlbench: Command, words: tuple[str, ...]) -> None:
    settings = (
        *words,
        "loss=focal",
        "loss.class_weights=balanced",
        "early_stopping.monitor=val_map",
    )
    assert tlbench("train", *settings, "hydra.run.dir=whole").code == 0
    assert tlbench("train", *settings, "epochs=1", "hydra.run.dir=parts").code == 0
    gone_on = tlbench("train", "resume=parts", "epochs=2")
    assert gone_on.code == 0, gone_on.err
    whole, parts = Run.finished(Path("whole")), Run.finished(Path("parts"))
    np.testing.assert_array_equal(whole.tested()[1], parts.tested()[1])
    best = [epoch["val_map"] for epoch in whole.epochs()]
    assert best == [epoch["val_map"] for epoch in parts.epochs()]


@pytest.mark.parametrize("head", ["default", "ridge", "class_mean", "nearest"])
def test_every_head_saves_the_model_that_it_was_judged_as(
    tlbench: Command, words: tuple[str, ...], head: str
) -> None:
    kept = [word for word in words if not word.startswith("head.widths")]
    narrow = ["head.widths=[16]"] if head == "default" else []
    folder = "hydra.run.dir=run"
    answer = tlbench("train", *kept, f"head={head}", *narrow, "trainable=false", folder)
    assert answer.code == 0, answer.err
    assert "equals the record" in tlbench("evaluate", "run").out


def test_bench_and_folds(tlbench: Command, words: tuple[str, ...]) -> None:
    short = ("bench.draws=2", "bench.steps=5", "bench.shots=[5]", "bench.shares=[0.5]")
    kept = [word for word in words if not word.startswith(("head.widths", "epochs"))]
    benched = tlbench("bench", *kept, *short, "--out", "bench")
    assert benched.code == 0, benched.err
    assert "majority class" in benched.out
    folds = (
        "--multirun",
        *kept,
        "head=ridge",
        "trainable=false",
        "data.folds=3",
        "data.fold=range(3)",
    )
    swept = tlbench("train", *folds, "hydra.sweep.dir=a")
    assert swept.code == 0, swept.err
    runs = [Run.finished(Path("a") / str(i)) for i in range(3)]
    pooled = sum(run.metrics["evaluation"] * run.metrics["test_images"] for run in runs)
    total = sum(run.metrics["test_images"] for run in runs)
    assert f"{pooled / total:.4f}" in tlbench("report", "a").out


def test_inspection_doubts_classes_one_by_one(tlbench: Command, words: tuple[str, ...]) -> None:
    kept = [word for word in words if not word.startswith(("head.widths", "epochs"))]
    looked = tlbench("inspect", *kept, "--out", "look")
    assert looked.code == 0, looked.err
    with Path("look/corrections.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    doubted = [line for line in lines if line["problem"] == "label may be wrong"]
    assert doubted
    assert all(
        set(line["suggestion"].split("|")) != set(line["label"].split("|")) for line in doubted
    )


def test_losses_are_weighed_class_by_class() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((40, 3)) < (0.1, 0.5, 0.75)).astype(np.uint8)
    given = rng.uniform(0.05, 0.95, (40, 3)).astype(np.float32)
    there = labels.sum(axis=0)

    pixels = ArrayImages.of(np.zeros((40, 8, 8, 3), np.uint8))
    rows = {"train": np.arange(40), "validation": np.arange(0), "test": np.arange(0)}
    dataset = Dataset(["a", "b", "c"], pixels, labels, rows, [])

    for asked, weights in (
        ("null", np.ones(3)),
        ("balanced", (40 - there) / there),
        ("{b:7}", np.array([1, 7, 1])),
    ):
        cfg = make_config(f"loss.class_weights={asked}").loss
        crossed = np.where(labels, -np.log(given) * weights, -np.log(1 - given)).mean()
        ours = losses.loss(cfg, dataset)(labels, given)
        assert float(ours) == pytest.approx(crossed, rel=1e-4)
    cfg = make_config("loss=focal").loss
    right = np.where(labels, given, 1 - given)
    focal = np.where(labels, 0.25, 0.75) * (1 - right) ** 2 * -np.log(right)
    assert float(losses.loss(cfg, dataset)(labels, given)) == pytest.approx(focal.mean(), rel=1e-4)
    counted = losses.accuracy(dataset)
    assert isinstance(counted, keras.metrics.Metric)
    counted.update_state(labels, given)
    assert float(counted.result()) == pytest.approx(((given >= 0.5) == labels).all(axis=1).mean())


def test_thresholds_have_the_best_f1_that_any_has() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((60, 4)) < (0.05, 0.3, 0.9, 0)).astype(np.uint8)
    given = np.round(np.clip(labels * 0.3 + rng.random((60, 4)) * 0.7, 0, 1), 2)  # with ties
    found = multilabel.thresholds(labels, given)
    assert found[3] == 0.5  # of a class that is never there
    for c in range(3):

        def f1(threshold: float, c: int = c) -> float:
            said = given[:, c] >= threshold
            return 2 * (said & (labels[:, c] == 1)).sum() / (said.sum() + labels[:, c].sum())

        best = max(f1(threshold) for threshold in np.linspace(0, 1, 2001))
        assert f1(found[c]) == pytest.approx(best)
    assert metrics.accuracy(labels, given, found) == ((given >= found) == labels).all(axis=1).mean()
