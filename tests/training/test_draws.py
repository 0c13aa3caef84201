"""Draws: what a run draws for one thing it draws for nothing else, nor does another seed."""

import numpy as np
import pytest

from helpers import MOBILENET, make_config, resize_to
from tlbench.base.draws import reseed, seed_for
from tlbench.config.schema import Stage
from tlbench.data import augmentations, datasets
from tlbench.features import engines, frozen
from tlbench.networks import batch_norm, classifiers
from tlbench.networks.fused import accelerate
from tlbench.networks.hardware import Machine, keras, prepare, tf
from tlbench.training import inputs, stages
from tlbench.training.callbacks import LiveDisplay


def test_no_purpose_shares_a_seed_with_another() -> None:
    purposes = ("order", "flip", "shift", "stage", "dropout")
    seeds = [seed_for(s, what, n) for s in range(20) for what in purposes for n in range(5)]
    assert len(set(seeds)) == len(seeds)
    assert seed_for(3, "flip", 1) == seed_for(3, "flip", 1)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_one_seeds_shifts_are_not_anothers_flips() -> None:
    flips = {s: inputs._views(tf.constant(4000), "flip", 2, [s, 7]).numpy() == 1 for s in (0, 1)}
    ramp = np.tile(np.arange(9, dtype=np.float32)[None, None, :, None], (4000, 9, 1, 1))
    moved = (
        augmentations.shift(0.2)
        .draw(tf.constant(ramp), [seed_for(0, "shift"), 7])
        .numpy()[:, 4, 4, 0]
        > 4
    )
    for other in (*flips.values(), ~flips[0], ~flips[1]):
        assert abs((moved == other).mean() - 0.5) < 0.15


def test_no_layer_shares_its_draws_with_another_another_stage_or_another_seed() -> None:
    cfg = make_config(*MOBILENET, "head.widths=[8,8]", "head.dropout=0.5")
    head = classifiers.build(cfg, (8, 8, 3), 10).head
    layers = [layer for layer in head.layers if isinstance(layer, keras.layers.Dropout)]
    masks = []
    for seed, stage in ((0, 0), (0, 1), (1, 0), (1, 1)):
        reseed(head, seed, stage)
        masks += [layer(tf.ones([64, 8]), training=True).numpy().tobytes() for layer in layers]
    assert len(set(masks)) == 8
    reseed(head, 0, 0)
    again = [layer(tf.ones([64, 8]), training=True).numpy().tobytes() for layer in layers]
    assert again == masks[:2]


def test_a_head_draws_alike_alone_and_at_the_end_of_a_network() -> None:
    """Or features from the cache would train another head than pixels do."""
    words = ("backbone=efficientnetv2b0", "backbone.weights=null", "backbone.image_size=32")
    cfg = make_config("data=digits", *words, "head.widths=[8]", "head.dropout=0.5")
    masks = []
    for end in ("head", "model"):
        network = getattr(classifiers.build(cfg, (8, 8, 3), 10), end)
        copy = network if end == "head" else accelerate(network, "float32")
        reseed(copy, 3, 0)
        masks.append(copy.get_layer("dropout")(tf.ones([64, 8]), training=True).numpy())
    assert np.array_equal(*masks)


def test_a_head_is_drawn_from_other_numbers_than_its_backbone() -> None:
    words = ("backbone=vgg16", "backbone.weights=null", "backbone.image_size=32")
    classifier = classifiers.build(
        make_config("data=digits", *words, "head.widths=[64]"), (8, 8, 3), 10
    )
    first, dense = (
        np.ravel(network.weights[0].numpy())[:1728]  # all of VGG16's first kernel
        for network in (classifier.backbone, classifier.head)
    )
    assert abs(np.corrcoef(first, dense)[0, 1]) < 0.1


def test_statistics_are_of_images_drawn_for_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = datasets.load(make_config("data=digits", "data.limit=300").data, resize_to(8))
    cfg = make_config(*MOBILENET)
    seen: list[np.ndarray] = []
    source = inputs.Source(keras.Sequential(), lambda x: x, lambda x, _: x, cheap_steps=True)
    trainer = stages.Trainer(None, cfg, dataset, None, None, None, None)
    monkeypatch.setattr(
        batch_norm, "recalibrate", lambda _, batches: seen.append(next(iter(batches)).numpy())
    )
    trainer._fit_statistics(source)
    epoch, _ = next(iter(inputs.shuffled(source, dataset, cfg, range(1))))
    assert len(seen[0]) == cfg.batch_size
    assert not np.array_equal(seen[0], epoch.numpy())


@pytest.mark.parametrize(("cheap", "sizes"), [(True, [1024, 276]), (False, [*[64] * 20, 20])])
def test_rows_are_evaluated_in_order_and_more_of_them_at_once_where_they_are_features(
    cheap: bool, sizes: list[int]
) -> None:
    dataset = datasets.load(make_config("data=digits").data, resize_to(8))
    rows = np.random.default_rng(0).permutation(len(dataset.labels))[:1300]
    source = inputs.Source(keras.Sequential(), lambda x: x, lambda x, _: x, cheap_steps=cheap)
    batches = [[a.numpy() for a in batch] for batch in inputs.in_order(source, dataset, rows, 64)]
    assert [len(inputs) for inputs, _ in batches] == sizes
    np.testing.assert_array_equal(np.concatenate([given for given, _ in batches]), rows)
    of_each = np.concatenate([labels for _, labels in batches])
    np.testing.assert_array_equal(of_each, dataset.labels[rows])


def test_the_bar_counts_images_of_training_and_of_validation() -> None:
    seen: list[int] = []
    display = LiveDisplay(
        Stage("head", False, 1, None, None), 64, 1024, images=100, validation=1500
    )
    display.seen, display.figures, display.advance = 0, "", lambda count, _: seen.append(count)
    display.on_train_batch_end(0)
    display.on_test_begin()
    display.on_test_batch_end(0)
    display.on_test_batch_end(1)
    assert seen == [64, 36, 1024, 476]


def test_orders_of_neighbouring_seeds_differ() -> None:
    dataset = datasets.load(make_config("data=digits").data, resize_to(8))
    first = []
    for seed in (0, 1):
        cfg = make_config(*MOBILENET, f"seed={seed}")
        source = inputs.from_images(keras.Sequential(), dataset, cfg)
        images, _ = next(iter(inputs.shuffled(source, dataset, cfg, range(1))))
        first.append(images.numpy())
    assert not np.array_equal(*first)


def test_what_is_repeatable_computes_in_whole_float32() -> None:
    for repeatable in (False, True):
        prepare("cpu", 0, repeatable=repeatable)
        allowed = tf.config.experimental.tensor_float_32_execution_enabled()
        assert allowed is not repeatable


def test_features_in_tf32_are_no_features_in_float32() -> None:
    network = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    recipes = []
    for repeatable in (True, False):
        prepare("cpu", 0, repeatable=repeatable)
        for device in ("cpu", "gpu"):
            machine = Machine(device, "any", bfloat16=False, jit_compile=False)
            recipes.append(
                frozen._recipe(engines.fingerprint(network), "tensorflow", machine, "none")
            )
    prepare("cpu", 0)
    exact, exact_gpu, cpu, tf32 = recipes
    assert exact == cpu
    assert exact_gpu != tf32
