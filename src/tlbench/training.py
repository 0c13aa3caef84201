"""Stages -> compile and fit: one loop runs any list of them."""

import inspect
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tlbench import batch_norm, config, data, features
from tlbench.acceleration import accelerate
from tlbench.callbacks import Epoch, History, LiveDisplay
from tlbench.config import Config, Stage, suggest
from tlbench.errors import ConfigError
from tlbench.features import Features
from tlbench.hardware import Machine, Precision, keras, tf
from tlbench.model import Classifier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """What training left besides the weights."""

    history: list[Epoch]
    seconds: float  # in fit and what belongs to it: features, compilation
    recalibrated: bool  # whether moving statistics were recomputed after the last stage
    features: Features | None  # of the frozen backbone, when the last stage read them


@dataclass(frozen=True)
class Source:
    """What a stage trains on: a network, and its inputs by row of the data set."""

    network: keras.Model
    inputs: Callable[[tf.Tensor], tf.Tensor]  # rows -> inputs as they are
    drawn: Callable[[tf.Tensor, list[Any]], tf.Tensor]  # rows, seed -> augmented inputs
    cheap_steps: bool  # a step is so short that Python between steps would show


def run_stages(
    classifier: Classifier,
    dataset: data.Dataset,
    cfg: Config,
    machine: Machine,
    precision: Precision,
) -> Fitted:
    """Train a classifier through the stages of its strategy."""
    images = len(dataset.splits["train"])
    steps = math.ceil(images / cfg.batch_size)
    history = History(images)
    display = LiveDisplay(steps, cfg.batch_size, images)
    own_momentum = batch_norm.own_momentum(classifier.backbone)
    recalibrated, frozen, began = False, None, time.perf_counter()
    for stage in cfg.strategy.stages:
        classifier.set_trainable(stage.trainable)
        for listener in (history, display):
            listener.begin_stage(stage.name, stage.epochs)
        if stage.trainable is False and cfg.features.cache:
            frozen = features.compute(classifier, dataset, cfg, machine)
            _say_saved(frozen, dataset, stage)
            _fit(_from_features(classifier, frozen), stage, dataset, cfg, machine, history, display)
            continue
        frozen = None
        network = accelerate(classifier.model, precision.policy)
        batch_norm.set_momentum(network, cfg.batch_norm.momentum, steps)
        _fit(_from_images(network, dataset, cfg), stage, dataset, cfg, machine, history, display)
        recalibrated = stage.trainable is not False and batch_norm.needs_recalibration(
            cfg.batch_norm, own_momentum, steps * len(history.epochs)
        )
        if recalibrated:
            log.info("Recomputing batch normalization's statistics over the training images")
            source = _from_images(network, dataset, cfg)
            batches = _shuffled(source, dataset, cfg, first_epoch=0, epochs=1)
            batch_norm.recalibrate(network, batches.map(lambda inputs, _: inputs))
        classifier.model.set_weights(network.get_weights())
    return Fitted(history.epochs, time.perf_counter() - began, recalibrated, frozen)


def predict(
    classifier: Classifier,
    dataset: data.Dataset,
    rows: np.ndarray,
    cfg: Config,
    frozen: Features | None,
) -> np.ndarray:
    """Probabilities of the rows in their order, (rows, classes) float32."""
    source = (
        _from_images(classifier.model, dataset, cfg)
        if frozen is None
        else _from_features(classifier, frozen)
    )
    batches = _in_order(source, dataset, rows, cfg.batch_size).map(lambda inputs, _: inputs)
    return source.network.predict(batches, verbose=0)


def check(classifier: Classifier, cfg: Config) -> None:
    """Raise ConfigError for a stage that could not start, before the first one does."""
    for stage in reversed(cfg.strategy.stages):
        classifier.set_trainable(stage.trainable)
        _optimizer(cfg, stage, steps=1)


# ---------------------------------------------------------------- one stage


def _fit(
    source: Source,
    stage: Stage,
    dataset: data.Dataset,
    cfg: Config,
    machine: Machine,
    history: History,
    display: LiveDisplay,
) -> None:
    steps = math.ceil(len(dataset.splits["train"]) / cfg.batch_size)
    source.network.compile(
        optimizer=_optimizer(cfg, stage, steps),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=machine.jit_compile,
        steps_per_execution=_steps_at_once(steps) if source.cheap_steps else 1,
    )
    _make_variables(source.network)
    callbacks: list[keras.callbacks.Callback] = [history, display]
    if cfg.early_stopping.patience is not None:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                "val_loss", patience=cfg.early_stopping.patience, restore_best_weights=True
            )
        )
    # Every epoch of a run draws anew, so a stage goes on counting where the one before it ended.
    first_epoch = len(history.epochs)
    try:
        source.network.fit(
            _shuffled(source, dataset, cfg, first_epoch=first_epoch, epochs=stage.epochs),
            validation_data=_in_order(
                source, dataset, dataset.splits["validation"], cfg.batch_size
            ),
            epochs=stage.epochs,
            steps_per_epoch=steps,
            shuffle=False,  # the batches come shuffled
            callbacks=callbacks,
            verbose=0,
        )
    finally:
        display.close()


def _make_variables(network: keras.Model) -> None:
    """Make the variables of optimizer and metrics now: made in the first step, it is traced twice."""
    network.optimizer.build(network.trainable_variables)
    labels, classes = tf.zeros([1], tf.int64), network.output_shape[-1]
    probabilities = tf.fill([1, classes], 1.0 / classes)
    network.compute_loss(None, labels, probabilities)
    network.compute_metrics(None, labels, probabilities)
    network.reset_metrics()


def _steps_at_once(steps: int) -> int:
    """Steps that TensorFlow makes in one call: a divisor of the epoch, or the epoch where none will do.

    An execution must end where the epoch ends, or it would take steps of the next one.
    """
    best = max(n for n in range(1, min(steps, 128) + 1) if steps % n == 0)
    return best if best >= 8 else steps


def _optimizer(cfg: Config, stage: Stage, steps: int) -> keras.optimizers.Optimizer:
    rates = cfg.optimizer.learning_rate
    own = rates.frozen if stage.trainable is False else rates.trained
    rate = _schedule(cfg.schedule, stage.learning_rate or own, steps * stage.epochs)
    known: dict[str, Any] = {
        n: value for n, value in vars(keras.optimizers).items() if inspect.isclass(value)
    }
    if cfg.optimizer.name not in known:
        raise ConfigError(
            f"Unknown optimizer.name '{cfg.optimizer.name}'. {suggest(cfg.optimizer.name, known)}"
        )
    try:
        return known[cfg.optimizer.name](learning_rate=rate, **cfg.optimizer.arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"optimizer.arguments does not fit {cfg.optimizer.name}: {error}"
        ) from error


def _schedule(cfg: config.Schedule, rate: float, steps: int) -> Any:
    """The learning rate over a stage: Keras's cosine with warm-up, or a constant after a warm-up."""
    warmup = round(cfg.warmup * steps)
    if cfg.name == "constant" and not warmup:
        return rate
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else rate,
        decay_steps=max(1, steps - warmup),
        alpha=1.0 if cfg.name == "constant" else cfg.final,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )


def _say_saved(frozen: Features, dataset: data.Dataset, stage: Stage) -> None:
    """What computing the frozen part once spared the backbone in this stage."""
    counts = {name: len(rows) for name, rows in dataset.splits.items()}
    plain = stage.epochs * (counts["train"] + counts["validation"]) + counts["test"]
    log.info(
        "The backbone ran over %s images, %s came from the cache; epoch by epoch it would be %s",
        f"{frozen.facts['images_computed']:,}",
        f"{frozen.facts['images_reused']:,}",
        f"{plain:,}",
    )


# ---------------------------------------------------------------- what a stage reads


def _from_images(network: keras.Model, dataset: data.Dataset, cfg: Config) -> Source:
    """Train on pixels; decoding runs in the images' own threads."""
    table = dataset.images

    def inputs(rows: tf.Tensor) -> tf.Tensor:
        images = tf.numpy_function(table.batch, [rows], tf.uint8, stateful=False)
        return tf.ensure_shape(images, (None, *table.shape))

    def drawn(rows: tf.Tensor, seed: list[Any]) -> tf.Tensor:
        images = inputs(rows)
        if cfg.augment.flip:
            flips = _flips(tf.shape(rows)[0], seed)[:, None, None, None]
            images = tf.where(flips, images[:, :, ::-1], images)
        return _shift(images, cfg.augment.shift, seed) if cfg.augment.shift else images

    return Source(network, inputs, drawn, cheap_steps=False)


def _from_features(classifier: Classifier, frozen: Features) -> Source:
    """Train the head alone on features, mirrored ones where the image itself would be mirrored."""
    position = tf.constant(frozen.position)
    plain = _lookup(frozen.plain)
    mirrored = None if frozen.mirrored is None else _lookup(frozen.mirrored)

    def inputs(rows: tf.Tensor) -> tf.Tensor:
        return plain(tf.gather(position, rows))

    def drawn(rows: tf.Tensor, seed: list[Any]) -> tf.Tensor:
        if mirrored is None:
            return inputs(rows)
        flips = _flips(tf.shape(rows)[0], seed)[:, None]
        return tf.where(flips, mirrored(tf.gather(position, rows)), inputs(rows))

    return Source(classifier.head, inputs, drawn, cheap_steps=True)


def _lookup(table: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """Rows of an array; one mapped from disk is never read into memory as a whole."""
    if isinstance(table, np.memmap):

        def read(rows: tf.Tensor) -> tf.Tensor:
            found = tf.numpy_function(table.__getitem__, [rows], tf.float32, stateful=False)
            return tf.ensure_shape(found, (None, table.shape[1]))

        return read
    with tf.device("cpu"):
        values = tf.constant(table)
    return lambda rows: tf.gather(values, rows)


def _flips(count: tf.Tensor, seed: list[Any]) -> tf.Tensor:
    """Which images of a batch are mirrored, (count,) bool."""
    return tf.random.stateless_uniform([count], seed=seed) < 0.5


def _shift(images: tf.Tensor, share: float, seed: list[Any]) -> tf.Tensor:
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


# ---------------------------------------------------------------- batches


def _in_order(
    source: Source, dataset: data.Dataset, rows: np.ndarray, batch_size: int
) -> tf.data.Dataset:
    """(inputs, labels) in the order of the rows, the last batch as small as it comes."""
    labels = tf.constant(dataset.labels)
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)
    return batches.map(
        lambda chosen: (source.inputs(chosen), tf.gather(labels, chosen)),
        num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)


def _shuffled(
    source: Source, dataset: data.Dataset, cfg: Config, *, first_epoch: int, epochs: int
) -> tf.data.Dataset:
    """(inputs, labels) of the training split, epoch after epoch, each in an order of its own.

    Order and augmentation are drawn from (seed, epoch, step) alone, so an epoch is the same whether
    or not the ones before it were run in this process.
    """
    labels = tf.constant(dataset.labels)
    rows = tf.constant(dataset.splits["train"])
    size = cfg.batch_size
    steps = math.ceil(len(dataset.splits["train"]) / size)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(rows, seed=[cfg.seed, epoch])
        return tf.data.Dataset.range(steps).map(
            lambda step: (epoch * steps + step, order[step * size : (step + 1) * size])
        )

    def load(draw: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return source.drawn(chosen, [cfg.seed, draw]), tf.gather(labels, chosen)

    return (
        tf.data.Dataset.range(first_epoch, first_epoch + epochs)
        .flat_map(one_epoch)
        .map(load, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
