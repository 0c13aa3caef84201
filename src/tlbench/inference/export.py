"""A finished run's model written for other runtimes, each checked in its own.

Every export takes float32 pixels in 0-255, any number of images at once, and gives probabilities.
"""

import contextlib
import logging
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base.errors import ExportError
from tlbench.base.files import TEMPORARY, file_facts, own_folder, write_json
from tlbench.config.compose import with_data
from tlbench.data.datasets import Dataset
from tlbench.inference import converters, loaded
from tlbench.inference.converters import Predict
from tlbench.inference.formats import Format
from tlbench.inference.loaded import Loaded
from tlbench.runs import layout, metrics
from tlbench.runs.run import Run

log = logging.getLogger(__name__)

BATCH = 32
CALIBRATION_IMAGES = 200
LATENCY_CALLS = 30


@dataclass(frozen=True)
class Limits:
    """What an export is held to: on how many test images, and what differences pass."""

    images: int
    difference: float  # of any probability, for an export that is not quantized
    accuracy_loss: float  # for one that is


@dataclass(frozen=True)
class Sample:
    """Test images with their labels and the probabilities of the model that is exported."""

    images: np.ndarray  # (n, size, size, 3) uint8
    labels: np.ndarray
    reference: np.ndarray  # (n, classes)
    thresholds: np.ndarray | None  # where an image may have several classes


@dataclass(frozen=True)
class Parity:
    """How an export answers, beside the model it was made from."""

    images: int
    greatest_difference: float
    top_class_agreement: float
    accuracy: float
    accuracy_of_model: float
    latency_ms: float  # median, one image at a time


@dataclass(frozen=True)
class Export:
    """One export that was written and run, and why it was not kept if it was not."""

    form: Format
    folder: Path
    parity: Parity
    bytes: int
    refusal: str | None


Silence = Callable[[], AbstractContextManager[None]]  # for what converters say of themselves


def export(
    run: Run,
    formats: list[Format],
    overrides: list[str],
    limits: Limits,
    config_dir: str | None = None,
    silence: Silence = contextlib.nullcontext,
) -> tuple[list[Export], list[str]]:
    """Write, check and keep each export; those that were made, and a line for each that was not kept.

    overrides: `data.key=value` words, such as data.root where the data has moved; silence: a context in which
    converters and runtimes do their work. Raises ExportError when no format can hold the model.
    """
    classifier = loaded.load(run, "cpu")  # exact float32, which a GPU's fast paths are not
    dataset = classifier.dataset(with_data(classifier.cfg, overrides, config_dir))
    sample = _sample(classifier, dataset, limits.images)
    log.info("Comparing on %d test images of %s", len(sample.labels), classifier.cfg.data.name)
    done: list[Export] = []
    failures: list[str] = []
    for form in formats:
        log.info("Exporting to %s", form.label)
        try:
            done.append(_export(classifier, dataset, sample, form, limits, silence))
        except ExportError as error:
            failures.append(str(error))
    if not done:
        raise ExportError(" ".join(failures))
    return done, failures + [export.refusal for export in done if export.refusal]


def _export(
    classifier: Loaded,
    dataset: Dataset,
    sample: Sample,
    form: Format,
    limits: Limits,
    silence: Silence,
) -> Export:
    """Write one export, read it back, compare it; it takes its place only if it passes."""
    target = classifier.run.folder / layout.EXPORTS / form.label
    with _replacing(target) as (folder, keep):
        path = folder / form.file
        with _worded(f"{form.label} cannot hold this model"), silence():
            converters.write(form, classifier.keras, lambda: _calibration(dataset), path)
        with _worded(f"{form.label} was written but does not run"), silence():
            parity = _compare(converters.read(form, path), sample)
        refusal = _refusal(form, parity, limits)
        size = _size_bytes(path)
        if refusal is None:
            write_json(folder / layout.CLASS_NAMES, classifier.run.class_names)
            write_json(folder / layout.EXPORT, _facts(classifier, form, size, parity, limits))
            keep()
    return Export(form, target, parity, size, refusal)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A temporary folder beside `target`; `keep` puts it in its place, else nothing is left of it."""
    temporary = Path(tempfile.mkdtemp(dir=own_folder(target.parent), prefix=TEMPORARY))
    folder = temporary / "new"
    folder.mkdir()

    def keep() -> None:
        if target.exists():
            target.rename(temporary / "old")
        folder.rename(target)

    try:
        yield folder, keep
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: other exports are there
            target.parent.rmdir()


@contextlib.contextmanager
def _worded(failure: str) -> Iterator[None]:
    """Whatever converters and runtimes raise: ExportError."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ExportError(f"{failure} ({reason}).") from error


def _calibration(dataset: Dataset) -> Iterator[np.ndarray]:
    """Training images one by one, spread over the split."""
    for row in _spread(dataset.splits["train"], CALIBRATION_IMAGES):
        yield dataset.images.batch(np.array([row])).astype(np.float32)


def _sample(classifier: Loaded, dataset: Dataset, count: int) -> Sample:
    rows = _spread(dataset.splits["test"], count)
    images = dataset.images.batch(rows)
    reference = _in_batches(classifier.probabilities, images)
    return Sample(images, dataset.labels[rows], reference, classifier.thresholds)


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` of the rows, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]


def _in_batches(predict: Predict, images: np.ndarray) -> np.ndarray:
    batches = (images[i : i + BATCH].astype(np.float32) for i in range(0, len(images), BATCH))
    return np.concatenate([predict(batch) for batch in batches])


def _compare(predict: Predict, sample: Sample) -> Parity:
    """An export's answers beside the model's, in batches and alone, and the time of one image."""
    given = _in_batches(predict, sample.images)
    one = sample.images[:1].astype(np.float32)
    alone = predict(one)
    differences = abs(given - sample.reference).max(), abs(alone - sample.reference[:1]).max()
    same = metrics.taken(given, sample.thresholds) == metrics.taken(
        sample.reference, sample.thresholds
    )
    return Parity(
        images=len(sample.labels),
        greatest_difference=float(max(differences)),
        top_class_agreement=float(same.mean()),
        accuracy=metrics.accuracy(sample.labels, given, sample.thresholds),
        accuracy_of_model=metrics.accuracy(sample.labels, sample.reference, sample.thresholds),
        latency_ms=_latency_ms(predict, one),
    )


def _latency_ms(predict: Predict, one: np.ndarray) -> float:
    """Median time of a call with one image, in milliseconds, after a few to warm up."""
    times = []
    for _ in range(LATENCY_CALLS):
        began = time.perf_counter()
        predict(one)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times[LATENCY_CALLS // 10 :])


def _refusal(form: Format, parity: Parity, limits: Limits) -> str | None:
    """Why an export must not be kept, or None."""
    if form.quantized:
        lost = parity.accuracy_of_model - parity.accuracy
        if lost <= limits.accuracy_loss:
            return None
        return (
            f"{form.label} loses {lost:.4f} of accuracy, over {limits.accuracy_loss:g}: not kept."
        )
    if parity.greatest_difference <= limits.difference:  # false for NaN too
        return None
    return (
        f"{form.label} differs from the model by {parity.greatest_difference:.2g}, over "
        f"{limits.difference:g}: not kept."
    )


def _facts(
    classifier: Loaded, form: Format, size_bytes: int, parity: Parity, limits: Limits
) -> dict[str, Any]:
    size = classifier.size
    limit = limits.accuracy_loss if form.quantized else limits.difference
    return {
        "format": form.name,
        "quantized": form.quantized,
        "file": form.file,
        "bytes": size_bytes,
        "input": {"shape": [None, size, size, 3], "dtype": "float32", "values": "RGB in 0-255"},
        "output": {
            "shape": [None, len(classifier.run.class_names)],
            "values": "probabilities",
            **_said_from(classifier),
        },
        "resize": classifier.cfg.data.resize,
        "interpolation": classifier.cfg.backbone.interpolation,
        "model_sha256": file_facts(classifier.run.model)["sha256"],
        "parity": asdict(parity),
        "tolerance": {"accuracy_loss" if form.quantized else "greatest_difference": limit},
        "versions": _versions(form),
    }


def _said_from(classifier: Loaded) -> dict[str, Any]:
    """Where an image may have several classes, from which probability on it has each."""
    if classifier.thresholds is None:
        return {}
    pairs = zip(classifier.class_names, classifier.thresholds.tolist(), strict=True)
    return {"thresholds": dict(pairs)}


def _size_bytes(path: Path) -> int:
    """Of a file, with the weights OpenVINO puts beside it, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.stem}.*"))


def _versions(form: Format) -> dict[str, str]:
    versions = {}
    for package in ("tensorflow", "keras", *form.packages):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions
