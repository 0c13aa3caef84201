"""What a stage reads: images or cached features, shuffled and augmented from (seed, epoch, step) alone."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tlbench.base.draws import seed_for
from tlbench.base.errors import TlbenchError
from tlbench.base.labels import leading, several
from tlbench.config.schema import Config
from tlbench.data import augmentations, mixing
from tlbench.data.datasets import Dataset
from tlbench.features.frozen import Features
from tlbench.networks.hardware import keras, tf
from tlbench.training import losses

AHEAD = 2  # batches loaded at once, and held ready
CHEAP = 1024  # rows of a batch in evaluation where a step costs more than what it computes


@dataclass(frozen=True)
class Source:
    """A network and its inputs by row of the data set."""

    network: keras.Model
    inputs: Callable[[tf.Tensor], tf.Tensor]  # rows -> inputs as they are
    drawn: Callable[[tf.Tensor, list[Any]], tf.Tensor]  # rows, seed -> augmented inputs
    cheap_steps: bool  # a step is so short that Python between steps would show
    mixes: Mapping[str, Callable[..., Any]] = field(default_factory=dict)  # of images and labels
    failures: list[TlbenchError] = field(default_factory=list)  # what reading raised, see `told`

    def evaluated(self, batch_size: int) -> int:
        """Rows of a batch where nothing is trained; batch_size: of training."""
        return max(batch_size, CHEAP) if self.cheap_steps else batch_size

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
    chosen = augmentations.chosen(cfg.augment, cfg.seed)

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
        for name, one in chosen.items():
            if one.mix is not None:
                continue  # behind all others, and with the labels
            if one.draw is not None:
                images = one.draw(images, [seed_for(seed[0], name), seed[1]])
            else:
                which = _views(tf.shape(rows)[0], name, len(one.views), seed)
                if one.at is not None:
                    images = one.at(images, which)
                else:
                    versions = [view(images) for view in one.views.values()]
                    images = _picked(which[:, None, None, None], versions)
        return images

    mixes = {name: one.mix for name, one in chosen.items() if one.mix is not None}
    return Source(network, inputs, drawn, cheap_steps=False, mixes=mixes, failures=failures)


def from_features(
    network: keras.Model, frozen: Features, cfg: Config, *, cheap_steps: bool
) -> Source:
    """Features for what is above them alone, of the view that training on the image itself would have drawn."""
    position = tf.constant(frozen.position)
    lookups = [_lookup(table) for table in frozen.views]
    chosen = augmentations.chosen(cfg.augment, cfg.seed)

    def inputs(rows: tf.Tensor) -> tf.Tensor:
        return lookups[0](tf.gather(position, rows))

    def drawn(rows: tf.Tensor, seed: list[Any]) -> tf.Tensor:
        if len(lookups) == 1:
            return inputs(rows)
        which = tf.zeros(tf.shape(rows)[:1], tf.int32)
        for name, one in chosen.items():
            count = len(one.views)
            which = which * count + _views(tf.shape(rows)[0], name, count, seed)
        places = tf.gather(position, rows)
        which = tf.reshape(which, [-1] + [1] * (frozen.views[0].ndim - 1))
        return _picked(which, [lookup(places) for lookup in lookups])

    return Source(network, inputs, drawn, cheap_steps=cheap_steps)


def in_order(
    source: Source, dataset: Dataset, rows: np.ndarray, batch_size: int
) -> tf.data.Dataset:
    """(inputs, labels) in the order of the rows, the last batch as small as it comes; batch_size: of training."""
    labels = labelled(source, dataset)
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(source.evaluated(batch_size))
    return _read_ahead(batches, lambda chosen: (source.inputs(chosen), labels(chosen)))


def labelled(source: Source, dataset: Dataset) -> Callable[[tf.Tensor], tf.Tensor]:
    """Rows -> labels as the loss takes them: as the data set has them, or as shares of classes where images mix."""
    labels = tf.constant(dataset.labels)
    if not source.mixes:
        return lambda rows: tf.gather(labels, rows)
    if several(dataset.labels):
        return lambda rows: tf.cast(tf.gather(labels, rows), tf.float32)
    return lambda rows: tf.one_hot(tf.gather(labels, rows), len(dataset.class_names))


def _mixed(source: Source, batch: list[tf.Tensor], seed: list[Any]) -> list[tf.Tensor]:
    """Images, labels and weights, if any, each image with another, its label and its weight in the same shares."""
    images, *told = batch
    for name, mix in source.mixes.items():
        images, share = mix(images, [seed_for(seed[0], name), seed[1]])
        told = [mixing.blended(each, share) for each in told]
    return [images, *told]


def shuffled(
    source: Source, dataset: Dataset, cfg: Config, epochs: range, first_step: int = 0
) -> tf.data.Dataset:
    """(inputs, labels) of the training split, epoch after epoch, each in an order of its own; and weights, if any.

    epochs: counted over the whole run. first_step: of the first epoch, in 0 to steps-1. What an epoch
    draws depends on its number alone, so it is the same in a run that was interrupted before it.
    """
    told = [labelled(source, dataset)]
    if (weights := losses.weights(dataset, cfg)) is not None:
        each = tf.constant(weights, tf.float32)
        told.append(lambda rows: tf.gather(each, rows))
    ordered = _ordered(dataset, cfg)
    size = cfg.batch_size
    steps = math.ceil(len(dataset.splits["train"]) / size)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        order = ordered(epoch)
        return tf.data.Dataset.range(steps).map(
            _as_it_is(lambda step: (epoch * steps + step, order[step * size : (step + 1) * size]))
        )

    def load(draw: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, ...]:
        seed = [cfg.seed, draw]
        batch = [source.drawn(chosen, seed), *(of_each(chosen) for of_each in told)]
        return tuple(_mixed(source, batch, seed))

    chosen = (
        tf.data.Dataset.range(epochs.start, epochs.stop)
        .flat_map(_as_it_is(one_epoch))
        .skip(first_step)
    )
    return _read_ahead(chosen, load)


def pictures(source: Source, rows: tf.Tensor, seed: list[Any]) -> tf.Tensor:
    """A batch as the network sees it in training, without its labels."""
    return _mixed(source, [source.drawn(rows, seed)], seed)[0]


def _ordered(dataset: Dataset, cfg: Config) -> Callable[[tf.Tensor], tf.Tensor]:
    """What gives the rows of an epoch, by its number, in the order in which they are trained on."""
    rows = dataset.splits["train"]
    if cfg.data.sampling == "natural":
        seed = seed_for(cfg.seed, "order")
        return lambda epoch: tf.random.experimental.stateless_shuffle(rows, seed=[seed, epoch])
    labels = leading(dataset.labels_of("train"))

    def drawn(epoch: np.int64) -> np.ndarray:
        return rows[_balanced(labels, seed_for(cfg.seed, "balanced order", int(epoch)))]

    def order(epoch: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(drawn, [epoch], rows.dtype), (len(rows),))

    return order


def _balanced(labels: np.ndarray, seed: int) -> np.ndarray:
    """Places of as many images as there are labels, shuffled: every class as often, and each image of a class.

    Both up to one, which goes by chance: the images of a class rarely divide what is drawn of it.
    """
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    least, more = divmod(len(labels), len(classes))
    drawn = []
    for label, extra in zip(classes, rng.permutation(len(classes)) < more, strict=True):
        count, of_class = least + extra, np.flatnonzero(labels == label)
        turns = [rng.permutation(of_class) for _ in range(math.ceil(count / len(of_class)))]
        drawn.append(np.concatenate(turns)[:count])
    return rng.permutation(np.concatenate(drawn))


def _read_ahead(chosen: tf.data.Dataset, load: Callable[..., Any]) -> tf.data.Dataset:
    """What `load` makes of each element, in order, the next few while the network has the last.

    Their number is fixed: tf.data's own tuning runs on a thread that sleeps ever longer, up to a
    minute, and an iterator cannot end before that thread has woken up.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return (
        chosen.map(_as_it_is(load), num_parallel_calls=AHEAD).prefetch(AHEAD).with_options(options)
    )


def _as_it_is(function: Callable[..., Any]) -> Any:
    """A function whose Python no tensor steers: translating it for those that do takes half a second."""
    return tf.autograph.experimental.do_not_convert(function)


def _lookup(table: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """Rows of an array, in memory or mapped from disk.

    NumPy takes them, no slower than TensorFlow would: deterministic operations make tf.data rewrite a
    pipeline, and copy every tensor that it reads from.
    """

    def taken(rows: np.ndarray) -> np.ndarray:
        return table[rows].astype(np.float32, copy=False)  # maps may be kept in float16

    def read(rows: tf.Tensor) -> tf.Tensor:
        found = tf.numpy_function(taken, [rows], tf.float32, stateful=False)
        return tf.ensure_shape(found, (None, *table.shape[1:]))

    return read


def _views(count: tf.Tensor, name: str, views: int, seed: list[Any]) -> tf.Tensor:
    """Which view of each image an augmentation draws, (count,) from 0 to views - 1."""
    share = tf.random.stateless_uniform([count], seed=[seed_for(seed[0], name), seed[1]])
    return views - 1 - tf.cast(share * views, tf.int32)


def _picked(which: tf.Tensor, versions: list[tf.Tensor]) -> tf.Tensor:
    """For each image the version that was drawn for it."""
    picked = versions[0]
    for number, version in enumerate(versions[1:], 1):
        picked = tf.where(which == number, version, picked)
    return picked
