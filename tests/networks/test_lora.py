"""Low-rank pairs: where they are, what of them trains, and that a merged network computes the same."""

from typing import Any

import numpy as np
import pytest

from helpers import make_config
from tlbench.base.errors import ConfigError
from tlbench.networks import classifiers, cuts, lora
from tlbench.networks.backbones import inside
from tlbench.networks.classifiers import Classifier
from tlbench.networks.fused import accelerate
from tlbench.networks.hardware import keras, tf
from tlbench.training.optimizers import optimizer

SIDE = 16
SIZES = ("num_layers=2", "hidden_dim=16", "num_heads=2", "patch_size=4")
# Of each backbone: what it calls its inner width, its attentions (SigLIP pools by one more), the parameters of a pair
# of rank 1 (16 x 2 heads and 8 for Keras's attention, 16 and 16 for DINOv3's), and its two blocks.
FAMILIES = {
    "vit_base": ("mlp_dim", 2, 40, ("transformer_block_1", "transformer_block_2")),
    "deit_small": ("intermediate_dim", 2, 40, ("transformer_block_1", "transformer_block_2")),
    "dinov2_small": ("intermediate_dim", 2, 40, ("layers_0", "layers_1")),
    "dinov3_small": ("intermediate_dim", 2, 32, ("layers_0", "layers_1")),
    "siglip_base": ("intermediate_dim", 3, 40, ("encoder_block_0", "encoder_block_1")),
}
HEAD = 10 * 16 + 10


def words(name: str, *more: str) -> tuple[str, ...]:
    sizes = (*SIZES, f"{FAMILIES[name][0]}=32")
    return (
        *(f"backbone={name}", "backbone.weights=null", f"backbone.image_size={SIDE}"),
        *(f"backbone.arguments.{size}" for size in sizes),
        *("data=digits", "head=linear", "backbone.pooling=average", *more),
    )


def built(*words: str) -> tuple[Any, Classifier]:
    pytest.importorskip("keras_hub")
    cfg = make_config(*words)
    return cfg, classifiers.build(cfg, (SIDE, SIDE, 3), 10)


def low_rank(network: keras.Model, classifier: Classifier, cfg: Any, policy: str) -> keras.Model:
    copy = accelerate(network, policy)
    lora.enable(copy, classifier.backbone, cfg.backbone, seed=0)
    return copy


def pixels(count: int = 8) -> np.ndarray:
    drawn = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3))
    return drawn.astype(np.float32)


@pytest.mark.parametrize("name", FAMILIES)
def test_pairs_alone_train_and_merge_into_the_same_network(name: str) -> None:
    _, attentions, pair, _ = FAMILIES[name]
    cfg, classifier = built(*words(name, "backbone.lora=3", "backbone.lora_alpha=6"))
    own = classifier.parameters
    copy = low_rank(classifier.model, classifier, cfg, "float32")
    images, labels = pixels(), np.arange(8)
    before = classifier.model(images).numpy()
    np.testing.assert_allclose(copy(images), before, atol=1e-6)  # a product of zeros is added
    names = sorted(variable.name for variable in copy.trainable_variables)
    pairs = ["lora_kernel_a", "lora_kernel_b"] * (2 * attentions)
    assert names == sorted([*pairs, "kernel", "bias"])
    assert sum(np.prod(v.shape) for v in copy.trainable_variables) == 6 * attentions * pair + HEAD
    assert classifier.trainable_parameters == 6 * attentions * pair + HEAD
    held = {id(variable): variable.numpy() for variable in copy.weights}
    loss = "sparse_categorical_crossentropy"
    copy.compile(keras.optimizers.Adam(0.05), loss, run_eagerly=True)
    copy.fit(images, labels, epochs=2, verbose=0)
    trained = {id(variable) for variable in copy.trainable_variables}
    for variable in copy.weights:
        same = np.array_equal(variable.numpy(), held[id(variable)])
        assert same is (id(variable) not in trained), variable.path
    after = copy(images).numpy()
    classifier.model.set_weights(lora.merged(copy))
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(classifier.model(images), after, atol=1e-5)
    assert classifier.parameters == own
    assert not any(getattr(layer, "lora_enabled", False) for layer in inside(classifier.model))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_merged_kernel_is_the_kernel_and_alpha_over_rank_of_the_product(policy: str) -> None:
    """In float32, whatever the precision that trained it."""
    cfg, classifier = built(*words("vit_base", "backbone.lora=2", "backbone.lora_alpha=5"))
    copy = low_rank(classifier.model, classifier, cfg, policy)
    rng = np.random.default_rng(0)
    for variable in copy.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    kernels = {v.path: v.numpy() for v in classifier.model.weights}
    of_copy = {v.path: v.numpy() for v in copy.weights}
    classifier.model.set_weights(lora.merged(copy))
    changed = [v for v in classifier.backbone.weights if not np.array_equal(v, kernels[v.path])]
    assert [v.path.split("/")[-2] for v in changed] == ["query", "value"] * 2
    for kernel in changed:
        a, b = (of_copy[f"{kernel.path.rpartition('/')[0]}/lora_kernel_{one}"] for one in "ab")
        expected = kernels[kernel.path] + 2.5 * np.einsum("dhr,rk->dhk", a, b)
        np.testing.assert_allclose(kernel, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_pairs_are_in_what_trains_alone(name: str) -> None:
    """The second of two blocks, and what pools behind it; whether it trains on maps or on images."""
    _, attentions, pair, (frozen, trained) = FAMILIES[name]
    cfg, classifier = built(*words(name, "backbone.lora=2", f"trainable={trained}"))
    cut = cuts.of(classifier)
    # Angles go around DINOv3's blocks, and SigLIP's embedding counts a token that is not there.
    assert (cut is None) is (name in ("dinov3_small", "siglip_base"))
    networks = [classifier.model] if cut is None else [classifier.model, cut.suffix]
    for network in networks:
        copy = low_rank(network, classifier, cfg, "float32")
        found = [v for v in copy.trainable_variables if v.name in lora.PAIR]
        assert len(found) == 4 * (attentions - 1)
        sizes = sum(np.prod(v.shape) for v in found)
        assert sizes == classifier.pairs == 4 * (attentions - 1) * pair
        assert not any(f"{frozen}/" in v.path for v in found)
        assert sum(f"{trained}/" in v.path for v in found) == 4
        assert [len(w) for w in (network.weights, lora.merged(copy))] == [len(network.weights)] * 2
    if cut is not None:
        assert not any(getattr(layer, "lora_enabled", False) for layer in inside(cut.prefix))


def test_pairs_learn_by_the_rate_of_their_block() -> None:
    decayed = ("optimizer=sgd", "optimizer.layer_decay=0.5", "learning_rate=0.08")
    plain = ("optimizer.arguments.momentum=0.0", "optimizer.arguments.nesterov=false")
    cfg, classifier = built(*words("vit_base", "backbone.lora=2", *decayed, *plain))
    copy = low_rank(classifier.model, classifier, cfg, "float32")
    chosen = optimizer(cfg, cfg.strategy.stages[0], 1, copy, classifier.backbone)
    before = [v.numpy() for v in copy.trainable_variables]
    chosen.apply([tf.ones(v.shape) for v in copy.trainable_variables], copy.trainable_variables)
    moved = set()
    for variable, old in zip(copy.trainable_variables, before, strict=True):
        block = next((one for one in ("block_1", "block_2") if one in variable.path), "head")
        rate = {"block_1": 0.02, "block_2": 0.04, "head": 0.08}[block]
        np.testing.assert_allclose(old - variable.numpy(), rate, rtol=1e-4)
        moved.add(block)
    assert moved == {"block_1", "block_2", "head"}


def test_another_seed_and_another_layer_draw_another_pair() -> None:
    cfg, classifier = built(*words("vit_base", "backbone.lora=2"))
    drawn = []
    for seed in (0, 0, 1):
        copy = accelerate(classifier.model, "float32")
        lora.enable(copy, classifier.backbone, cfg.backbone, seed)
        found = [v.numpy() for v in copy.trainable_variables if v.name == "lora_kernel_a"]
        drawn.append([one.tobytes() for one in found])
    assert drawn[0] == drawn[1]
    assert len({*drawn[0], *drawn[2]}) == 8


def attention(**options: Any) -> keras.Model:
    x = given = keras.Input((4, 8), name="tokens")
    x = keras.layers.MultiHeadAttention(2, 4, name="attention", **options)(x, x)
    return keras.Model(given, x, name="own")


def test_a_layer_that_takes_no_pairs_is_named() -> None:
    cfg = make_config("data=digits", "backbone=mobilenet", "backbone.lora=2").backbone
    lora.check(attention(), cfg)
    with pytest.raises(ConfigError, match=r"backbone.lora=2 does not fit the layer 'query'"):
        lora.check(attention(kernel_constraint="non_neg"), cfg)
    network = attention()
    network.get_layer("attention").query_dense.enable_lora(2)
    with pytest.raises(ConfigError, match="it has pairs already"):
        lora.check(network, cfg)
    network.trainable = False
    with pytest.raises(ConfigError, match="what trains of mobilenet has none"):
        lora.check(network, cfg)
