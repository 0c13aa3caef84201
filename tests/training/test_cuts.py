"""Training the last layers on maps that were computed once: the same as computing them every epoch, and to the bit
after a stop."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import Answer, make_config
from tlbench.networks import classifiers, cuts, graph
from tlbench.networks.hardware import keras
from tlbench.runs.run import Run

Command = Callable[..., Answer]

SIDE = 16


def _normalized(x: Any) -> Any:
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(x))


def residual(path: Path) -> None:
    """Four blocks of two convolutions around which the maps go, too."""
    layers = keras.layers
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(8, 3, padding="same")(layers.Rescaling(1 / 64)(pixels))
    for block in range(4):
        inside = layers.Conv2D(8, 3, padding="same", name=f"{block}_a")(x)
        inside = layers.Conv2D(8, 3, padding="same", name=f"{block}_b")(_normalized(inside))
        x = layers.Add(name=f"{block}_add")([x, layers.BatchNormalization()(inside)])
    keras.Model(pixels, x).save(path)


def depthwise(path: Path) -> None:
    """Four depthwise convolutions, each between two that mix the channels."""
    layers = keras.layers
    pixels = keras.Input((SIDE, SIDE, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(layers.Rescaling(1 / 64)(pixels))
    for block in range(4):
        wide = _normalized(layers.Conv2D(32, 1, name=f"{block}_expand")(x))
        wide = _normalized(layers.DepthwiseConv2D(3, padding="same")(wide))
        x = layers.Conv2D(8, 1)(wide)
        x = layers.BatchNormalization(name=f"{block}_project")(x)
    keras.Model(pixels, x).save(path)


def staged(path: Path) -> None:
    """Four convolutions, whose maps are a half, a quarter, an eighth and an eighth of the picture."""
    x = pixels = keras.Input((SIDE, SIDE, 3))
    for number, strides in enumerate((2, 2, 2, 1)):
        x = keras.layers.Conv2D(8, 3, strides, padding="same", name=f"conv_{number}")(x)
    keras.Model(pixels, x).save(path)


MAKE = {"residual": residual, "depthwise": depthwise, "staged": staged}
# A network of each kind: the first layer of it that trains, what lies below that, and how it normalizes. Moving
# statistics of a few steps, as a batch of the depthwise network leaves them, make much of the last digit.
NETWORKS = {
    "residual": ("3_b", "2_add", "batch"),
    "depthwise": ("3_expand", "2_project", "frozen"),
    "vit_base": ("transformer_block_3", "transformer_block_2", "batch"),
}
ENCODER = ("num_layers=4", "num_heads=2", "hidden_dim=16", "mlp_dim=32")


@pytest.fixture
def words(network: str, tmp_path: Path) -> tuple[str, ...]:
    if network == "vit_base":
        arguments = (f"backbone.arguments.{one}" for one in (*ENCODER, "patch_size=4"))
        return (
            *PLAIN,
            "backbone=vit_base",
            "backbone.weights=null",
            f"backbone.image_size={SIDE}",
            *arguments,
        )
    keras.utils.set_random_seed(0)
    MAKE[network](tmp_path / "network.keras")
    return (*PLAIN, "backbone=file", f"backbone.weights={tmp_path / 'network.keras'}")


PLAIN = (
    *(
        "data=digits",
        "data.limit=120",
        "head=linear",
        "optimizer=sgd",
        "learning_rate=0.01",
        "epochs=2",
    ),
    *(
        "features.precision=float32",
        "features.engine=tensorflow",
        "precision=float32",
        "batch_size=32",
    ),
)


def history(folder: str) -> np.ndarray:
    with Path(folder, "history.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    return np.array([[float(line[key]) for key in ("loss", "val_loss")] for line in lines])


@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_computed_once_trains_as_what_is_computed_every_epoch(
    tlbench: Command, network: str, words: tuple[str, ...]
) -> None:
    first, below, statistics = NETWORKS[network]
    words = (*words, f"trainable={first}", f"batch_norm.statistics={statistics}", "augment=flip")
    once = tlbench("train", *words, "features.storage=float32", "hydra.run.dir=once")
    assert once.code == 0, once.err
    assert f"What lies below {below} is frozen" in once.err
    every = tlbench("train", *words, "features.cache=false", "hydra.run.dir=every")
    assert every.code == 0, every.err
    np.testing.assert_allclose(history("once"), history("every"), rtol=1e-4)
    given = [Run.finished(Path(folder)).tested()[1] for folder in ("once", "every")]
    np.testing.assert_allclose(*given, atol=1e-4)
    assert "equals the record" in tlbench("evaluate", "once").out


@pytest.mark.parametrize("network", ["staged"])
@pytest.mark.parametrize("trainable", ["conv_3", "false"])
def test_fixed_views_train_as_drawing_them_every_epoch(
    tlbench: Command, words: tuple[str, ...], trainable: str
) -> None:
    """Every operation draws; the cache holds an array for each view, and more views keep the first ones."""
    drawn = ("augment=strong", "augment.rotation=20", "augment.views=3")
    words = (*words, f"trainable={trainable}", *drawn, "features.storage=float32")
    once = tlbench("train", *words, "hydra.run.dir=once")
    assert once.code == 0, once.err
    every = tlbench("train", *words, "features.cache=false", "hydra.run.dir=every")
    assert every.code == 0, every.err
    np.testing.assert_allclose(history("once"), history("every"), rtol=1e-4)
    facts = Run.finished(Path("once")).manifest["features"]
    images = 120 + 30
    assert (facts["images_computed"], facts["images_reused"]) == (3 * images, 0)
    more = tlbench("train", *words, "augment.views=5", "hydra.run.dir=more")
    assert more.code == 0, more.err
    facts = Run.finished(Path("more")).manifest["features"]
    assert (facts["images_computed"], facts["images_reused"]) == (2 * images, 3 * images)
    other = tlbench("train", *words, "seed=1", "hydra.run.dir=other")
    assert other.code == 0, other.err
    facts = Run.finished(Path("other")).manifest["features"]
    assert (facts["images_computed"], facts["images_reused"]) == (2 * images, images)


@pytest.mark.parametrize("network", ["depthwise"])
def test_a_probe_and_the_last_stage_go_on_to_the_bit(
    tlbench: Command, words: tuple[str, ...]
) -> None:
    words = (*words, "strategy=probe_finetune", "trainable=2_expand")
    assert tlbench("train", *words, "hydra.run.dir=whole").code == 0
    assert tlbench("train", *words, "epochs=1", "hydra.run.dir=parts").code == 0
    gone_on = tlbench("train", "resume=parts", "epochs=2")
    assert gone_on.code == 0, gone_on.err
    whole, parts = (Run.finished(Path(folder)) for folder in ("whole", "parts"))
    np.testing.assert_array_equal(whole.tested()[1], parts.tested()[1])
    facts = whole.manifest["features"]
    assert (facts["layer"], facts["storage"]) == ("1_project", "float16")
    assert facts["bytes"] == (120 + 30) * 8 * 8 * 8 * 2


STRATEGIES = {
    "all": (["train"], {0, 1, 2, 3}),
    "last_stage": (["probe"] * 2 + ["finetune"], {2, 3}),
    "surgical": (["probe"] * 2 + ["finetune"], {0, 1}),
    "gradual": (["probe"] * 2 + ["last_stage"] * 2 + ["half"] * 2 + ["rest"], {0, 1, 2, 3}),
}


@pytest.mark.parametrize("network", ["staged"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_trains_the_layers_that_it_names(
    tlbench: Command, words: tuple[str, ...], strategy: str, tmp_path: Path
) -> None:
    stages, moved = STRATEGIES[strategy]
    answer = tlbench(
        "train",
        *(*words, f"strategy={strategy}", "epochs=1", "keep=last"),
        *("optimizer=adam", "learning_rate=null", "hydra.run.dir=run"),
    )
    assert answer.code == 0, answer.err
    with Path("run", "history.csv").open(newline="") as file:
        assert [line["stage"] for line in csv.DictReader(file)] == stages
    before = keras.models.load_model(tmp_path / "network.keras")
    after = keras.models.load_model(Path("run", "model.keras")).get_layer("backbone")
    changed = {
        number
        for number in range(4)
        if np.abs(before.layers[number + 1].kernel - after.layers[number + 1].kernel).max() > 0
    }
    assert changed == moved


@pytest.mark.parametrize("network", ["residual"])
def test_what_cannot_be_kept_is_computed_every_epoch(
    tlbench: Command, words: tuple[str, ...]
) -> None:
    words = (*words, "trainable=3_b", "epochs=1")
    answer = tlbench("train", *words, "features.limit_gb=1e-6", "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    assert "over features.limit_gb=1e-06: it is computed every epoch" in " ".join(
        answer.err.split()
    )
    assert "features" not in Run.finished(Path("run")).manifest
    asked = tlbench("train", *words, "features.storage=null", "hydra.run.dir=asked")
    assert asked.code == 0, asked.err
    assert "features" not in Run.finished(Path("asked")).manifest
    moved = tlbench("train", *words, "augment=standard", "hydra.run.dir=moved")
    assert moved.code == 0, moved.err
    assert "augmentation draws other images each time" in moved.err


# What lies below the last stage, and below a tenth of the layers, of networks of several kinds.
STAGES = {
    "resnet50": ("conv4_block6_out", (4, 4, 1024)),
    "mobilenetv3": ("expanded_conv_11_add", (4, 4, 112)),
    "densenet121": ("pool4_pool", (2, 2, 512)),
    "vgg16": ("block4_pool", (4, 4, 512)),
}


@pytest.mark.parametrize("network", STAGES)
def test_the_last_stage_begins_behind_the_smallest_tensor_near(network: str) -> None:
    layer, shape = STAGES[network]
    words = (f"backbone={network}", "backbone.image_size=64", "trainable=last_stage")
    cfg = make_config("data=digits", "backbone.weights=null", *words)
    classifier = classifiers.build(cfg, (64, 64, 3), 10)
    cut = cuts.of(classifier)
    assert cut is not None
    assert (cut.layer, cut.prefix.output_shape) == (layer, (None, *shape))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    whole = classifier.model(pixels, training=False)
    np.testing.assert_array_equal(
        cut.suffix(cut.prefix(pixels, training=False), training=False), whole
    )
    trained = {id(variable) for variable in classifier.model.trainable_variables}
    assert {id(variable) for variable in cut.suffix.trainable_variables} == trained
    assert not cut.prefix.trainable_variables
    # A learning rate that falls from block to block counts the same blocks.
    whole_depths = graph.depths(classifier.model, classifier.backbone)
    assert graph.depths(cut.suffix, classifier.backbone) == whole_depths
    assert max(whole_depths.values()) >= 1
    if network == "resnet50":  # of 174 operations 38 are all that leads on
        assert sum(step.alone for step in graph.steps(classifier.backbone)) == 38


def test_shares_of_the_layers(tlbench: Command) -> None:
    cfg = make_config("data=digits", "backbone=vgg16", "backbone.weights=null", "trainable=0.25")
    classifier = classifiers.build(cfg, (32, 32, 3), 10)
    names = [layer.name for layer in classifier.backbone.layers if layer.trainable_weights]
    assert names == ["block5_conv1", "block5_conv2", "block5_conv3"]
    for wrong in ("1.5", "0.0", "-0.5", "3"):
        answer = tlbench("train", "data=digits", f"trainable={wrong}")
        assert answer.code != 0
        assert "a share of the layers" in answer.error_lines[-1]
