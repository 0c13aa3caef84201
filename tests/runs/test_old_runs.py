"""Run folders of format 1, made by the version that wrote it: read, evaluated, reported and gone on with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tlbench as face
from helpers import Answer
from tlbench.config.migrations import FORMAT, migrated
from tlbench.runs.run import Run

OLD = Path(__file__).parents[1] / "old_runs"
Command = Callable[..., Answer]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Both runs, to be changed: `completed`, and `interrupted` in the second epoch of its second stage."""
    for name in ("completed", "interrupted"):
        shutil.copytree(OLD / name, tmp_path / "runs" / name)
        assert json.loads((OLD / name / "manifest.json").read_text())["format"] == 1
    return tmp_path / "runs"


def test_settings_get_the_values_of_their_time(old: Path) -> None:
    cfg = Run.open(old / "completed").config()
    assert (cfg.backbone.builder, cfg.backbone.architecture) == ("keras_applications", "MobileNet")
    assert (cfg.backbone.pooling, cfg.backbone.preset) == ("average", None)
    assert cfg.backbone.interpolation == "bilinear"
    assert (cfg.tracker.name, cfg.data.arguments) == ("none", {})
    assert (cfg.loss.name, cfg.loss.class_weights, cfg.data.sampling) == (
        "cross_entropy",
        None,
        "natural",
    )
    assert cfg.augment == {"name": "flip", "flip": True, "shift": 0.0}
    assert cfg.backbone.arguments == {"alpha": 0.03125}  # what it had stays


def test_settings_of_format_two_get_the_values_of_their_time() -> None:
    backbone = {"name": "vit_base", "pooling": "cls"}  # bicubic or not, it was bilinear then
    head = {"name": "linear", "widths": []}
    settings = {"backbone": backbone, "head": head, "tracker": {"name": "jsonl"}}
    found = migrated(settings, 2)
    assert found["head"] == {**head, "solver": None, "path": None, "neighbours": None}
    assert {**found["backbone"], "interpolation": "bilinear", **backbone} == found["backbone"]
    assert found["tracker"] == {"name": "jsonl"}


def test_settings_of_format_three_get_the_values_of_their_time() -> None:
    early = {"patience": 2}
    found = migrated({"data": {"name": "digits"}, "early_stopping": early, "seed": 3}, 3)
    assert found["loss"] == {
        **{"name": "cross_entropy", "label_smoothing": 0.0, "class_weights": None},
        **{"gamma": None, "alpha": None},
    }
    assert (found["data"]["name"], found["data"]["sampling"]) == ("digits", "natural")
    assert found["early_stopping"] == {"patience": 2, "monitor": "val_loss"}
    assert found["seed"] == 3


def test_runs_of_format_three_read_their_files_as_they_did() -> None:
    assert migrated({"data": {"root": "photos"}}, 3)["data"]["index"] is None
    assert migrated({"data": {"index": "here"}}, 4)["data"]["index"] == "here"


def test_an_image_of_format_four_has_one_class_whose_names_stand_in_no_file() -> None:
    found = migrated({"data": {"name": "digits"}}, 4)["data"]
    assert (found["task"], found["names"]) == ("multiclass", None)
    # A run that was interrupted goes on computing what lies below the layers that train.
    assert migrated({"features": {"cache": True}}, 4)["features"]["storage"] is None
    assert migrated({"data": {"task": "multilabel"}}, 5)["data"] == {"task": "multilabel"}


def test_a_run_of_format_four_had_one_rate_for_all_and_decayed_all() -> None:
    found = migrated({"optimizer": {"name": "AdamW"}}, 4)["optimizer"]
    off = {"layer_decay": None, "clipnorm": None, "ema": None, "swa": None}
    assert found == {"name": "AdamW", "decay_biases": True, **off}
    assert migrated({}, 4)["microbatch"] is None


def test_a_run_of_format_five_kept_its_best_epoch_where_it_stopped_early() -> None:
    assert migrated({"early_stopping": {"patience": None}}, 5)["keep"] == "last"
    assert migrated({"early_stopping": {"patience": 3}}, 5)["keep"] == "best"
    assert migrated({"optimizer": {"ema": 0.9}}, 5)["optimizer"] == {"ema": 0.9, "swa": None}


def test_a_backbone_of_format_five_trained_whole_with_the_rates_that_it_came_with() -> None:
    own = {"lora": None, "lora_alpha": None, "dropout": None, "drop_path": None}
    assert migrated({"backbone": {"name": "vgg16"}}, 5)["backbone"] == {"name": "vgg16", **own}
    assert migrated({"backbone": {"lora": 4}}, 6)["backbone"] == {"lora": 4}


def test_a_completed_run_is_evaluated_predicted_with_and_reported(
    tlbench: Command, old: Path
) -> None:
    answer = tlbench("evaluate", str(old / "completed"))
    assert answer.code == 0, answer.err
    assert "equals the record" in answer.out
    classifier = face.load(old / "completed")
    labels, recorded = Run.open(old / "completed").tested()
    assert classifier.predict(np.zeros((1, 8, 8, 3))).probabilities.shape == (1, 10)
    assert (labels.shape, recorded.shape) == ((30,), (30, 10))
    answer = tlbench("report", str(old))
    assert answer.code == 0
    assert "mobilenet" in answer.out
    assert "interrupted" in answer.out


def test_a_completed_run_is_extended(tlbench: Command, old: Path) -> None:
    answer = tlbench("train", f"resume={old / 'completed'}", "epochs=3")
    assert answer.code == 0, answer.err
    run = Run.open(old / "completed")
    assert run.manifest["format"] == FORMAT
    assert [epoch["epoch"] for epoch in run.epochs()] == [1, 2, 3]
    assert run.config().epochs == 3


def test_an_interrupted_run_ends_as_it_would_have_ended(tlbench: Command, old: Path) -> None:
    answer = tlbench("train", f"resume={old / 'interrupted'}")
    assert answer.code == 0, answer.err
    run = Run.open(old / "interrupted")
    assert (run.status, run.manifest["format"]) == ("completed", FORMAT)
    assert [epoch["stage"] for epoch in run.epochs()] == ["probe"] * 2 + ["finetune"] * 3
    # What the version of its time came to without an interruption, on one machine; Adam's step rounds otherwise since.
    expected = np.load(OLD / "uninterrupted.npz")["probabilities"]
    np.testing.assert_allclose(run.tested()[1], expected, atol=5e-3)
