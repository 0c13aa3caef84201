"""Stages -> compile and fit: one loop runs any list of them."""

import inspect
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlbench import batch_norm, config, data
from tlbench.callbacks import Epoch, History, LiveDisplay
from tlbench.config import Config, Stage, suggest
from tlbench.errors import ConfigError
from tlbench.hardware import Hardware, keras, tf
from tlbench.images import Images
from tlbench.model import Classifier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """What training left besides the weights."""

    history: list[Epoch]
    seconds: float  # in fit and what belongs to it, compilation included
    recalibrated: bool  # whether moving statistics were recomputed after the last stage


def run_stages(
    classifier: Classifier, dataset: data.Dataset, cfg: Config, hardware: Hardware
) -> Fitted:
    """Train a classifier through the stages of its strategy."""
    images = len(dataset.splits["train"])
    steps = math.ceil(images / cfg.batch_size)
    history = History(images)
    display = LiveDisplay(steps, cfg.batch_size, images)
    own_momentum = batch_norm.own_momentum(classifier.backbone)
    recalibrated, began = False, time.perf_counter()
    for stage in cfg.strategy.stages:
        classifier.set_trainable(stage.trainable)
        if stage.trainable is not False:
            batch_norm.set_momentum(classifier.backbone, cfg.batch_norm.momentum, steps)
        for listener in (history, display):
            listener.begin_stage(stage.name, stage.epochs)
        _fit(classifier.model, stage, dataset, cfg, hardware, steps, [history, display])
        recalibrated = stage.trainable is not False and batch_norm.needs_recalibration(
            cfg.batch_norm, own_momentum, steps * stage.epochs
        )
        if recalibrated:
            log.info("Recomputing batch normalization's statistics over the training images")
            batch_norm.recalibrate(classifier.model, _recalibration_batches(dataset, cfg))
    return Fitted(history.epochs, time.perf_counter() - began, recalibrated)


def predict(
    model: keras.Model, dataset: data.Dataset, rows: np.ndarray, batch_size: int
) -> np.ndarray:
    """Probabilities of the rows in their order, (rows, classes) float32."""
    batches = _in_order(dataset.images, dataset.labels, rows, batch_size)
    return model.predict(batches.map(lambda images, _: images), verbose=0)


# ---------------------------------------------------------------- one stage


def _fit(
    model: keras.Model,
    stage: Stage,
    dataset: data.Dataset,
    cfg: Config,
    hardware: Hardware,
    steps: int,
    listeners: list[History | LiveDisplay],
) -> None:
    done = len(listeners[0].epochs)  # epochs of earlier stages: each epoch of a run draws anew
    model.compile(
        optimizer=_optimizer(cfg, stage, steps),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=hardware.jit_compile,
    )
    callbacks: list[keras.callbacks.Callback] = [*listeners]
    if cfg.early_stopping.patience is not None:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                "val_loss", patience=cfg.early_stopping.patience, restore_best_weights=True
            )
        )
    try:
        model.fit(
            _shuffled(dataset, cfg, first_epoch=done, epochs=stage.epochs),
            validation_data=_in_order(
                dataset.images, dataset.labels, dataset.splits["validation"], cfg.batch_size
            ),
            epochs=stage.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the batches come shuffled
            callbacks=callbacks,
            verbose=0,
        )
    finally:
        listeners[1].close()


def _optimizer(cfg: Config, stage: Stage, steps: int) -> keras.optimizers.Optimizer:
    rates = cfg.optimizer.learning_rate
    own = rates.frozen if stage.trainable is False else rates.trained
    rate = _schedule(cfg.schedule, stage.learning_rate or own, steps * stage.epochs)
    kind: Any = getattr(keras.optimizers, cfg.optimizer.name, None)
    if not (inspect.isclass(kind) and issubclass(kind, keras.optimizers.Optimizer)):
        known = [n for n, value in vars(keras.optimizers).items() if inspect.isclass(value)]
        raise ConfigError(
            f"Unknown optimizer.name '{cfg.optimizer.name}'. {suggest(cfg.optimizer.name, known)}"
        )
    try:
        return kind(learning_rate=rate, **cfg.optimizer.arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"optimizer.arguments does not fit {cfg.optimizer.name}: {error}"
        ) from error


def _schedule(cfg: config.Schedule, rate: float, steps: int) -> Any:
    """The learning rate over a stage: Keras's cosine with warm-up, of which constant is a special case."""
    warmup = round(cfg.warmup * steps)
    if cfg.name == "constant" and not warmup:
        return rate
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else rate,
        decay_steps=max(1, steps - warmup),
        alpha=cfg.final,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )


# ---------------------------------------------------------------- batches


def _fetcher(table: Images) -> Callable[[tf.Tensor], tf.Tensor]:
    """Rows of a table of images as a TensorFlow function; decoding runs in the table's own threads."""

    def fetch(rows: tf.Tensor) -> tf.Tensor:
        images = tf.numpy_function(table.batch, [rows], tf.uint8, stateful=False)
        return tf.ensure_shape(images, (None, *table.shape))

    return fetch


def _in_order(
    table: Images, labels: np.ndarray, rows: np.ndarray, batch_size: int
) -> tf.data.Dataset:
    """(images, labels) in the order of the rows, the last batch as small as it comes."""
    fetch, targets = _fetcher(table), tf.constant(labels)
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)
    return batches.map(
        lambda r: (fetch(r), tf.gather(targets, r)), num_parallel_calls=tf.data.AUTOTUNE
    ).prefetch(tf.data.AUTOTUNE)


def _shuffled(
    dataset: data.Dataset, cfg: Config, *, first_epoch: int, epochs: int
) -> tf.data.Dataset:
    """(images, labels) of the training split, epoch after epoch, each in an order of its own.

    Order and augmentation are drawn from (seed, epoch, step) alone, so an epoch is the same whether
    or not the ones before it were run in this process.
    """
    fetch, targets = _fetcher(dataset.images), tf.constant(dataset.labels)
    rows = tf.constant(dataset.splits["train"])
    size = cfg.batch_size
    steps = math.ceil(len(dataset.splits["train"]) / size)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(rows, seed=[cfg.seed, epoch])
        return tf.data.Dataset.range(steps).map(
            lambda step: (epoch * steps + step, order[step * size : (step + 1) * size])
        )

    def load(draw: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = _augment(fetch(chosen), cfg.augment, [cfg.seed, draw])
        return images, tf.gather(targets, chosen)

    epochs_ahead = tf.data.Dataset.range(first_epoch, first_epoch + epochs)
    return (
        epochs_ahead.flat_map(one_epoch)
        .map(load, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


def _augment(images: tf.Tensor, cfg: config.Augment, seed: Any) -> tf.Tensor:
    """Random mirroring and shifts of a batch of uint8 images, drawn from the seed alone."""
    if cfg.flip:
        images = tf.where(
            _flips(tf.shape(images)[0], seed)[:, None, None, None], images[:, :, ::-1], images
        )
    if cfg.shift:
        images = _shift(images, cfg.shift, seed)
    return images


def _flips(count: tf.Tensor, seed: Any) -> tf.Tensor:
    """Which images of a batch are mirrored, (count,) bool."""
    return tf.random.stateless_uniform([count], seed=seed) < 0.5


def _shift(images: tf.Tensor, share: float, seed: Any) -> tf.Tensor:
    """Move each image by up to a share of its size in both directions, edges repeated."""
    count = tf.shape(images)[0]
    size = tf.shape(images)[1:3]
    reach = tf.cast(tf.math.ceil(share * tf.cast(size, tf.float32)), tf.int32)
    draw = tf.random.stateless_uniform([count, 2], seed=[seed[0] + 1, seed[1]], minval=-1.0)
    offsets = tf.cast(tf.round(draw * tf.cast(reach, tf.float32)), tf.int32)
    down = tf.clip_by_value(tf.range(size[0])[None] + offsets[:, :1], 0, size[0] - 1)
    across = tf.clip_by_value(tf.range(size[1])[None] + offsets[:, 1:], 0, size[1] - 1)
    moved = tf.gather(images, down, axis=1, batch_dims=1)
    return tf.gather(moved, across, axis=2, batch_dims=1)


def _recalibration_batches(dataset: data.Dataset, cfg: Config) -> tf.data.Dataset:
    """One epoch of training images as they were trained on, without their labels."""
    return _shuffled(dataset, cfg, first_epoch=0, epochs=1).map(lambda images, _: images)
