"""Batch normalization: the failure that lagging statistics cause, its cures, and the fused kernel."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import SMALL, TINY, Answer, make_config, resize_to
from tlbench.config import schema
from tlbench.data import datasets
from tlbench.networks import batch_norm
from tlbench.networks.fused import FusedBatchNormalization, accelerate
from tlbench.networks.hardware import keras
from tlbench.runs.run import Run


def small_network() -> keras.Model:
    layers = keras.layers
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3)(pixels)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    x = layers.BatchNormalization(momentum=0.9, scale=False)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, layers.Dense(4, activation="softmax", name="classification")(x))


def some_batches(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        (rng.normal(2, 3, (16, 8, 8, 3)).astype("float32"), rng.integers(0, 4, 16))
        for _ in range(count)
    ]


def test_statistics_that_lag_fail_in_evaluation_and_both_cures_help(
    tlbench: Callable[..., Answer],
) -> None:
    """With momentum 0.999 the moving statistics of 170 steps are still near where they began."""

    def metrics(name: str, *settings: str) -> tuple[dict[str, Any], Answer]:
        more = ("data.limit=500", "epochs=6", "batch_size=16", "learning_rate=0.003", "keep=last")
        answer = tlbench("train", *TINY, *more, *settings, f"hydra.run.dir={name}")
        assert answer.code == 0, answer.err
        return Run.open(Path(name)).metrics, answer

    lagging = ("batch_norm.momentum=0.999", "batch_norm.recalibrate=false")
    failed, said = metrics("failed", *lagging)
    assert failed["accuracy"] > failed["inference_accuracy"] + 0.15
    assert "batch_norm.recalibrate=true" in said.err
    cured, _ = metrics("cured", "batch_norm.momentum=0.999", "batch_norm.recalibrate=true")
    assert cured["accuracy"] == failed["accuracy"]  # the same training
    assert cured["batch_norm_recalibrated"]
    assert cured["evaluation"] > failed["evaluation"] + 0.15
    settled, _ = metrics("settled")  # auto
    assert settled["evaluation"] > failed["evaluation"] + 0.15


@pytest.mark.parametrize("sizes", [(2,) * 40, (16,) * 5, (40, 30, 9, 1)])
@pytest.mark.parametrize("fused", [False, True])
def test_recalibration_finds_the_statistics_of_all_images(
    sizes: tuple[int, ...], fused: bool
) -> None:
    network = small_network()
    if fused:
        network = accelerate(network, "float32")
    first, second = batch_norm.layers(network)
    images = np.concatenate([batch for batch, _ in some_batches(5)])
    images += (
        np.arange(80, dtype=np.float32)[:, None, None, None] / 4
    )  # batches differ in their means
    batch_norm.recalibrate(network, np.split(images, np.cumsum(sizes)[:-1]))
    seen = keras.Model(network.input, first.input).predict(images, verbose=0).astype(np.float64)
    np.testing.assert_allclose(first.moving_mean.numpy(), seen.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(first.moving_variance.numpy(), seen.var(axis=(0, 1, 2)), rtol=1e-3)
    assert second.momentum == 0.9


def test_recalibration_leaves_dropout_out() -> None:
    """Dropped units double what is left: the variance behind them would be one that inference never sees."""
    pixels = keras.Input((1, 1, 3))
    x = keras.layers.Dropout(0.5)(pixels)
    network = keras.Model(pixels, keras.layers.BatchNormalization()(x))
    network.compile(keras.optimizers.Adam(), "mse")
    images = np.random.default_rng(0).normal(5, 1, (64, 1, 1, 3)).astype("float32")
    batch_norm.recalibrate(network, np.split(images, 4))
    (layer,) = batch_norm.layers(network)
    expected = images.var(axis=(0, 1, 2))
    np.testing.assert_allclose(layer.moving_variance.numpy(), expected, rtol=1e-4)


def test_frozen_statistics_stay() -> None:
    network = small_network()
    first, second = batch_norm.layers(network)
    first.trainable = False
    kept = first.moving_mean.numpy()
    batch_norm.recalibrate(network, [images for images, _ in some_batches(2)])
    np.testing.assert_array_equal(first.moving_mean.numpy(), kept)
    assert np.abs(second.moving_mean.numpy()).max() > 0


@pytest.mark.parametrize(
    ("setting", "momentum", "steps", "expected"),
    [
        ("auto", 0.999, 310, True),
        ("auto", 0.999, 10_000, False),
        ("auto", 0.0, 10, False),  # a network without batch normalization
        (True, 0.9, 10_000, True),
        (False, 0.999, 10, False),
    ],
)
def test_when_statistics_are_recomputed(
    setting: str | bool, momentum: float, steps: int, expected: bool
) -> None:
    cfg = schema.BatchNorm(statistics="batch", momentum="auto", recalibrate=setting)
    assert batch_norm.needs_recalibration(cfg, momentum, steps) is expected


def test_automatic_momentum_settles_within_an_epoch_and_never_slows() -> None:
    network = small_network()
    batch_norm.set_momentum(network, "auto", steps_per_epoch=10)
    (momentum, _) = (layer.momentum for layer in batch_norm.layers(network))
    assert momentum**10 == pytest.approx(0.01)
    batch_norm.set_momentum(network, "auto", steps_per_epoch=100_000)
    assert batch_norm.own_momentum(network) == momentum
    batch_norm.set_momentum(network, None, steps_per_epoch=1)
    assert batch_norm.own_momentum(network) == momentum
    batch_norm.set_momentum(network, 0.5, steps_per_epoch=1)
    assert batch_norm.own_momentum(network) == 0.5


def test_the_fused_kernel_trains_as_keras_does() -> None:
    plain = small_network()
    fused = accelerate(plain, "float32")
    assert [type(layer) for layer in batch_norm.layers(fused)] == [FusedBatchNormalization] * 2
    losses = {}
    for name, network in (("plain", plain), ("fused", fused)):
        network.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
        losses[name] = [network.train_on_batch(x, y) for x, y in some_batches(6)]
    np.testing.assert_allclose(losses["plain"], losses["fused"], rtol=1e-4)
    for ours, theirs in zip(fused.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_an_accelerated_copy_keeps_names_weights_and_what_trains() -> None:
    plain = small_network()
    plain.layers[1].trainable = False
    copy = accelerate(plain, "mixed_bfloat16")
    assert [layer.name for layer in copy.layers[1:]] == [layer.name for layer in plain.layers[1:]]
    assert copy.layers[1].trainable is False
    assert copy.layers[1].compute_dtype == "bfloat16"
    assert copy.get_layer("classification").compute_dtype == "float32"
    for ours, theirs in zip(copy.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def moved(found: Any, expected: Any) -> float:
    """The greatest difference, as a share of the greatest value."""
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


def test_what_is_frozen_runs_in_inference_mode_dropout_and_depth_too() -> None:
    """Keras's EfficientNetV2B0 has fifteen layers that drop whole branches at random."""
    keras.utils.set_random_seed(0)
    backbone = keras.applications.EfficientNetV2B0(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    assert sum(isinstance(layer, keras.layers.Dropout) for layer in backbone.layers) == 15
    pixels = keras.Input((32, 32, 3))
    network = keras.Model(pixels, keras.layers.Dropout(0.5)(backbone(pixels)))
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype("float32")
    expected = np.asarray(backbone(images, training=False))
    backbone.trainable = False
    copy = accelerate(network, "float32")
    inside = next(layer for layer in copy.layers if isinstance(layer, keras.Model))
    assert moved(inside(images, training=True), expected) < 1e-4
    assert moved(copy(images, training=True), expected) > 0.5  # the head's own dropout
    # Frozen in part: what comes before the cut is as in inference, what comes after it trains.
    backbone.trainable = True
    cut = [layer.name for layer in backbone.layers].index("block5a_expand_conv")
    for layer in backbone.layers[:cut]:
        layer.trainable = False
    copy = accelerate(backbone, "float32")
    for name, same in (("block4c_add", True), ("top_activation", False)):
        views = [
            keras.Model(model.input, model.get_layer(name).output)(images, training=training)
            for model, training in ((backbone, False), (copy, True))
        ]
        assert (moved(*views) < 1e-4) is same


def test_frozen_statistics_train_scale_and_offset_alone() -> None:
    network = small_network()
    copy = accelerate(network, "float32", frozen_statistics=True)
    copy.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    before = [(layer.moving_mean.numpy(), layer.beta.numpy()) for layer in batch_norm.layers(copy)]
    for images, labels in some_batches(2):
        copy.train_on_batch(images, labels)
    for layer, (mean, offset) in zip(batch_norm.layers(copy), before, strict=True):
        np.testing.assert_array_equal(layer.moving_mean.numpy(), mean)
        assert np.abs(layer.beta.numpy() - offset).max() > 0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("strategy=probe_finetune",), "frozen"),
        (("strategy=probe_finetune", "backbone.weights=null"), "batch"),
        (("trainable=true",), "batch"),
        (("trainable=false",), "batch"),
        (("report=resnet50_all",), "batch"),
        (("strategy=probe_finetune", "batch_norm.statistics=adapted"), "adapted"),
    ],
)
def test_statistics_are_frozen_after_a_probe_of_a_pretrained_network(
    settings: tuple[str, ...], expected: str
) -> None:
    assert batch_norm.statistics(make_config(*settings)) == expected


@pytest.mark.parametrize("statistics", ["adapted", "frozen"])
def test_fine_tuning_takes_over_where_the_probe_ended(
    tlbench: Callable[..., Answer], statistics: str
) -> None:
    """Statistics as they come let the loss jump where every layer begins to train."""
    settings = (
        *(*TINY, "data.limit=600", "batch_size=16", "epochs=1"),
        *("strategy=probe_finetune", "strategy.stages.0.epochs=4"),
    )
    answer = tlbench("train", *settings, f"batch_norm.statistics={statistics}", "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    run = Run.open(Path("run"))
    with (run.folder / "history.csv").open() as file:
        probe, first = list(csv.DictReader(file))[-2:]
    assert (probe["stage"], first["stage"]) == ("probe", "finetune")
    assert run.metrics["val_loss"] < 1.2 * float(probe["val_loss"])
    before, after = (
        [v for layer in batch_norm.layers(keras.models.load_model(path)) for v in layer.weights[2:]]
        for path in (SMALL, run.model)
    )
    same = all(
        np.array_equal(one.numpy(), other.numpy()) for one, other in zip(before, after, strict=True)
    )
    assert same is (statistics == "frozen")


def test_adapted_statistics_are_those_of_the_training_images(
    tlbench: Callable[..., Answer],
) -> None:
    settings = (*TINY, "trainable=false", "epochs=1")
    words = ("batch_norm.statistics=adapted", "batch_size=1000", "hydra.run.dir=run")
    assert tlbench("train", *settings, *words).code == 0
    first = batch_norm.layers(keras.models.load_model("run/model.keras"))[0]
    original = keras.models.load_model(SMALL)
    dataset = datasets.load(make_config(*settings).data, resize_to(32))
    images = dataset.images.batch(dataset.splits["train"]).astype("float32")
    enlarged = images.repeat(4, axis=1).repeat(4, axis=2)
    convolve = keras.Model(original.input, original.get_layer("conv_1").output)
    found, before = first.moving_variance.numpy(), original.get_layer("bn_1").moving_variance
    expected = convolve.predict(enlarged, verbose=0).var(axis=(0, 1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert not np.allclose(before, expected, rtol=1e-3)
