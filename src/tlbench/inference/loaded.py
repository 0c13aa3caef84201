"""A finished run brought back: its model, loaded in Keras's safe mode, and what belongs to it."""

import functools
import logging
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tlbench.base import console, labels
from tlbench.base.errors import DataError, RunError
from tlbench.config.schema import Config, Data
from tlbench.data import datasets, pictures, sources
from tlbench.data.datasets import Dataset
from tlbench.data.decoding import decode, fitted
from tlbench.data.resize import Resize
from tlbench.networks.hardware import keras, prepare, tf
from tlbench.runs import metrics
from tlbench.runs.run import Run

log = logging.getLogger(__name__)

BATCH_BYTES = 2**26  # of float32 pixels in a batch: what bounds memory
BATCH_IMAGES = 64


class Predicted(NamedTuple):
    """names: the most probable class of each image; probabilities: (images, classes), in label order.

    Where an image may have several classes a name is all of them, "|" between. files: the path of each image, None
    where an array was given.
    """

    names: list[str]
    probabilities: np.ndarray
    files: list[Path | None]


def _each(images: Iterable[Any]) -> Iterator[tuple[Path | None, bool, Any]]:
    """The path of each image, if it has one, whether it was found in a folder, and what was given."""
    for image in images:
        path = Path(image) if isinstance(image, str | os.PathLike) else None
        if path is None or not path.is_dir():
            yield path, False, image
            continue
        found = pictures.find(path)
        if not found.pictures:
            raise DataError(f"{path}: a folder without images.")
        for line in found.unreadable:
            log.warning("Skipped %s", line)
        yield from ((file, True, file) for file in found.pictures)


@dataclass(frozen=True)
class Loaded:
    """A run with its classifier."""

    run: Run
    cfg: Config
    keras: keras.Model  # (batch, size, size, 3) in 0-255 -> (batch, classes) probabilities

    @property
    def class_names(self) -> list[str]:
        """The classes in label order."""
        return self.run.class_names

    @functools.cached_property
    def thresholds(self) -> np.ndarray | None:
        """From which probability on an image has each class, (classes,); None where an image has one class."""
        return self.run.thresholds

    @property
    def size(self) -> int:
        """The side, in pixels, of the square images that the model takes."""
        return self.keras.input_shape[1]

    def resize(self, data: Data) -> Resize:
        """How pictures are brought to what the model takes: by its interpolation, in the data's way."""
        size = data.image_size or self.size
        return Resize(size, data.resize, self.cfg.backbone.interpolation)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probabilities of a batch of any length; images: (n, size, size, 3) in 0-255."""
        found = self._graph(tf.constant(images, tf.float32)).numpy()
        if not np.isfinite(found).all():
            raise RunError(f"{self.run.model} gives probabilities that are no finite numbers.")
        return found

    def predict(self, images: Any) -> Predicted:
        """What images are taken for.

        images: paths, arrays of (height, width, 3) with values 0-255, or both; one of either will do. A folder stands
        for every readable picture at or below it. Raises DataError for what is no readable image.
        """
        shape = getattr(images, "shape", (0, 0, 0, 0))
        one = isinstance(images, str | os.PathLike) or len(shape) == 2 or shape[2:] == (3,)
        resize, files, pixels = self.resize(self.cfg.data), [], []
        for file, inside, image in _each([images] if one else images):
            try:
                pixels.append(decode(file, resize) if file else fitted(np.asarray(image), resize))
                files.append(file)
            except DataError as error:
                if not inside:
                    raise
                log.warning("Skipped %s", error)
        if not pixels:
            return Predicted([], np.empty((0, len(self.class_names)), np.float32), [])
        step = self.batch_size
        batches = [np.stack(pixels[i : i + step]) for i in range(0, len(pixels), step)]
        found = np.concatenate([self.probabilities(batch) for batch in batches])
        taken = metrics.taken(found, self.thresholds)
        return Predicted(labels.names(taken, self.class_names), found, files)

    @property
    def batch_size(self) -> int:
        """Images at a time: what their size lets into memory, whatever the model was trained with."""
        return max(1, min(BATCH_IMAGES, BATCH_BYTES // (self.size * self.size * 3 * 4)))

    def of_rows(self, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
        """Probabilities of rows of a data set in their order, (rows, classes) float32."""
        step = self.batch_size
        batches = [rows[i : i + step] for i in range(0, len(rows), step)]
        found = []
        with console.progress("evaluating", len(rows), "img") as advance:
            for batch in batches:
                found.append(self.probabilities(dataset.images.batch(batch)))
                advance(len(batch))
        return np.concatenate(found)

    @functools.cached_property
    def _graph(self) -> tf.types.experimental.GenericFunction:
        """The model as one graph, traced once for batches of every length."""
        signature = tf.TensorSpec((None, *self.keras.input_shape[1:]), tf.float32)
        call = functools.partial(self.keras, training=False)
        return tf.function(
            lambda images: call(images), input_signature=[signature], autograph=False
        )

    def dataset(self, cfg: Config) -> Dataset:
        """The data of a configuration, its labels in the run's order of classes.

        Raises DataError with the difference when the classes are not the run's.
        """
        return self._fitting(cfg, lambda: datasets.load(cfg.data, self.resize(cfg.data)))

    def test_data(self, cfg: Config, test_ids: np.ndarray | None, *, every: bool) -> Dataset:
        """What `data.load_for_testing` finds, as `dataset` gives it; some of the run's classes will do."""
        return self._fitting(
            cfg,
            lambda: datasets.load_for_testing(
                cfg.data, self.resize(cfg.data), test_ids, every=every
            ),
            some=True,
        )

    def _fitting(self, cfg: Config, read: Callable[[], Dataset], *, some: bool = False) -> Dataset:
        # Before any image is read.
        try:
            check_classes(self.run.class_names, sources.class_names(cfg.data), some=some)
        except DataError:
            sources.check(cfg.data)  # a folder too high up has a better reason
            raise
        dataset = read()
        if dataset.images.shape != self.keras.input_shape[1:]:
            raise DataError(
                f"{cfg.data.name} has images of {_size(dataset.images.shape)}, but the model of "
                f"{self.run.folder} takes {_size(self.keras.input_shape[1:])}."
            )
        return _in_order_of(self.run.class_names, dataset)


def load(run: Run, device: str) -> Loaded:
    """Read a finished run's configuration and model; device: "auto", "cpu" or "gpu".

    Nothing in the folder is executed. Raises RunError when the model is no Keras model, asks for code
    of its own, or does not fit the run's classes.
    """
    cfg = run.config()
    prepare(device, cfg.seed)
    try:
        _check_archive(run.model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an optimizer's state that is not needed here
            model = keras.saving.load_model(run.model, compile=False, safe_mode=True)
    except Exception as error:  # a damaged archive raises nearly anything
        reason = _first_sentence(str(error)) or type(error).__name__
        lacking = [name for name in run.manifest.get("requires", {}) if not _is_installed(name)]
        if lacking:
            raise RunError(
                f"{run.model} needs {', '.join(lacking)}, not installed here: pip install {' '.join(lacking)}"
            ) from error
        raise RunError(f"{run.model} cannot be loaded as a Keras model ({reason}).") from error
    _check(run, model)
    return Loaded(run, cfg, model)


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _check_archive(path: Path) -> None:
    """Raise ValueError for an archive that unpacks to many times its size: weights hardly shrink."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > 2**26 + 4 * path.stat().st_size:
        raise ValueError(f"it unpacks to {unpacked:,} bytes")


def _check(run: Run, model: keras.Model) -> None:
    """A classifier of square RGB images into the run's classes with finite weights, or RunError."""
    taken, given = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    expected = (None, len(run.class_names))
    square = isinstance(taken, tuple) and len(taken) == 4 and taken[3] == 3 and taken[1] == taken[2]
    if not square or given != expected:
        raise RunError(
            f"{run.model} maps {taken} to {given}. Expected square RGB images to {expected[1]} classes."
        )
    for variable in model.weights:
        if not np.isfinite(variable.numpy()).all():
            raise RunError(
                f"{run.model} has weights that are no finite numbers ({variable.path}): it can predict "
                "nothing. Train anew, with a lower learning_rate."
            )


def _in_order_of(names: list[str], dataset: Dataset) -> Dataset:
    """The data set with labels that count in `names`; the same classes may come in another order."""
    if dataset.class_names == names:
        return dataset
    to = np.array([names.index(name) for name in dataset.class_names])
    if labels.several(dataset.labels):
        there = np.zeros((len(dataset.labels), len(names)), dataset.labels.dtype)
        there[:, to] = dataset.labels
        return replace(dataset, class_names=names, labels=there)
    return replace(dataset, class_names=names, labels=to[dataset.labels])


def check_classes(names: list[str], others: list[str], *, some: bool) -> None:
    """Raise DataError with the difference between a run's classes and those of other data.

    some: whether other data may lack classes of the run, though not all of them.
    """
    missing = [name for name in names if name not in others]
    if some and len(missing) < len(names):
        missing = []
    added = [name for name in others if name not in names]
    if missing or added:
        parts = [f"missing {_listed(missing)}"] if missing else []
        parts += [f"unknown to the run {_listed(added)}"] if added else []
        raise DataError(f"The classes of the data are not the run's: {'; '.join(parts)}.")


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels"


def _first_sentence(text: str) -> str:
    """The first line of a message, without the advice that follows it."""
    line = " ".join(text.strip().splitlines()[:1])
    return re.split(r"(?<=[.!?])\s", line)[0].rstrip(".")
