"""What a stage reads: images or cached features, shuffled and augmented from (seed, epoch, step) alone."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tlbench.base.draws import seed_for
from tlbench.base.errors import TlbenchError
from tlbench.config.schema import Config
from tlbench.data.datasets import Dataset
from tlbench.features.compute import Features
from tlbench.networks.classifiers import Classifier
from tlbench.networks.hardware import keras, tf

AHEAD = 2  # batches loaded at once, and held ready


@dataclass(frozen=True)
class Source:
    """A network and its inputs by row of the data set."""

    network: keras.Model
    inputs: Callable[[tf.Tensor], tf.Tensor]  # rows -> inputs as they are
    drawn: Callable[[tf.Tensor, list[Any]], tf.Tensor]  # rows, seed -> augmented inputs
    cheap_steps: bool  # a step is so short that Python between steps would show
    failures: list[TlbenchError] = field(default_factory=list)  # what reading raised, see `told`

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Raise what went wrong in reading, where TensorFlow would raise an account of its threads."""
        try:
            yield
        except tf.errors.OpError as error:
            raise self.failures[0] if self.failures else error from error


def from_images(network: keras.Model, dataset: Dataset, cfg: Config) -> Source:
    """Pixels for a whole network; decoding runs in the images' own threads."""
    table, failures = dataset.images, list[TlbenchError]()

    def read(rows: np.ndarray) -> np.ndarray:
        try:
            return table.batch(rows)
        except TlbenchError as error:
            failures.append(error)
            raise

    def inputs(rows: tf.Tensor) -> tf.Tensor:
        images = tf.numpy_function(read, [rows], tf.uint8, stateful=False)
        return tf.ensure_shape(images, (None, *table.shape))

    def drawn(rows: tf.Tensor, seed: list[Any]) -> tf.Tensor:
        images = inputs(rows)
        if cfg.augment.flip:
            flips = _flips(tf.shape(rows)[0], seed)[:, None, None, None]
            images = tf.where(flips, images[:, :, ::-1], images)
        return _shift(images, cfg.augment.shift, seed) if cfg.augment.shift else images

    return Source(network, inputs, drawn, cheap_steps=False, failures=failures)


def from_features(classifier: Classifier, frozen: Features) -> Source:
    """Features for the head alone, mirrored ones where the image itself would be mirrored."""
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


def in_order(
    source: Source, dataset: Dataset, rows: np.ndarray, batch_size: int
) -> tf.data.Dataset:
    """(inputs, labels) in the order of the rows, the last batch as small as it comes."""
    labels = tf.constant(dataset.labels)
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(batch_size)
    return _read_ahead(batches, lambda chosen: (source.inputs(chosen), tf.gather(labels, chosen)))


def shuffled(
    source: Source, dataset: Dataset, cfg: Config, epochs: range, first_step: int = 0
) -> tf.data.Dataset:
    """(inputs, labels) of the training split, epoch after epoch, each in an order of its own.

    epochs: counted over the whole run. first_step: of the first epoch, in 0 to steps-1. What an epoch
    draws depends on its number alone, so it is the same in a run that was interrupted before it.
    """
    labels = tf.constant(dataset.labels)
    rows = tf.constant(dataset.splits["train"])
    size = cfg.batch_size
    steps = math.ceil(len(dataset.splits["train"]) / size)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            rows, seed=[seed_for(cfg.seed, "order"), epoch]
        )
        return tf.data.Dataset.range(steps).map(
            lambda step: (epoch * steps + step, order[step * size : (step + 1) * size])
        )

    def load(draw: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return source.drawn(chosen, [cfg.seed, draw]), tf.gather(labels, chosen)

    chosen = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(one_epoch).skip(first_step)
    return _read_ahead(chosen, load)


def _read_ahead(chosen: tf.data.Dataset, load: Callable[..., Any]) -> tf.data.Dataset:
    """What `load` makes of each element, in order, the next few while the network has the last.

    Their number is fixed: tf.data's own tuning runs on a thread that sleeps ever longer, up to a
    minute, and an iterator cannot end before that thread has woken up.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return chosen.map(load, num_parallel_calls=AHEAD).prefetch(AHEAD).with_options(options)


def _lookup(table: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """Rows of an array, in memory or mapped from disk.

    NumPy takes them, no slower than TensorFlow would: deterministic operations make tf.data rewrite a
    pipeline, and copy every tensor that it reads from.
    """

    def read(rows: tf.Tensor) -> tf.Tensor:
        found = tf.numpy_function(table.__getitem__, [rows], tf.float32, stateful=False)
        return tf.ensure_shape(found, (None, table.shape[1]))

    return read


def _flips(count: tf.Tensor, seed: list[Any]) -> tf.Tensor:
    """Which images of a batch are mirrored, (count,) bool."""
    return tf.random.stateless_uniform([count], seed=[seed_for(seed[0], "flip"), seed[1]]) < 0.5


def _shift(images: tf.Tensor, share: float, seed: list[Any]) -> tf.Tensor:
    """Move each image by up to a share of its size in both directions, edges repeated."""
    count = tf.shape(images)[0]
    size = tf.shape(images)[1:3]
    reach = tf.cast(tf.math.ceil(share * tf.cast(size, tf.float32)), tf.int32)
    draw = tf.random.stateless_uniform(
        [count, 2], seed=[seed_for(seed[0], "shift"), seed[1]], minval=-1.0
    )
    offsets = tf.cast(tf.round(draw * tf.cast(reach, tf.float32)), tf.int32)
    down = tf.clip_by_value(tf.range(size[0])[None] + offsets[:, :1], 0, size[0] - 1)
    across = tf.clip_by_value(tf.range(size[1])[None] + offsets[:, 1:], 0, size[1] - 1)
    moved = tf.gather(images, down, axis=1, batch_dims=1)
    return tf.gather(moved, across, axis=2, batch_dims=1)
