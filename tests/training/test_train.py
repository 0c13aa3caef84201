"""Whole trainings through the command line: what a run leaves, and that it can be trusted."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from helpers import BACKBONE, MOBILENET, TINY, Answer, make_config, resize_to
from tlbench.config.identity import config_hash
from tlbench.data import datasets
from tlbench.networks import fused
from tlbench.networks.hardware import keras
from tlbench.runs.run import Run

Command = Callable[..., Answer]


def train(tlbench: Command, folder: str, *overrides: str) -> Run:
    answer = tlbench("train", *TINY, f"hydra.run.dir={folder}", *overrides)
    assert answer.code == 0, answer.err
    return Run.open(Path(folder))


def history(run: Run) -> list[dict[str, Any]]:
    with (run.folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    timing = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in timing} for row in rows]


def probabilities(run: Run) -> np.ndarray:
    with np.load(run.folder / "predictions.npz", allow_pickle=False) as saved:
        return saved["probabilities"]


def test_a_finished_run_holds_everything(tlbench: Command, tmp_path: Path) -> None:
    answer = tlbench("train", *TINY, "hydra.run.dir=run")
    assert answer.code == 0
    folder = tmp_path / "run"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {
        *(
            "config.yaml",
            "images.npz",
            "manifest.json",
            "history.csv",
            "metrics.json",
            "predictions.npz",
            "predictions.csv",
        ),
        *("model.keras", "summary.txt", "train.log", "checkpoint/latest.npz", ".lock"),
        *("plots/curves.png", "plots/confusion_matrix.png"),
    }
    run = Run.open(folder)
    assert run.status == "completed"
    assert run.manifest["command"].startswith("tlbench train data=digits")
    assert run.manifest["config_hash"] == config_hash(run.config())
    assert len(run.manifest["weights"]["sha256"]) == 64
    assert run.manifest["data"]["images"] == {"train": 270, "validation": 30, "test": 75}
    metrics = run.metrics
    assert {
        *("parameters", "trainable_parameters", "accuracy", "val_accuracy", "epochs"),
        *("evaluation", "evaluation_loss", "top5_accuracy", "macro_f1", "per_class"),
        *(
            "features_seconds",
            "training_seconds",
            "evaluation_seconds",
            "images_per_second",
            "peak_memory_bytes",
            "latency_ms",
            "inference_accuracy",
        ),
    } <= set(metrics)
    assert metrics["epochs"] == len(history(run)) == 2
    with np.load(folder / "predictions.npz", allow_pickle=False) as saved:
        found = (saved["probabilities"].argmax(axis=1) == saved["labels"]).mean()
    assert metrics["evaluation"] == metrics["test_accuracy"] == pytest.approx(found)
    assert metrics["train_accuracy"] == metrics["accuracy"] == float(history(run)[-1]["accuracy"])
    assert (folder / "plots" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "train 2/2" in (folder / "train.log").read_text()
    assert "classification" in (folder / "summary.txt").read_text()
    # What a terminal shows: one line an epoch and the layer table on stderr, results on stdout.
    assert "train 1/2  loss" in answer.err
    assert re.search(r"^backbone +\(8, 8, 64\) +9,968  yes", answer.err, re.M)
    assert f"{metrics['evaluation']:.4f}" in answer.out
    assert re.search(r"run folder +run\b", answer.out)
    assert max(len(line) for line in answer.out.splitlines()) <= 80


def test_the_saved_model_repeats_the_recorded_predictions(tiny_run: Path) -> None:
    loaded = keras.models.load_model(tiny_run / "model.keras", safe_mode=True)
    digits = datasets.load(make_config(*TINY).data, resize_to(32))
    pixels = digits.images.batch(digits.splits["test"])
    recorded = probabilities(Run.open(tiny_run))
    np.testing.assert_allclose(loaded.predict(pixels, verbose=0), recorded, atol=1e-5)


def test_the_step_is_traced_once(tlbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer's Python runs when TensorFlow traces; afterwards the graph runs without it."""
    traced, layer = [], fused.FusedBatchNormalization
    call = layer.call

    def counting(self: Any, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if training:
            traced.append(self.name)
        return call(self, inputs, training=training, mask=mask)

    monkeypatch.setattr(layer, "call", counting)
    # 270 images in batches of 64: the last one of each epoch is smaller.
    run = train(tlbench, "run", "epochs=3", "batch_size=64", "batch_norm.recalibrate=false")
    assert len(history(run)) == 3
    assert sorted(traced) == ["bn_1", "bn_2"]


def test_a_seed_repeats_a_run_to_the_bit(tlbench: Command) -> None:
    extra = ("head.dropout=0.3", "augment=strong", "epochs=1")
    first, again = (train(tlbench, name, *extra) for name in ("first", "again"))
    assert history(first) == history(again)
    np.testing.assert_array_equal(probabilities(first), probabilities(again))


def test_a_run_pretrains_the_next(tlbench: Command, tmp_path: Path) -> None:
    first, frozen = tmp_path / "first", (*MOBILENET, "trainable=false", "epochs=1")
    assert tlbench("train", *frozen, f"hydra.run.dir={first}").code == 0
    weights = f"backbone.weights={first}"
    assert tlbench("train", *frozen, weights, "seed=1", "hydra.run.dir=run").code == 0
    run = Run.open(Path("run"))
    assert run.config().backbone.weights == str(first)
    before, after = (
        keras.models.load_model(folder / "model.keras").get_layer("mobilenet_0.25_32").get_weights()
        for folder in (first, run.folder)
    )
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
    answer = tlbench("train", *MOBILENET, weights, "backbone.arguments.alpha=0.5")
    assert answer.code == 2
    assert "does not fit mobilenet_0.50_32: layer 'conv1'" in answer.error_lines[-1]


def test_a_runs_own_folder_has_the_names_of_its_files(tlbench: Command, photos: Path) -> None:
    photos.rename("it's mine")
    own = ("data=image_folder", "data.root=it's mine", "trainable=false", "epochs=1")
    assert tlbench("train", *TINY[1:-1], *own).code == 0
    (folder,) = Path("outputs").iterdir()
    assert re.fullmatch(r"[\d_-]+_small_it_s_mine", folder.name)


def test_stages_run_in_order(tlbench: Command) -> None:
    refused = tlbench("train", *TINY, "strategy=probe_finetune", "trainable=false")
    assert refused.code == 2
    assert "Add trainable=true, or the name of the first layer to train" in refused.error_lines[-1]
    run = train(tlbench, "run", "strategy=probe_finetune")
    assert [(row["stage"], row["epoch"]) for row in history(run)] == [
        ("probe", "1"),
        ("probe", "2"),
        ("finetune", "3"),
        ("finetune", "4"),
    ]
    rates = [float(row["learning_rate"]) for row in history(run)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])


def test_a_stage_that_makes_all_worse_leaves_what_it_began_with(tlbench: Command) -> None:
    """The probe stays; with keep=last the same stages leave the last epoch's model, however bad."""
    more = ("optimizer.learning_rate.frozen=0.05", "head.widths=[]", "learning_rate=1")
    words = ("strategy=probe_finetune", "trainable=true", "epochs=3", *more)
    best = train(tlbench, "best", *words, "early_stopping.patience=1")
    last = train(tlbench, "last", *words, "keep=last")
    assert [row["stage"] for row in history(last)] == ["probe"] * 2 + ["finetune"] * 3
    losses = [float(row["val_loss"]) for row in history(last)]
    least = losses.index(min(losses))
    assert least < 2 < len(history(best))
    assert (best.metrics["kept_epoch"], last.metrics["kept_epoch"]) == (least + 1, 5)
    assert best.metrics["val_loss"] == pytest.approx(losses[least], rel=1e-3)
    ended = float(history(last)[-1]["val_accuracy"])
    assert last.metrics["val_accuracy"] == pytest.approx(ended, abs=0.02)
    assert last.metrics["val_loss"] > 2 * best.metrics["val_loss"]
    assert best.metrics["batch_norm_recalibrated"] is False
    said = (best.folder / "train.log").read_text()
    assert re.search(r"finetune (stopped|ended) after \d, kept what it began with", said)
    answer = tlbench("evaluate", "best")  # what is saved is the probe's model, too
    assert answer.code == 0
    assert "equals the record" in answer.out


@pytest.mark.parametrize(
    ("monitor", "words"),
    [
        ("val_auc", ["trainable=false", "head.widths=[]", "learning_rate=0.1"]),
        ("val_macro_f1", ["batch_norm.recalibrate=false", "learning_rate=0.003"]),
        ("val_accuracy", ["trainable=false", "head.widths=[]", "learning_rate=0.1"]),
        ("val_auc", ["head=logistic", "head.widths=[]"]),
    ],
)
def test_the_best_epoch_is_the_best_in_what_is_monitored(
    tlbench: Command, monitor: str, words: list[str]
) -> None:
    more = (f"early_stopping.monitor={monitor}", "epochs=12")
    run = train(tlbench, "run", *more, *words)
    epochs = history(run)
    values = [float(row[monitor]) for row in epochs]
    kept = run.metrics["kept_epoch"]
    losses = [float(row["val_loss"]) for row in epochs]
    order = sorted(range(len(values)), key=lambda n: (-values[n], losses[n]))
    first = values.index(max(values))
    # Of equal epochs that of the least loss; of equal strengths of a solved head the strongest.
    assert kept == (first if "head=logistic" in words else order[0]) + 1
    if monitor == "val_auc":  # the least loss is another's, so that it is seen what was gone by
        assert losses[kept - 1] > min(losses)
    asked_for = {"val_auc", "val_macro_f1"} & set(epochs[0])
    assert asked_for == {monitor} - {"val_accuracy"}
    digits = datasets.load(run.config().data, resize_to(32))
    labels = digits.labels_of("validation")
    saved = keras.models.load_model(run.folder / "model.keras")
    given = saved.predict(digits.images.batch(digits.splits["validation"]), verbose=0)
    shares = given / given.sum(axis=1, keepdims=True).astype(np.float64)
    by_scikit_learn = {
        "val_auc": roc_auc_score(labels, shares, multi_class="ovr", average="macro"),
        "val_macro_f1": f1_score(labels, given.argmax(axis=1), average="macro"),
        "val_accuracy": accuracy_score(labels, given.argmax(axis=1)),
    }
    assert by_scikit_learn[monitor] == pytest.approx(max(values), abs=1e-3)


def test_early_stopping_keeps_the_best_epoch(tlbench: Command) -> None:
    run = train(
        tlbench, "run", "early_stopping.patience=1", "epochs=30", "learning_rate=0.1",
        "head.widths=[]", "trainable=false", "features.precision=float32",
    )  # fmt: skip
    epochs, metrics = history(run), run.metrics
    losses = [float(row["val_loss"]) for row in epochs]
    best = losses.index(min(losses))
    assert best == len(epochs) - 2 < 28  # a patience of one: the epoch before the last was the best
    assert (metrics["epochs"], metrics["kept_epoch"]) == (len(epochs), best + 1)
    assert metrics["stopped_early"]
    assert metrics["train_accuracy"] == float(epochs[best]["accuracy"])
    assert metrics["val_accuracy"] == pytest.approx(float(epochs[best]["val_accuracy"]))
    # What is saved answers as the best epoch did, and not as the last.
    assert losses[-1] != pytest.approx(losses[best], rel=2e-4)
    assert metrics["val_loss"] == pytest.approx(losses[best], rel=2e-4)
    pixels = datasets.load(run.config().data, resize_to(32))
    rows = pixels.splits["validation"]
    saved = keras.models.load_model(run.folder / "model.keras")
    given = saved.predict(pixels.images.batch(rows), verbose=0)
    chosen = given[np.arange(len(rows)), pixels.labels[rows]]
    assert -np.log(chosen).mean() == pytest.approx(losses[best], rel=2e-4)
    said = (run.folder / "train.log").read_text()
    assert f"train stopped after {len(epochs)}, kept {best + 1}" in said
    answer = tlbench("train", "resume=run", "epochs=40")
    assert answer.code == 0
    assert f"ended this run after epoch {len(epochs)} and kept epoch {best + 1}" in " ".join(
        answer.out.split()
    )
    assert len(history(run)) == run.metrics["epochs"] == len(epochs)


def test_a_folder_of_pictures(tlbench: Command, photos: Path) -> None:
    (photos / "grass" / "broken.jpg").write_bytes(b"no picture")
    answer = tlbench(
        "train", "data=image_folder", f"data.root={photos}", *BACKBONE, "head=linear",
        "epochs=8", "batch_size=8", "learning_rate=0.003", "hydra.run.dir=run",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "broken.jpg" in answer.err
    run = Run.open(Path("run"))
    assert run.manifest["data"]["class_names"] == ["blue sky", "grass"]
    assert run.metrics["evaluation"] == 1.0  # blue against green


def test_cifar100_in_the_official_layout(tlbench: Command, cifar100: Path) -> None:
    answer = tlbench("train", f"data.root={cifar100}", *BACKBONE, "epochs=1", "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    assert len(Run.open(Path("run")).metrics["per_class"]) == 20


def test_names_from_a_data_set_are_shown_as_they_are(tlbench: Command, tmp_path: Path) -> None:
    for name in ("[bold]a", "$x$ <b>"):
        (tmp_path / "odd" / name).mkdir(parents=True)
        for i in range(30):
            Image.new("RGB", (9, 9), (8 * i, ord(name[0]), 0)).save(
                tmp_path / "odd" / name / f"{i}.png"
            )
    answer = tlbench(
        "train", "data=image_folder", "data.root=odd", *BACKBONE, "epochs=1", "hydra.run.dir=run",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    names = json.loads(Path("run/manifest.json").read_text())["data"]["class_names"]
    assert names == ["$x$ <b>", "[bold]a"]
