"""Optimizers: each variable gets the rate, the weight decay and the clipping that its place asks for."""

from typing import Any

import numpy as np
import pytest

from helpers import TINY, make_config
from tlbench.base.errors import ConfigError
from tlbench.networks import backbones, classifiers, graph
from tlbench.networks.classifiers import Classifier
from tlbench.networks.fused import accelerate
from tlbench.networks.hardware import keras, tf
from tlbench.training import optimizers
from tlbench.training.optimizers import Sweep, optimizer

# Depths below the head of small.keras: its two convolutions, each with the norm behind it.
DEPTHS = {"conv_1": 2, "bn_1": 2, "conv_2": 1, "bn_2": 1, "dense": 0, "classification": 0}


def built(*overrides: str) -> tuple[Any, Classifier]:
    cfg = make_config(*TINY, *overrides)
    return cfg, classifiers.build(cfg, (8, 8, 3), 10)


def made(*overrides: str, steps: int = 10) -> tuple[Any, keras.Model]:
    """The optimizer of a first stage and the faster copy that it trains."""
    cfg, classifier = built(*overrides)
    network = accelerate(classifier.model, "float32")
    chosen = optimizer(cfg, cfg.strategy.stages[0], steps, network, classifier.backbone)
    chosen.build(network.trainable_variables)
    return chosen, network


def moves(chosen: Any, network: keras.Model, steps: int = 1, gradient: float = 1.0) -> list[Any]:
    """By how much constant gradients move each variable, with the name of its layer."""
    variables = network.trainable_variables
    before = [v.numpy() for v in variables]
    for _ in range(steps):
        chosen.apply([tf.fill(v.shape, gradient) for v in variables], variables)
    layers = [v.path.split("/")[-2] for v in variables]
    return [(n, v.name, b, v.numpy()) for n, v, b in zip(layers, variables, before, strict=True)]


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Lion"])
def test_each_block_learns_by_its_share_of_the_rate(name: str) -> None:
    """A gradient of 1 moves a variable by its rate: Adam's and Lion's too, RMSprop's by rate / sqrt(0.1)."""
    words = ("optimizer.layer_decay=0.5", f"optimizer.name={name}", "learning_rate=0.08")
    found = moves(*made(*words))
    assert {layer for layer, *_ in found} == set(DEPTHS)
    unit = 0.08 / np.sqrt(0.1) if name == "RMSprop" else 0.08
    for layer, _, before, after in found:
        np.testing.assert_allclose(before - after, unit * 0.5 ** DEPTHS[layer], rtol=1e-3)


def test_the_shares_hold_over_warm_up_and_cosine() -> None:
    """10 steps, 4 of them warm-up: step 2 has a quarter of 0.08 * share; the seventh half of it."""
    words = (
        "optimizer.layer_decay=0.5",
        "optimizer=sgd",
        "optimizer.arguments.momentum=0.0",
        "epochs=1",
    )
    rates = ("optimizer.arguments.nesterov=false", "schedule=cosine", "schedule.warmup=0.4")
    chosen, network = made(*words, *rates, "learning_rate=0.08", "schedule.final=0")
    for step in range(10):
        share = step / 4 if step < 4 else (1 + np.cos(np.pi * (step - 4) / 6)) / 2
        for layer, _, before, after in moves(chosen, network):
            expected = 0.08 * share * 0.5 ** DEPTHS[layer]
            np.testing.assert_allclose(before - after, expected, atol=1e-6)


def test_the_shares_hold_while_a_sweep_raises_the_rate() -> None:
    """From 0.01 to 0.16 in five steps, each twice the one before, whatever rate and schedule are set."""
    words = ("optimizer.layer_decay=0.5", "optimizer=sgd", "optimizer.arguments.momentum=0.0")
    cfg, classifier = built(*words, "optimizer.arguments.nesterov=false", "schedule=cosine")
    network, stage = accelerate(classifier.model, "float32"), cfg.strategy.stages[0]
    chosen = optimizer(cfg, stage, 10, network, classifier.backbone, Sweep(0.01, 0.16, 5))
    chosen.build(network.trainable_variables)
    for step in range(5):
        for layer, _, before, after in moves(chosen, network):
            expected = 0.01 * 2**step * 0.5 ** DEPTHS[layer]
            np.testing.assert_allclose(before - after, expected, atol=1e-6)


def test_a_block_below_decays_by_its_share_too_and_biases_and_norms_stay() -> None:
    words = ("optimizer=adamw", "optimizer.layer_decay=0.5", "learning_rate=0.1")
    found = moves(*made(*words, "optimizer.arguments.weight_decay=0.2"), gradient=0.0)
    for layer, name, before, after in found:
        decay = 0.1 * 0.5 ** DEPTHS[layer] * 0.2 if name == "kernel" else 0
        np.testing.assert_allclose(after, before * (1 - decay), rtol=1e-6)
    assert {name for _, name, *_ in found} == {"kernel", "bias", "gamma", "beta"}


def test_biases_decay_where_they_are_asked_to() -> None:
    words = ("optimizer=adamw", "optimizer.decay_biases=true", "learning_rate=0.1")
    for _, _, before, after in moves(*made(*words), gradient=0.0):
        np.testing.assert_allclose(after, before * (1 - 0.1 * 0.01), rtol=1e-6)


def test_a_bias_of_several_dimensions_is_one() -> None:
    pixels = keras.Input((4, 8))
    attention = keras.layers.MultiHeadAttention(2, 4, name="attention")
    network = keras.Model(pixels, keras.layers.Flatten()(attention(pixels, pixels)))
    cfg, _ = built("optimizer=adamw", "learning_rate=0.1")
    chosen = optimizer(cfg, cfg.strategy.stages[0], 1, network, network)
    for variable in network.trainable_variables:
        variable.assign(tf.ones(variable.shape))
    for _, name, _, after in moves(chosen, network, gradient=0.0):
        np.testing.assert_allclose(after, 1 - 0.001 * (name == "kernel"), rtol=1e-6)


def test_a_long_gradient_is_cut_to_its_length() -> None:
    words = ("optimizer=sgd", "optimizer.clipnorm=0.5", "learning_rate=1", "trainable=false")
    plain = ("optimizer.arguments.momentum=0.0", "optimizer.arguments.nesterov=false")
    for _, _, before, after in moves(*made(*words, *plain), gradient=3.0):
        assert np.linalg.norm(after - before) == pytest.approx(0.5, rel=1e-5)


def test_the_rate_is_the_heads_and_half_floats_scale_the_loss_of_all() -> None:
    chosen, network = made("optimizer.layer_decay=0.5", "learning_rate=0.08", "optimizer=sgd")
    scaled = keras.optimizers.LossScaleOptimizer(chosen, initial_scale=4.0)
    rates = [float(part.learning_rate.numpy()) for part in optimizers.parts(scaled)]
    assert sorted(rates) == pytest.approx([0.02, 0.04, 0.08])
    scaled.build(network.trainable_variables)
    for layer, _, before, after in moves(scaled, network, gradient=4.0):
        step = 0.08 * 0.5 ** DEPTHS[layer] * 1.9  # Nesterov's first step with momentum 0.9
        np.testing.assert_allclose(before - after, step, rtol=1e-3)
    known = len(scaled.variables)
    again = keras.optimizers.MultiOptimizer.from_config(chosen.get_config())
    again.build(network.trainable_variables)
    assert len(again.variables) == len(chosen.variables) < known
    again.set_weights([v.numpy() for v in chosen.variables])
    for one, other in zip(chosen.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_what_is_frozen_has_no_rate_and_does_not_change_the_others() -> None:
    found = moves(*made("trainable=conv_2", "optimizer.layer_decay=0.5", "learning_rate=0.08"))
    assert {layer for layer, *_ in found} == {n for n, depth in DEPTHS.items() if depth < 2}
    for layer, _, before, after in found:
        np.testing.assert_allclose(before - after, 0.08 * 0.5 ** DEPTHS[layer], rtol=1e-3)


def test_a_norm_over_all_gradients_does_not_go_with_blocks() -> None:
    with pytest.raises(ConfigError, match=r"global_clipnorm .* Expected optimizer\.clipnorm"):
        made("optimizer.layer_decay=0.5", "+optimizer.arguments.global_clipnorm=1")


# ---------------------------------------------------------------- blocks


@pytest.mark.parametrize(
    ("architecture", "count", "block", "some", "last"),
    [
        ("resnet50", 1 + 16, 3, "conv2_block3_1_conv", "conv2_block3_out"),
        ("mobilenetv3small", 1 + 11, 1, "expanded_conv_depthwise", "expanded_conv_project_bn"),
        ("vgg16", 5, 1, "block2_conv1", "block2_pool"),
        ("mobilenet", 1 + 13, 13, "conv_dw_13", "conv_pw_13_relu"),
        ("dinov2_small", 1 + 12, 12, "layers_11", "layernorm"),
        ("inceptionv3", 5 + 11, 15, "mixed9_1", "mixed10"),
    ],
)
def test_blocks_are_those_of_the_architecture(
    architecture: str, count: int, block: int, some: str, last: str
) -> None:
    """One more than the paper's: the stem. What follows the last block belongs to it."""
    cfg = make_config(f"backbone={architecture}", "backbone.weights=null").backbone
    blocks = graph.blocks(backbones.build(cfg).model)
    assert len(blocks) == count
    names = [unit.name for unit in blocks[block]]
    assert some in names
    assert names[-1] == last


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_step_of_adam_is_keras_own(name: str) -> None:
    """Over twenty steps with random gradients, a schedule, weight decay and clipping."""
    words = (f"optimizer={name}", "optimizer.clipnorm=0.5", "schedule=cosine", "epochs=1")
    ours, network = made(*words, "learning_rate=0.01", "optimizer.decay_biases=true", steps=20)
    kind = keras.optimizers.AdamW if name == "adamw" else keras.optimizers.Adam
    assert isinstance(ours, kind)
    assert type(ours) is not kind
    plain = kind.from_config(ours.get_config())
    twins = [keras.Variable(variable.numpy()) for variable in network.trainable_variables]
    plain.build(twins)
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = [rng.normal(size=twin.shape).astype(np.float32) for twin in twins]
        ours.apply([tf.constant(one) for one in drawn], network.trainable_variables)
        plain.apply([tf.constant(one) for one in drawn], twins)
    for variable, twin in zip(network.trainable_variables, twins, strict=True):
        np.testing.assert_allclose(variable.numpy(), twin.numpy(), rtol=1e-4, atol=1e-6)


def test_what_is_no_plain_adam_steps_as_keras_has_it() -> None:
    chosen, _ = made("optimizer=adam", "+optimizer.arguments.amsgrad=true")
    assert type(chosen) is keras.optimizers.Adam
