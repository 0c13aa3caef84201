"""Batch normalization's moving statistics: made to settle in training, or computed anew after it.

A backbone with momentum 0.999 needs thousands of steps before its moving statistics follow its weights.
Fine-tuned for a few hundred it fits the training batches and fails in evaluation.
"""

from collections.abc import Iterable

import numpy as np

from tlbench.config import schema
from tlbench.networks import backbones
from tlbench.networks.fused import accelerate
from tlbench.networks.hardware import keras, tf

# Moving statistics have settled when this share of them, or less, is what they started from.
LEFT_OVER = 0.01


def layers(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Every batch normalization in a model, nested ones too, in order."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in backbones.inside(model) if isinstance(layer, kind)]


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


def statistics(cfg: schema.Config) -> str:
    """What the layers that train normalize by: "batch", "adapted" or "frozen".

    A head that was fitted to the moving statistics of a frozen backbone is at a loss where batches' own take
    over. Of the three ways on, freezing them left the lowest loss at that seam and the best accuracy after it
    (benchmarks/seam.py, with pretrained weights).
    """
    asked = cfg.batch_norm.statistics
    if asked != "auto":
        return asked
    if cfg.backbone.lora is not None:  # whose pairs alone train
        return "frozen"
    trains = [stage.trainable is not False for stage in cfg.strategy.stages]
    return "frozen" if cfg.backbone.weights and not trains[0] and any(trains) else "batch"


def needs_recalibration(cfg: schema.BatchNorm, momentum: float, steps: int) -> bool:
    """Whether a stage of so many steps leaves statistics that the backbone's own momentum distrusts."""
    if cfg.recalibrate == "auto":
        return momentum > 0 and momentum**steps > LEFT_OVER
    return bool(cfg.recalibrate)


def recalibrate(model: keras.Model, batches: Iterable[tf.Tensor]) -> None:
    """Replace moving statistics by those of all images together ("precise BN").

    Wu and Johnson 2021, arXiv 2105.07576. batches: (batch, height, width, 3) in 0-255; each passes
    through normalized by its own statistics, as in training, and all else is as in inference: dropout and
    stochastic depth would leave variances that inference never sees. The variance is E[x^2] - E[x]^2 over
    all batches: the mean of their variances would leave out how far their means are apart. Only layers that
    train have their statistics replaced.
    """
    if not any(layer.trainable for layer in layers(model)):
        return
    plain = keras.Model(model.inputs, model.outputs)  # a copy would bring an optimizer along
    copy = accelerate(plain, "float32", statistics_alone=True)
    pairs = zip(layers(plain), layers(copy), strict=True)
    chosen = [(layer, twin) for layer, twin in pairs if layer.trainable]
    for _, twin in chosen:
        twin.momentum = 0.0  # each batch leaves exactly its own statistics behind
    forward = tf.function(lambda x: copy(x, training=True), reduce_retracing=True, autograph=False)
    means = [np.zeros(twin.moving_mean.shape, np.float64) for _, twin in chosen]
    squares = [np.zeros_like(mean) for mean in means]
    images = 0
    for batch in batches:
        forward(batch)
        for (_, twin), mean, square in zip(chosen, means, squares, strict=True):
            of_batch = twin.moving_mean.numpy().astype(np.float64)
            mean += len(batch) * of_batch
            square += len(batch) * (twin.moving_variance.numpy() + of_batch**2)
        images += len(batch)
    for (layer, _), mean, square in zip(chosen, means, squares, strict=True):
        layer.moving_mean.assign(mean / images)
        layer.moving_variance.assign(np.maximum(square / images - (mean / images) ** 2, 0))
