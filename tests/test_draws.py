"""Draws: what a run draws for one thing it draws for nothing else, nor does another seed."""

import numpy as np
import pytest

from conftest import TINY, make_config
from tlbench import data, inputs, model
from tlbench.draws import seed_for
from tlbench.hardware import keras, prepare, tf


def test_no_purpose_shares_a_seed_with_another() -> None:
    purposes = ("order", "flip", "shift", "stage", "dropout")
    seeds = [seed_for(s, what, n) for s in range(20) for what in purposes for n in range(5)]
    assert len(set(seeds)) == len(seeds)
    assert seed_for(3, "flip", 1) == seed_for(3, "flip", 1)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_one_seeds_shifts_are_not_anothers_flips() -> None:
    flips = {s: inputs._flips(tf.constant(4000), [s, 7]).numpy() for s in (0, 1)}
    ramp = np.tile(np.arange(9, dtype=np.float32)[None, None, :, None], (4000, 9, 1, 1))
    moved = inputs._shift(tf.constant(ramp), 0.2, [0, 7]).numpy()[:, 4, 4, 0] > 4
    for other in (*flips.values(), ~flips[0], ~flips[1]):
        assert abs((moved == other).mean() - 0.5) < 0.15


@pytest.mark.parametrize("seed", [0, 1])
def test_layers_of_dropout_and_neighbouring_seeds_have_draws_of_their_own(seed: int) -> None:
    words = (*TINY, "head.widths=[8,8]", "head.dropout=0.5")
    heads = [
        model.build(make_config(*words, f"seed={s}"), (8, 8, 3), 10).head for s in (seed, seed + 1)
    ]
    seeds = [
        layer.seed
        for head in heads
        for layer in head.layers
        if isinstance(layer, keras.layers.Dropout)
    ]
    assert len(set(seeds)) == 4


def test_orders_of_neighbouring_seeds_differ() -> None:
    dataset = data.load(make_config("data=digits").data, 8)
    first = []
    for seed in (0, 1):
        cfg = make_config(*TINY, f"seed={seed}")
        source = inputs.from_images(keras.Sequential(), dataset, cfg)
        images, _ = next(iter(inputs.shuffled(source, dataset, cfg, range(1))))
        first.append(images.numpy())
    assert not np.array_equal(*first)


def test_what_is_repeatable_computes_in_whole_float32() -> None:
    for repeatable in (False, True):
        prepare("cpu", 0, repeatable=repeatable)
        allowed = tf.config.experimental.tensor_float_32_execution_enabled()
        assert allowed is not repeatable
