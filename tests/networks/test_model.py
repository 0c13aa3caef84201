"""Classifiers: the report's parameter counts, every backbone, preprocessing inside the model."""

import gc
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import MOBILENET, Answer, make_config
from tlbench.base import kept
from tlbench.base.errors import ConfigError
from tlbench.config import compose
from tlbench.networks import classifiers, hardware
from tlbench.networks.classifiers import Classifier
from tlbench.networks.hardware import gradient_registry, keras

BACKBONES = sorted(
    path.stem
    for path in (compose.conf_dir() / "backbone").glob("*.yaml")
    # A model of the user's own is in test_weights.py, those of KerasHub in test_hub.py.
    if path.stem != "file" and "builder: keras_hub" not in path.read_text()
)

# The report's total, trainable and non-trainable parameters.
COUNTS = {
    "resnet50_fc": (26_220_948, 2_633_236, 23_587_712),
    "resnet50_all": (26_220_948, 26_167_828, 53_120),
    "mobilenetv3_fc": (4_023_956, 1_027_604, 2_996_352),
    "mobilenetv3_all": (4_023_956, 3_999_556, 24_400),
    "mobilenetv3_exp": (5_565_076, 5_540_676, 24_400),
}


def tiny(*overrides: str) -> Classifier:
    return classifiers.build(make_config(*MOBILENET, *overrides), (8, 8, 3), 10)


@pytest.mark.parametrize("experiment", COUNTS)
def test_the_reports_counts(tlbench: Callable[..., Answer], experiment: str) -> None:
    answer = tlbench("summary", f"report={experiment}")
    assert answer.code == 0
    lines = {line.split()[0]: line.split()[-1] for line in answer.out.splitlines() if line.split()}
    found = tuple(
        int(lines[name].replace(",", "")) for name in ("total", "trainable", "non-trainable")
    )
    assert found == COUNTS[experiment]
    assert "(224, 224, 3)" in answer.out


IMAGENET = ([-2.1179, -2.0357, -1.8044], [2.2489, 2.4286, 2.6400])
# Networks that prepare pixels themselves: what their first weights are given for 0 and for 255.
CARRIED = {
    "convnexttiny": IMAGENET,
    "efficientnetb0": (0, 1),  # and divided by the deviations where the weights are ImageNet's
    "efficientnetv2b0": IMAGENET,
    "mobilenetv3": (-1, 1),
    "mobilenetv3small": (-1, 1),
}


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in CARRIED])
def test_every_backbone_preprocesses_as_keras_does(name: str) -> None:
    backbone = make_config(f"backbone={name}").backbone
    assert backbone.preprocessing is not None
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("float32")
    entry = keras.Input((8, 8, 3))
    ours = keras.Model(entry, classifiers._preprocess(entry, backbone.preprocessing))
    theirs = sys.modules[getattr(keras.applications, backbone.architecture).__module__]
    expected = theirs.preprocess_input(pixels.copy())
    assert np.abs(expected - pixels).max() > 1
    np.testing.assert_allclose(ours.predict(pixels, verbose=0), expected, atol=1e-4)


@pytest.mark.parametrize("name", CARRIED)
def test_a_backbone_without_preprocessing_carries_its_own(name: str) -> None:
    cfg = make_config(f"backbone={name}", "backbone.weights=null", "backbone.image_size=32")
    assert cfg.backbone.preprocessing is None
    network = classifiers.build(cfg, (32, 32, 3), 20).backbone
    prepares = keras.layers.Normalization
    first = next(x for x in network.layers if x.weights and not isinstance(x, prepares))
    entry = keras.Model(network.input, first.input)
    for value, expected in zip((0, 255), CARRIED[name], strict=True):
        given = np.asarray(entry(np.full((1, 32, 32, 3), value, np.float32)))
        middle = given[0, given.shape[1] // 2, given.shape[2] // 2]
        np.testing.assert_allclose(middle, np.broadcast_to(expected, 3), atol=1e-3)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_builds(name: str) -> None:
    size = 75 if name in ("inceptionv3", "inceptionresnetv2", "xception") else 32
    cfg = make_config(f"backbone={name}", "backbone.weights=null", f"backbone.image_size={size}")
    built = classifiers.build(cfg, (32, 32, 3), 20)
    assert built.model.output_shape == (None, 20)
    assert built.head.output_shape == (None, 20)


def test_small_images_are_upsampled_by_whole_factors_or_resized() -> None:
    assert tiny().model.get_layer("up_sampling2d").size == (4, 4)
    assert tiny("backbone.image_size=36").model.get_layer("resizing").height == 36
    names = [layer.name for layer in tiny("backbone.image_size=32").model.layers]
    assert "resizing" not in names


@pytest.mark.parametrize(
    ("interpolation", "side"), [("bilinear", 21), ("bicubic", 21), ("bicubic", 48)]
)
def test_arrays_are_resized_as_pillow_resizes_pictures(interpolation: str, side: int) -> None:
    cfg = make_config(*MOBILENET, f"backbone.interpolation={interpolation}").backbone
    pixels = np.random.default_rng(0).integers(60, 196, (2, side, side, 3), dtype=np.uint8)
    entry = keras.Input((side, side, 3))
    ours = keras.Model(entry, classifiers._enlarge(entry, cfg)).predict(pixels, verbose=0)
    by = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    squares = [np.asarray(Image.fromarray(array).resize((32, 32), by)) for array in pixels]
    assert np.abs(ours - np.stack(squares)).max() < 1.6  # Pillow rounds twice, rows and columns


def test_what_trains() -> None:
    all_of_it, head_only = tiny(), tiny("trainable=false")
    assert head_only.trainable_parameters == 256 * 16 + 16 + 16 * 10 + 10
    assert head_only.parameters == all_of_it.parameters
    names = [layer.name for layer in all_of_it.backbone.layers]
    part = tiny("trainable=conv_pw_13")
    trained = [layer.name for layer in part.backbone.layers if layer.trainable]
    assert trained == names[names.index("conv_pw_13") :]
    with pytest.raises(ConfigError, match="Did you mean 'conv_pw_13'"):
        tiny("trainable=conv_pw_113")


def test_the_head_is_what_the_shell_says() -> None:
    names = [layer.name for layer in tiny("head.widths=[32,8]", "head.dropout=0.2").head.layers]
    assert names == ["features", "dense", "dropout", "dense_1", "dropout_1", "classification"]
    linear = tiny("head=linear", "head.widths=[]").head
    assert [layer.name for layer in linear.layers] == ["features", "classification"]


def test_the_head_starts_alike_whatever_the_backbones_weights() -> None:
    seeds = [tiny(f"seed={seed}").head.get_weights()[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(seeds[0], seeds[1])
    assert np.abs(seeds[0] - seeds[2]).max() > 0.01


@pytest.mark.parametrize("name", ["mobilenet", "mobilenetv3small", "efficientnetv2b0", "resnet50"])
def test_a_saved_classifier_is_plain_keras(name: str, tmp_path: Path) -> None:
    cfg = make_config(
        "data=digits", f"backbone={name}", "backbone.weights=null", "backbone.image_size=32"
    )
    built = classifiers.build(cfg, (8, 8, 3), 10).model
    built.save(tmp_path / "model.keras")
    # safe_mode admits nothing but Keras's own classes.
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert "tlbench" not in loaded.to_json()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        built.predict(pixels, verbose=0), loaded.predict(pixels, verbose=0)
    )


def test_a_backbone_that_is_kept_is_as_if_it_were_built_anew() -> None:
    """Another job's head is not held by it, and what it draws is drawn from the job's own seed."""
    pixels = keras.Input((8, 8, 3))
    maps = keras.layers.Dropout(0.1)(keras.layers.Conv2D(4, 3)(pixels))
    keras.Model(pixels, maps).save("dropping.keras")

    def built(seed: int) -> Classifier:
        words = ("backbone=file", "backbone.weights=dropping.keras", "backbone.image_size=8")
        cfg = make_config("data=digits", *words, "trainable=false", f"seed={seed}")
        return classifiers.build(cfg, (8, 8, 3), 10)

    alone = built(1)
    with kept.between_jobs():
        before = built(0)
        backbone, head = before.backbone, weakref.ref(before.head.layers[-1])
        del before
        again = built(1)
        gc.collect()
    assert head() is None
    assert again.backbone is backbone
    assert built(1).backbone is not backbone
    assert again.model.get_config() == alone.model.get_config()
    pairs = zip(again.model.variables, alone.model.variables, strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


def test_nothing_is_left_of_a_network_that_was_trained() -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    network.compile("sgd", "mse")
    network.fit(np.zeros((4, 2)), np.zeros((4, 3)), verbose=0)
    layer = weakref.ref(network.layers[0])
    assert any(name.startswith("CustomGradient-") for name in gradient_registry.list())
    del network
    hardware.forget_networks()
    gc.collect()
    assert layer() is None
    assert not any(name.startswith("CustomGradient-") for name in gradient_registry.list())
