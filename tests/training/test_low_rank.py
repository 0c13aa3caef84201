"""Low-rank pairs and rates inside a backbone, from a command over kills to a model that anybody loads."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import processes
from helpers import TINY, Answer
from tlbench.networks import classifiers
from tlbench.networks.hardware import keras
from tlbench.runs.run import Run
from tlbench.training.callbacks import Keeper

Command = Callable[..., Answer]

SIDE = 16
SHORT = (
    *(
        "data=digits",
        "data.limit=120",
        "batch_size=32",
        "epochs=2",
        "device=cpu",
        "precision=float32",
    ),
    *("features.engine=tensorflow", "features.precision=float32", "features.storage=float32"),
)
SIZES = ("patch_size=4", "num_layers=2", "num_heads=2", "hidden_dim=16")
VIT = (
    *("backbone=vit_base", "backbone.weights=null", f"backbone.image_size={SIDE}"),
    *(f"backbone.arguments.{one}" for one in (*SIZES, "mlp_dim=32")),
)
DINO = (
    *("backbone=dinov2_small", "backbone.weights=null", f"backbone.image_size={SIDE}"),
    *(f"backbone.arguments.{one}" for one in (*SIZES, "intermediate_dim=32")),
)
RANK = 3
# Query and value of 2 blocks: 16 x 2 heads x 3 and 3 x 8 each. A linear head on 16 features.
PAIRS, HEAD = 4 * (16 * 2 * 3 + 3 * 8), 16 * 10 + 10
# All that has a state at once: a probe that is solved, an average of the weights, an optimizer for each block.
STATEFUL = (
    *(*SHORT, *VIT, "strategy=probe_finetune", "head=logistic", "trainable=true"),
    *(
        f"backbone.lora={RANK}",
        "backbone.lora_alpha=6",
        "backbone.dropout=0.1",
        "learning_rate=0.01",
    ),
    *("optimizer=adamw", "optimizer.layer_decay=0.8", "optimizer.ema=0.5", "augment=flip"),
)

start = partial(processes.Command, "train")


@pytest.fixture(autouse=True)
def _with_kerashub() -> None:
    pytest.importorskip("keras_hub")


def bits(folder: str) -> tuple[Any, ...]:
    """What a run found out, to the bit, without how long it took."""
    run = Run.finished(Path(folder))
    clocks = ("seconds", "per_second", "memory_bytes", "latency_ms")
    figures = {name: value for name, value in run.metrics.items() if not name.endswith(clocks)}
    saved = keras.saving.load_model(run.model, compile=False)
    return figures, run.tested()[1].tobytes(), [each.tobytes() for each in saved.get_weights()]


def stop_in_step(monkeypatch: pytest.MonkeyPatch, epoch: int, step: int) -> list[Any]:
    """Ask a training to end in a step of an epoch of a stage whose epochs may be split; empty once it was."""
    heard, stops = Keeper.on_train_batch_end, [(epoch, step)]

    def hear(self: Keeper, batch: int, logs: Any = None) -> None:
        place = (self.state.epoch, self.first_step + batch + 1)
        if self.mid_epoch and stops and place == stops[0]:
            stops.pop()
            os.kill(os.getpid(), signal.SIGTERM)
        heard(self, batch, logs)

    monkeypatch.setattr(Keeper, "on_train_batch_end", hear)
    return stops


def test_from_a_command_over_two_kills_to_plain_keras(
    tlbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = tlbench("train", *STATEFUL, "hydra.run.dir=whole")
    assert answer.code == 0, answer.err
    process = start(*STATEFUL, "hydra.run.dir=run")
    for line in process.stderr:
        if "finetune 1/2" in line:
            process.send_signal(signal.SIGKILL)
            break
    assert process.rest()[0] == -signal.SIGKILL
    stops = stop_in_step(monkeypatch, epoch=1, step=2)
    assert tlbench("train", "resume=run").code == 143
    assert stops == []
    answer = tlbench("train", "resume=run")
    assert answer.code == 0, answer.err
    assert bits("run") == bits("whole")


@pytest.fixture(scope="module")
def low_rank_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tlbench.cli import main

    folder = tmp_path_factory.mktemp("low_rank")
    places = (f"hydra.run.dir={folder / 'run'}", f"features.folder={folder / 'features'}")
    words = ("head=linear", f"backbone.lora={RANK}", "learning_rate=0.02", "trainable=true")
    assert main.main(["train", *SHORT, *VIT, *words, *places]) == 0
    return folder / "run"


def test_what_is_saved_is_the_network_with_kernels_of_low_rank_changed(low_rank_run: Path) -> None:
    run = Run.finished(low_rank_run)
    own = classifiers.build(
        run.config(), (8, 8, 3), 10
    )  # as the run began: its seed drew the weights
    saved = keras.saving.load_model(run.model, compile=False, safe_mode=True)
    assert saved.count_params() == own.model.count_params() == run.metrics["parameters"]
    assert run.metrics["trainable_parameters"] == PAIRS + HEAD
    changed = []
    for before, after in zip(own.model.weights, saved.weights, strict=True):
        assert before.shape == after.shape
        if not np.array_equal(before.numpy(), after.numpy()):
            changed.append("/".join(before.path.split("/")[-2:]))
            if "classification" not in before.path:
                # Keras's pairs: (16, 2 heads, 3) times (3, 8), so of rank 3 of (16 x 2, 8).
                moved = (after.numpy() - before.numpy()).reshape(32, 8)
                values = np.linalg.svd(moved, compute_uv=False)
                assert values[RANK - 1] > 1e-4
                assert values[RANK] < 1e-6
    assert changed == [
        *["query/kernel", "value/kernel"] * 2,
        *[f"classification/{v}" for v in ("kernel", "bias")],
    ]
    with zipfile.ZipFile(run.model) as archive:
        assert b"lora" not in archive.read("config.json")
    assert ["low-rank", "pairs", f"{PAIRS}"] in [
        line.split() for line in (run.folder / "summary.txt").read_text().splitlines()
    ]


def test_what_is_saved_is_exported_and_predicts_alike(tlbench: Command, low_rank_run: Path) -> None:
    run = Run.finished(low_rank_run)
    assert "equals the record" in tlbench("evaluate", str(run.folder)).out
    formats = "saved_model,onnx,openvino,litert,keras"
    answer = tlbench("export", str(run.folder), "--format", formats, "--images", "16")
    assert answer.code == 0, answer.out + answer.err
    for name in formats.split(","):
        facts = json.loads((run.folder / "exports" / name / "export.json").read_text())
        assert facts["parity"]["greatest_difference"] < 1e-5
    # A Python that has never heard of tlbench.
    code = (
        "import sys, keras, keras_hub; sys.modules['tlbench'] = None; "
        f"print(keras.saving.load_model({str(run.model)!r}).count_params())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == run.metrics["parameters"]


def test_what_is_frozen_below_pairs_is_computed_once_and_trains_alike(tlbench: Command) -> None:
    words = (*SHORT, *VIT, "head=linear", "trainable=transformer_block_2", "backbone.lora=2")
    rates = ("learning_rate=0.01", "optimizer=sgd")
    once = tlbench("train", *words, *rates, "hydra.run.dir=once")
    assert once.code == 0, once.err
    assert "What lies below transformer_block_1 is frozen" in once.err
    every = tlbench("train", *words, *rates, "features.cache=false", "hydra.run.dir=every")
    assert every.code == 0, every.err
    runs = [Run.finished(Path(folder)) for folder in ("once", "every")]
    np.testing.assert_allclose(*(run.tested()[1] for run in runs), atol=1e-5)
    for run in runs:
        assert run.metrics["trainable_parameters"] == 2 * (16 * 2 * 2 + 2 * 8) + HEAD
    assert "equals the record" in tlbench("evaluate", "once").out


def test_a_probe_reads_the_same_features_with_pairs_and_rates_and_without(tlbench: Command) -> None:
    words = (
        *SHORT,
        *DINO,
        "head=logistic",
        "strategy=probe_finetune",
        "trainable=true",
        "epochs=1",
    )
    acting = ("backbone.lora=2", "backbone.dropout=0.1", "backbone.drop_path=0.2")
    for folder, more, computed in (("plain", (), 150), ("acting", acting, 0)):
        answer = tlbench("train", *words, *more, f"hydra.run.dir={folder}")
        assert answer.code == 0, answer.err
        facts = Run.finished(Path(folder)).manifest["features"]
        assert facts["images_computed"] == computed
        assert facts["images_computed"] + facts["images_reused"] == 150


def test_branches_that_are_left_out_are_the_same_after_a_kill(
    tlbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*SHORT, *DINO, "head=linear", "trainable=true", "optimizer=sgd", "learning_rate=0.05")
    words, rates = (*words, "epochs=1"), ("backbone.drop_path=0.5", "backbone.dropout=0.2")
    assert tlbench("train", *words, "hydra.run.dir=none").code == 0
    assert tlbench("train", *words, *rates, "hydra.run.dir=whole").code == 0
    stops = stop_in_step(monkeypatch, epoch=0, step=3)
    assert tlbench("train", *words, *rates, "hydra.run.dir=run").code == 143
    assert stops == []
    assert tlbench("train", "resume=run").code == 0
    assert bits("run") == bits("whole")
    assert bits("run")[1:] != bits("none")[1:]
    assert "equals the record" in tlbench("evaluate", "run").out


def attention(path: Path) -> None:
    """A network of a user's own: patches that attend to each other, as maps."""
    layers = keras.layers
    pixels = keras.Input((SIDE, SIDE, 3))
    patches = layers.Conv2D(8, 4, strides=4)(layers.Rescaling(1 / 255)(pixels))
    x = layers.Reshape((16, 8))(patches)
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)]))
    keras.Model(pixels, layers.Reshape((4, 4, 8))(x)).save(path)


def test_a_network_of_ones_own_takes_pairs_too(tlbench: Command, tmp_path: Path) -> None:
    attention(tmp_path / "own.keras")
    words = ("backbone=file", f"backbone.weights={tmp_path / 'own.keras'}", "backbone.lora=2")
    answer = tlbench("train", *SHORT, *words, "head=linear", "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    run = Run.finished(Path("run"))
    assert run.metrics["trainable_parameters"] == 2 * (8 * 2 * 2 + 2 * 4) + 8 * 10 + 10
    assert "equals the record" in tlbench("evaluate", "run").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("backbone.lora=4",), "backbone.lora=4 needs attention with query and value layers"),
        (("backbone.lora=0",), "backbone.lora=0 is not valid. Expected a rank of at least 1"),
        (("backbone.lora=2", "trainable=false"), "backbone.lora=2 acts where a backbone trains"),
        (("backbone.lora_alpha=8",), "Expected null, or backbone.lora beside it"),
        (("backbone.lora=2", "backbone.lora_alpha=0"), "Expected a number above 0, or null"),
        (("backbone.lora=2", "batch_norm.statistics=adapted"), "Expected auto or frozen with"),
        (("backbone.lora=2", "batch_norm.recalibrate=true"), "Expected auto or false with"),
        (("backbone.dropout=0.1", "trainable=false"), "backbone.dropout=0.1 acts where a backbone"),
        (
            ("backbone.drop_path=0", "trainable=false"),
            "backbone.drop_path=0.0 acts where a backbone",
        ),
        (
            ("backbone.dropout=1",),
            "backbone.dropout=1.0 is not valid. Expected at least 0 and below",
        ),
        (("backbone.drop_path=-0.1",), "backbone.drop_path=-0.1 is not valid"),
        (("backbone.dropout=0.1",), "file has no Dropout layer"),
        (("backbone.drop_path=0.1",), "no branch of file can be left out"),
    ],
)
def test_what_could_not_act_is_refused_in_one_line(
    tlbench: Command, words: tuple[str, ...], said: str
) -> None:
    answer = tlbench("train", *TINY, *words, "hydra.run.dir=run")
    assert answer.code == 2
    assert said in answer.error_lines[-1], answer.err
    assert not Path("run").exists()


def test_the_summary_counts_pairs_apart(tlbench: Command) -> None:
    answer = tlbench("summary", *VIT, "data=digits", "head=linear", f"backbone.lora={RANK}")
    lines = {
        line[:20].strip(): line.split()[-1] for line in answer.out.splitlines() if line.strip()
    }
    assert lines["trainable"] == f"{PAIRS + HEAD:,}"
    assert lines["low-rank pairs"] == f"{PAIRS:,}"
    total, still = (int(lines[name].replace(",", "")) for name in ("total", "non-trainable"))
    assert total == still + HEAD
    refused = tlbench("summary", "backbone=mobilenet", "data=digits", "backbone.lora=2")
    assert refused.code == 2
    assert "what trains of mobilenet has none" in refused.error_lines[-1]
