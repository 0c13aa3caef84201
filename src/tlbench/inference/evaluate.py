"""A finished run's model on its test images again, or on other data."""

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base.files import own_folder, write_json, write_text
from tlbench.base.text import counted, printable
from tlbench.config import names
from tlbench.config.compose import with_data
from tlbench.config.identity import flat
from tlbench.config.schema import Config
from tlbench.data import oddities
from tlbench.data.datasets import Dataset
from tlbench.inference import loaded
from tlbench.inference.loaded import Loaded
from tlbench.runs import layout, listing, metrics, multilabel, plots
from tlbench.runs.run import Run

log = logging.getLogger(__name__)

# Probabilities of one model differ by so much when sums are taken in another order, as on another machine.
ROUNDING = 1e-3
# What training recorded on features of a lower precision may differ by so much from the model in float32.
LOWER_PRECISION_ACCURACY = 0.01
SHOWN_MISTAKES, LISTED_MISTAKES, SHOWN_FILES = 16, 100, 3


@dataclass(frozen=True)
class Comparison:
    """Whether an evaluation repeats the recorded one.

    equal: True up to rounding only, None where they cannot be compared; explained: unequal by no more
    than the precision of the record's features accounts for.
    """

    equal: bool | None
    text: str
    greatest_difference: float | None = None
    explained: bool = False


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, and where it was written; folder: None where it could not be."""

    results: dict[str, Any]
    comparison: Comparison
    folder: Path | None


def evaluate(
    run: Run, overrides: list[str], *, every: bool, config_dir: str | None = None
) -> Evaluation:
    """Evaluate a run and leave what was found in its folder.

    overrides: `data=...` and `data.key=value` words for other data with the same classes; every: on
    all of its images, not its test split alone.
    """
    classifier = loaded.load(run, _device(run))
    cfg = with_data(classifier.cfg, overrides, config_dir)
    recorded = run.image_ids
    dataset = classifier.test_data(cfg, recorded.get("test"), every=every)
    rows, labels = dataset.splits["test"], dataset.labels_of("test")
    what = counted(len(rows), "image")
    log.info("Evaluating %s on %s of %s", run.folder, what, names.data(flat(asdict(cfg))))
    oddities.say(dataset)
    probabilities = classifier.of_rows(dataset, rows)
    results = _results(probabilities, dataset, cfg, classifier.thresholds)
    if recorded:
        seen = np.isin(dataset.ids_of("test"), recorded["train"])
        right = metrics.right(labels, probabilities, classifier.thresholds)
        results |= metrics.unseen(right, seen)
    comparison = _compare(run, dataset, labels, probabilities, other=every or bool(overrides))
    try:
        folder = _write(classifier, cfg, dataset, probabilities, results, comparison)
    except OSError as error:
        place = error.filename or run.folder / layout.EVALUATION
        log.warning("%s cannot be written (%s): figures only", place, error.strerror)
        return Evaluation(results, comparison, None)
    return Evaluation(results, comparison, folder)


def _device(run: Run) -> str:
    """A CPU where the run had one, to repeat its figures to the last digit."""
    return "cpu" if run.manifest.get("hardware", {}).get("device") == "cpu" else "auto"


def _results(
    probabilities: np.ndarray, dataset: Dataset, cfg: Config, thresholds: np.ndarray | None
) -> dict[str, Any]:
    names, labels = dataset.class_names, dataset.labels_of("test")
    counts = metrics.confusion(labels, metrics.taken(probabilities, thresholds), len(names))
    calibration = metrics.calibration(labels, probabilities)
    mistakes = _mistakes(dataset, probabilities, thresholds)
    results = {
        **metrics.metrics(labels, probabilities, names, thresholds),
        "calibration_error": calibration["calibration_error"],
        "calibration_bins": calibration["bins"],
        "most_confused": _with_files(metrics.most_confused(counts, names), mistakes),
        "worst_mistakes": mistakes[:LISTED_MISTAKES],
        "confusion": counts.tolist(),
    }
    if cfg.data.superclasses:
        results["superclass_accuracy"] = metrics.superclass_accuracy(
            labels, probabilities, names, cfg.data.superclasses
        )
    return results


def _mistakes(
    dataset: Dataset, probabilities: np.ndarray, thresholds: np.ndarray | None
) -> list[dict[str, Any]]:
    """Every wrong prediction with the image's name, the surest first; image: its place among the test images.

    Of several classes each that is wrong is a mistake of its own.
    """
    labels, names = dataset.labels_of("test"), dataset.class_names
    if thresholds is not None:
        taken = metrics.taken(probabilities, thresholds)
        sure = multilabel.sureness(probabilities, taken)
        return [
            {
                **{"file": dataset.file(dataset.splits["test"][i]), "image": int(i)},
                "true": names[c] if labels[i, c] else multilabel.absent(names[c]),
                "predicted": names[c] if taken[i, c] else multilabel.absent(names[c]),
                "probability": float(sure[i, c]),
            }
            for i, c in zip(*multilabel.mistakes(labels, probabilities, thresholds), strict=True)
        ]
    return [
        {
            **{"file": dataset.file(dataset.splits["test"][i]), "image": int(i)},
            **{"true": names[labels[i]], "predicted": names[probabilities[i].argmax()]},
            "probability": float(probabilities[i].max()),
        }
        for i in metrics.worst_mistakes(labels, probabilities, len(labels))
    ]


def _with_files(
    confused: list[dict[str, Any]], mistakes: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Pairs of classes with the names of a few images that were taken one for the other, the surest first."""
    files = defaultdict[tuple[str, str], list[str]](list)
    for one in mistakes:
        files[one["true"], one["predicted"]].append(one["file"])
    return [
        {**pair, "files": files[pair["true"], pair["predicted"]][:SHOWN_FILES]} for pair in confused
    ]


def _predictions(dataset: Dataset, probabilities: np.ndarray, thresholds: np.ndarray | None) -> str:
    rows = dataset.splits["test"]
    files = [dataset.file(row) for row in rows]
    labels = dataset.labels_of("test")
    return listing.predictions(
        *(files, ["test"] * len(rows), labels, probabilities, dataset.class_names, thresholds)
    )


# ---------------------------------------------------------------- against the record


def _compare(
    run: Run, dataset: Dataset, labels: np.ndarray, probabilities: np.ndarray, *, other: bool
) -> Comparison:
    """Set an evaluation against what training recorded; other: whether other data was asked for."""
    recorded = run.manifest["data"].get("test_sha256", dataset.test_sha256)  # older runs have none
    if dataset.test_sha256 != recorded:
        if other:
            return Comparison(None, "other images than the run's own: nothing to compare with")
        return Comparison(
            False,
            "differs from the record: some of the images that the run was tested on are not there",
        )
    old_labels, old = run.tested()
    if old.shape != probabilities.shape or not np.array_equal(old_labels, labels):
        return Comparison(False, "differs from the record: predictions.npz is of other test images")
    difference = float(abs(old - probabilities).max())
    stale = _stale_metric(run, labels, old)
    if stale:
        return Comparison(
            False,
            f"differs from the record: {stale} in metrics.json is not what predictions.npz gives",
            difference,
        )
    if difference == 0:
        return Comparison(True, "equals the record, bit by bit", difference)
    changed = _changed(labels, old, probabilities, run.thresholds)
    if difference <= ROUNDING:
        return Comparison(True, f"equals the record within rounding: {changed}", difference)
    precision = run.manifest.get("features", {}).get("precision", "float32")
    if precision != "float32":
        now, then = (metrics.accuracy(labels, p, run.thresholds) for p in (probabilities, old))
        gap = now - then
        text = (
            f"the record was made on {precision} features, this is the model in float32: {changed}"
        )
        explained = abs(gap) <= LOWER_PRECISION_ACCURACY
        return Comparison(False, text, difference, explained)
    return Comparison(False, f"differs from the record: {changed}", difference)


def _changed(
    labels: np.ndarray, old: np.ndarray, new: np.ndarray, thresholds: np.ndarray | None
) -> str:
    """How much probabilities, classes and accuracy moved."""
    moved = int((metrics.taken(old, thresholds) != metrics.taken(new, thresholds)).sum())
    before, after = (metrics.accuracy(labels, p, thresholds) for p in (old, new))
    accuracy = (
        f"{before:.4f} to {after:.4f} ({after - before:+.4f})" if after != before else "the same"
    )
    return (
        f"probabilities by up to {abs(old - new).max():.1e}, {moved} of {labels.size} classes, "
        f"accuracy {accuracy}"
    )


def _stale_metric(run: Run, labels: np.ndarray, probabilities: np.ndarray) -> str | None:
    """The first recorded figure that the recorded predictions do not give."""
    recorded = run.metrics
    now = metrics.metrics(labels, probabilities, run.class_names, run.thresholds)
    for name in ("evaluation", "evaluation_loss", "top5_accuracy", "macro_f1", "micro_f1"):
        value = recorded.get(name)
        if name not in now:
            continue
        if not isinstance(value, int | float) or not np.isclose(
            value, now[name], rtol=1e-6, atol=1e-5
        ):
            return name
    return None


# ---------------------------------------------------------------- what is left behind


def _write(
    classifier: Loaded,
    cfg: Config,
    dataset: Dataset,
    probabilities: np.ndarray,
    results: dict[str, Any],
    comparison: Comparison,
) -> Path:
    """Pictures and evaluation.json, in RUN/evaluation/ or for other data in a folder of its name."""
    run = classifier.run
    folder = own_folder(run.folder / layout.EVALUATION)
    if comparison.equal is None:
        root = Path(cfg.data.root or "").name
        words = (cfg.data.name, root, dataset.test_sha256[:8])
        name = "_".join(re.sub(r"[^\w-]+", "_", word) for word in words if word)
        folder = own_folder(folder / name)
    title = f"{cfg.data.name}: accuracy {results['evaluation']:.4f}"
    plots.confusion_matrix(
        np.array(results["confusion"]),
        dataset.class_names,
        title,
        folder / Path(layout.CONFUSION).name,
    )
    plots.reliability(
        {"bins": results["calibration_bins"]},
        f"calibration error {results['calibration_error']:.4f}",
        folder / layout.RELIABILITY,
    )
    _draw_mistakes(dataset, results["worst_mistakes"][:SHOWN_MISTAKES], folder / layout.MISTAKES)
    listed = _predictions(dataset, probabilities, classifier.thresholds)
    write_text(folder / layout.PREDICTED_FILES, listed)
    write_json(folder / layout.EVALUATED, {**_facts(cfg, dataset, comparison), **results})
    return folder


def _facts(cfg: Config, dataset: Dataset, comparison: Comparison) -> dict[str, Any]:
    return {
        "evaluated": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "name": cfg.data.name,
            "root": cfg.data.root,
            "test_sha256": dataset.test_sha256,
            "unreadable": dataset.unreadable,
        },
        "record": {
            "equal": comparison.equal,
            "text": comparison.text,
            "explained_by_precision": comparison.explained,
            "greatest_difference": comparison.greatest_difference,
        },
    }


def _draw_mistakes(dataset: Dataset, mistakes: Sequence[dict[str, Any]], path: Path) -> None:
    if not mistakes:
        path.unlink(missing_ok=True)  # of an earlier evaluation
        return
    captions = [
        (
            f"is {_shortened(one['true'])}",
            f"taken for {_shortened(one['predicted'])} {one['probability']:.0%}",
            _shortened(one["file"].rpartition("/")[2], 24),
        )
        for one in mistakes
    ]
    rows = dataset.splits["test"][[one["image"] for one in mistakes]]
    plots.mistakes(dataset.images.batch(rows), captions, "most confident mistakes", path)


def _shortened(name: str, most: int = 16) -> str:
    name = printable(name)
    return name if len(name) <= most else name[: most - 1] + "…"
