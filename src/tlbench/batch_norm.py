"""Batch normalization's moving statistics: made to settle in training, or computed anew after it.

A backbone with momentum 0.999 needs thousands of steps before its moving statistics follow its weights.
Fine-tuned for a few hundred it fits the training batches and fails in evaluation.
"""

from collections.abc import Iterable

import numpy as np

from tlbench import config
from tlbench.hardware import keras, tf

# Moving statistics have settled when this share of them, or less, is what they started from.
LEFT_OVER = 0.01


def layers(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Every batch normalization in a model, nested ones too, in order."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found += layers(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            found.append(layer)
    return found


def own_momentum(model: keras.Model) -> float:
    """The largest momentum in a model, 0 where it has no batch normalization."""
    return max((layer.momentum for layer in layers(model)), default=0.0)


def set_momentum(model: keras.Model, momentum: str | float | None, steps_per_epoch: int) -> None:
    """momentum: a number; "auto" for one that settles within an epoch; None to keep the layers' own."""
    if momentum is None:
        return
    for layer in layers(model):
        settling = LEFT_OVER ** (1 / max(1, steps_per_epoch))
        layer.momentum = min(layer.momentum, settling) if momentum == "auto" else float(momentum)


def needs_recalibration(cfg: config.BatchNorm, momentum: float, steps: int) -> bool:
    """Whether a stage of so many steps leaves statistics that the backbone's own momentum distrusts."""
    if cfg.recalibrate == "auto":
        return momentum > 0 and momentum**steps > LEFT_OVER
    return bool(cfg.recalibrate)


def recalibrate(model: keras.Model, batches: Iterable[tf.Tensor]) -> None:
    """Replace moving statistics by their average over batches ("precise BN").

    Wu and Johnson 2021, arXiv 2105.07576. batches: (batch, height, width, 3) in 0-255. Only layers
    that train have their statistics replaced.
    """
    chosen = [layer for layer in layers(model) if layer.trainable]
    if not chosen:
        return
    own = [layer.momentum for layer in chosen]
    statistics = [v for layer in chosen for v in (layer.moving_mean, layer.moving_variance)]
    for layer in chosen:
        layer.momentum = 0.0  # each batch leaves exactly its own statistics behind
    forward = tf.function(lambda x: model(x, training=True), reduce_retracing=True)
    totals = [np.zeros(v.shape, np.float64) for v in statistics]
    weight = 0
    for images in batches:
        forward(images)
        count = len(images)
        for total, variable in zip(totals, statistics, strict=True):
            total += count * variable.numpy()
        weight += count
    for variable, total in zip(statistics, totals, strict=True):
        variable.assign(total / weight)
    for layer, momentum in zip(chosen, own, strict=True):
        layer.momentum = momentum
