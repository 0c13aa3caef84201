"""Rates of dropout and of stochastic depth: those that papers and networks give, where they act, and that they do."""

from typing import Any

import numpy as np
import pytest

from helpers import make_config
from tlbench.base.draws import reseed
from tlbench.base.errors import ConfigError
from tlbench.features import engines
from tlbench.networks import classifiers, cuts, dropping
from tlbench.networks.backbones import inside
from tlbench.networks.classifiers import Classifier
from tlbench.networks.dropping import StochasticDepth
from tlbench.networks.fused import accelerate
from tlbench.networks.hardware import keras, tf

SIDE = 32
WORDS = ("data=digits", "head=linear", "backbone.weights=null", f"backbone.image_size={SIDE}")
SIZES = ("num_layers=4", "hidden_dim=16", "num_heads=2")
WIDTH = {"vit_base": "mlp_dim"}  # what others call intermediate_dim
LITE = (
    *("backbone=efficientnet_lite0", "backbone.arguments.dropout=0.1"),
    "backbone.arguments.stackwise_width_coefficients=[0.25,0.25,0.25,0.25,0.25,0.25,0.25]",
)
# Blocks, from 0, that have a branch around them, all but the first of each stage: EfficientNet-B0 (Tan and Le 2019) has
# stages of 1, 2, 2, 3, 3, 4 and 1 blocks, Lite0 the same, and EfficientNetV2-B0 of 1, 2, 2, 3, 5 and 8.
B0 = [2, 4, 6, 7, 9, 10, 12, 13, 14]
V2B0 = [2, 4, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20]


def built(*words: str) -> tuple[Any, Classifier]:
    cfg = make_config(*WORDS, *words)
    if cfg.backbone.builder == "keras_hub":
        pytest.importorskip("keras_hub")
    side = cfg.backbone.image_size
    return cfg, classifiers.build(cfg, (side, side, 3), 10)


def transformer(name: str, *more: str) -> tuple[str, ...]:
    sizes = (*SIZES, f"{WIDTH.get(name, 'intermediate_dim')}=32", "patch_size=8")
    return (f"backbone={name}", *(f"backbone.arguments.{size}" for size in sizes), *more)


def dropped(cfg: Any, classifier: Classifier, network: keras.Model | None = None) -> keras.Model:
    """A copy to train on, with the rates that are asked for."""
    copy = accelerate(network or classifier.model, "float32")
    dropping.set_rates(copy, classifier.backbone, cfg.backbone)
    return copy


def rates(network: keras.Model, *, depth: bool) -> list[float]:
    """Of layers that leave out whole images, or of the others that leave out something."""
    found = [layer for layer in inside(network) if isinstance(layer, keras.layers.Dropout)]

    def of_images(layer: keras.layers.Dropout) -> bool:
        return isinstance(layer, StochasticDepth) or layer.noise_shape is not None

    return [layer.rate for layer in found if of_images(layer) is depth]


@pytest.mark.parametrize(
    ("words", "expected", "own"),
    [
        # Keras: drop_connect_rate * b / blocks, of its own 0.2.
        (("backbone=efficientnetb0",), [0.3 * b / 16 for b in B0], 0.2),
        (("backbone=efficientnetv2b0",), [0.3 * b / 21 for b in V2B0], 0.2),
        # ConvNeXt (Liu et al. 2022), DINOv2 (Oquab et al. 2023): linspace(0, rate, blocks).
        (("backbone=convnexttiny",), [0.3 * b / 17 for b in range(18)], 0),
        (transformer("dinov2_small"), [0, 0.1, 0.2, 0.3], 0),
        (transformer("dinov3_small"), [0, 0.1, 0.2, 0.3], 0),
        # HGNetV2-B4 has six blocks, of which the first of each stage has no branch around it.
        (("backbone=hgnetv2_b4",), [0, 0.06, 0.12, 0.18, 0.24, 0.3], 0),
        (LITE, [0.3 * b / 16 for b in B0], 0.1),
    ],
    ids=[
        "efficientnetb0",
        "efficientnetv2b0",
        "convnexttiny",
        "dinov2",
        "dinov3",
        "hgnet",
        "lite0",
    ],
)
def test_the_rate_rises_as_the_network_has_it(
    words: tuple[str, ...], expected: list[float], own: float
) -> None:
    """own: the rate that it was published with, by which its own rates rise in the same way."""
    cfg, classifier = built(*words, "backbone.drop_path=0.3")
    before = engines.fingerprint(classifier.features)
    copy = dropped(cfg, classifier)
    np.testing.assert_allclose(rates(copy, depth=True), expected, atol=1e-7)
    generators = [v for v in copy.variables if v.path.endswith("seed_generator_state")]
    assert len(generators) >= len(expected)
    assert engines.fingerprint(classifier.features) == before
    kept = rates(classifier.backbone, depth=True)  # of what is saved
    np.testing.assert_allclose(kept, [own / 0.3 * rate for rate in expected] if own else [])
    again = accelerate(copy, "float32")  # as where statistics are computed anew
    assert len(again.weights) == len(copy.weights)
    images = np.random.default_rng(0).uniform(0, 255, (2, *classifier.model.input_shape[1:]))
    given, same = (net(images.astype(np.float32)) for net in (copy, classifier.model))
    np.testing.assert_allclose(given, same, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_base", "deit_small", "dinov2_small", "dinov3_small"])
def test_dropout_has_its_rate_in_what_trains(name: str) -> None:
    pytest.importorskip("keras_hub")
    blocks = [f"transformer_block_{n}" for n in range(1, 5)]
    if name.startswith("dino"):
        blocks = [f"layers_{n}" for n in range(4)]
    cfg, classifier = built(*transformer(name, "backbone.dropout=0.25", f"trainable={blocks[2]}"))
    copy = dropped(cfg, classifier)
    found = {
        block: [layer.rate for layer in inside(part) if isinstance(layer, keras.layers.Dropout)]
        for part in inside(copy)
        if (block := part.name) in blocks
    }
    assert list(found) == blocks
    attention = [] if name == "dinov3_small" else [0]  # of its weights: not there in DINOv3
    places = {"vit_base": 2}.get(name, 1)
    for block in blocks[:2]:
        assert sorted(found[block]) == [*attention, *[0] * places]
    for block in blocks[2:]:
        assert sorted(found[block]) == [*attention, *[0.25] * places]
    images = np.random.default_rng(0).uniform(0, 255, (2, SIDE, SIDE, 3)).astype(np.float32)
    reseed(copy, 0, 0)
    drawn = [copy(images, training=True).numpy() for _ in range(2)]
    assert not np.allclose(*drawn)
    reseed(copy, 0, 0)
    np.testing.assert_array_equal(copy(images, training=True), drawn[0])


def test_what_is_frozen_drops_nothing_and_rates_are_of_the_whole_network() -> None:
    words = transformer("dinov2_small", "backbone.drop_path=0.3", "trainable=layers_2")
    cfg, classifier = built(*words)
    assert rates(dropped(cfg, classifier), depth=True) == pytest.approx([0.2, 0.3])
    cut = cuts.of(classifier)
    assert cut is not None
    copy = dropped(cfg, classifier, cut.suffix)
    assert rates(copy, depth=True) == pytest.approx([0.2, 0.3])
    cfg, classifier = built(*words, "trainable=layernorm")  # behind the last block
    cut = cuts.of(classifier)
    assert cut is not None
    assert rates(dropped(cfg, classifier, cut.suffix), depth=True) == []


RATED = [("dinov2_small", [0.2] * 4), ("dinov3_small", [0.2 / 3, 0.4 / 3, 0.2])]


@pytest.mark.parametrize(("name", "own"), RATED)
def test_a_rate_that_is_an_argument_stays_the_networks_own(name: str, own: list[float]) -> None:
    """KerasHub gives it to each block of DINOv2, and lets it rise over those of DINOv3 from a first one without."""
    cfg, classifier = built(*transformer(name, "backbone.arguments.drop_path_rate=0.2"))
    copy = dropped(cfg, classifier)
    assert rates(copy, depth=True) == pytest.approx(own)
    images = np.random.default_rng(0).uniform(0, 255, (2, SIDE, SIDE, 3)).astype(np.float32)
    reseed(copy, 0, 0)
    drawn = [copy(images, training=True).numpy() for _ in range(2)]
    assert not np.allclose(*drawn)


@pytest.mark.parametrize("shape", [(4000, 3), (4000, 2, 3), (4000, 2, 2, 3)])
def test_whole_images_are_left_out_and_the_others_make_up_for_them(shape: tuple[int, ...]) -> None:
    layer = StochasticDepth(0.25, seed=0)
    given = layer(tf.ones(shape), training=True).numpy().reshape(4000, -1)
    assert set(np.unique(given)) == {0, np.float32(1 / 0.75)}
    assert (given == given[:, :1]).all()
    assert given[:, 0].astype(bool).mean() == pytest.approx(0.75, abs=0.03)
    np.testing.assert_array_equal(layer(tf.ones(shape)), np.ones(shape))


def test_a_block_that_is_left_out_passes_its_input_on() -> None:
    """A rate just below 1 in the last of four blocks: each of its two branches is dropped for every image."""
    cfg, classifier = built(*transformer("dinov2_small", "backbone.drop_path=0.999999"))
    copy = dropped(cfg, classifier)
    block = next(layer for layer in inside(copy) if layer.name == "layers_3")
    x = tf.random.stateless_normal((8, 17, 16), seed=[0, 0])
    np.testing.assert_array_equal(block(x, training=True), x)
    assert not np.allclose(block(x, training=False), x)


def test_what_a_network_does_not_have_is_said() -> None:
    for words, setting, said in (
        (("backbone=mobilenet",), "dropout", "mobilenet has no Dropout layer"),
        (transformer("siglip_base"), "dropout", "siglip_base has no Dropout layer"),
        (transformer("vit_base"), "drop_path", "no branch of vit_base can be left out"),
        (("backbone=mobilenet",), "drop_path", "no branch of mobilenet can be left out"),
    ):
        cfg, classifier = built(*words, f"backbone.{setting}=0.1")
        with pytest.raises(ConfigError, match=said):
            dropping.check(classifier.backbone, cfg.backbone)
