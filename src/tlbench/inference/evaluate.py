"""The verb evaluate: a finished run's model on its test images again, or on other data."""

import logging
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tlbench.base import console
from tlbench.base.columns import Column, FittedTable
from tlbench.base.files import own_folder, write_json
from tlbench.cli import hydra
from tlbench.config.schema import Config
from tlbench.data.datasets import Dataset
from tlbench.inference import loaded
from tlbench.inference.loaded import Loaded
from tlbench.runs import metrics, plots, records
from tlbench.runs.run import Run

log = logging.getLogger(__name__)

# Probabilities of one model differ by so much when sums are taken in another order, as on another machine.
ROUNDING = 1e-3
# What training recorded on features of a lower precision may differ by so much from the model in float32.
LOWER_PRECISION_ACCURACY = 0.01
SHOWN_CLASSES, SHOWN_PAIRS, SHOWN_MISTAKES = 20, 10, 16


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


def evaluate(run: Run, overrides: list[str], *, every: bool, config_dir: str | None = None) -> int:
    """Evaluate a run and leave what was found in its folder; 1 when the record is not repeated.

    overrides: `data=...` and `data.key=value` words for other data with the same classes; every: on
    all of its images, not its test split alone.
    """
    console.start_logging()
    classifier = loaded.load(run, _device(run))
    cfg = hydra.with_data(classifier.cfg, overrides, config_dir)
    recorded = records.image_ids(run.folder)
    dataset = classifier.test_data(cfg, recorded.get("test"), every=every)
    rows, labels = dataset.splits["test"], dataset.labels_of("test")
    log.info("Evaluating %s on %d images of %s", run.folder, len(rows), cfg.data.name)
    probabilities = classifier.predict(dataset, rows)
    results = _results(labels, probabilities, dataset, cfg)
    if recorded:
        seen = np.isin(dataset.ids_of("test"), recorded["train"])
        results |= metrics.unseen(labels, probabilities, seen)
    comparison = _compare(run, dataset, labels, probabilities, other=every or bool(overrides))
    _say(results, comparison)
    try:
        folder = _write(classifier, cfg, dataset, probabilities, results, comparison)
    except OSError as error:
        place = error.filename or run.folder / "evaluation"
        log.warning("%s cannot be written (%s): figures only", place, error.strerror)
        return 1
    console.out.print(f"written to [path]{escape(str(folder))}[/]", soft_wrap=True)
    return 1 if comparison.equal is False and not comparison.explained else 0


def _device(run: Run) -> str:
    """A CPU where the run had one, to repeat its figures to the last digit."""
    return "cpu" if run.manifest.get("hardware", {}).get("device") == "cpu" else "auto"


def _results(
    labels: np.ndarray, probabilities: np.ndarray, dataset: Dataset, cfg: Config
) -> dict[str, Any]:
    names = dataset.class_names
    counts = metrics.confusion(labels, probabilities.argmax(axis=1), len(names))
    calibration = metrics.calibration(labels, probabilities)
    results = {
        **metrics.metrics(labels, probabilities, names),
        "calibration_error": calibration["calibration_error"],
        "calibration_bins": calibration["bins"],
        "most_confused": metrics.most_confused(counts, names),
        "confusion": counts.tolist(),
    }
    if cfg.data.superclasses:
        results["superclass_accuracy"] = metrics.superclass_accuracy(
            labels, probabilities, names, cfg.data.superclasses
        )
    return results


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
    old_labels, old = records.predictions(run.folder)
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
    changed = _changed(labels, old, probabilities)
    if difference <= ROUNDING:
        return Comparison(True, f"equals the record within rounding: {changed}", difference)
    precision = run.manifest.get("features", {}).get("precision", "float32")
    if precision != "float32":
        gap = metrics.accuracy(labels, probabilities) - metrics.accuracy(labels, old)
        text = (
            f"the record was made on {precision} features, this is the model in float32: {changed}"
        )
        explained = abs(gap) <= LOWER_PRECISION_ACCURACY
        return Comparison(False, text, difference, explained)
    return Comparison(False, f"differs from the record: {changed}", difference)


def _changed(labels: np.ndarray, old: np.ndarray, new: np.ndarray) -> str:
    """How much probabilities, classes and accuracy moved."""
    moved = int((old.argmax(axis=1) != new.argmax(axis=1)).sum())
    before, after = (metrics.accuracy(labels, p) for p in (old, new))
    accuracy = (
        f"{before:.4f} to {after:.4f} ({after - before:+.4f})" if after != before else "the same"
    )
    return (
        f"probabilities by up to {abs(old - new).max():.1e}, {moved} of {len(labels)} classes, "
        f"accuracy {accuracy}"
    )


def _stale_metric(run: Run, labels: np.ndarray, probabilities: np.ndarray) -> str | None:
    """The first recorded figure that the recorded predictions do not give."""
    recorded = run.metrics()
    now = metrics.metrics(labels, probabilities, run.class_names)
    for name in ("evaluation", "evaluation_loss", "top5_accuracy", "macro_f1"):
        value = recorded.get(name)
        if name not in now:
            continue
        if not isinstance(value, int | float) or not np.isclose(value, now[name], rtol=1e-6):
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
    folder = own_folder(run.folder / "evaluation")
    if comparison.equal is None:
        root = Path(cfg.data.root or "").name
        words = (cfg.data.name, root, dataset.test_sha256[:8])
        name = "_".join(re.sub(r"[^\w-]+", "_", word) for word in words if word)
        folder = own_folder(folder / name)
    title = f"{cfg.data.name}: accuracy {results['evaluation']:.4f}"
    plots.confusion_matrix(
        np.array(results["confusion"]), dataset.class_names, title, folder / "confusion_matrix.png"
    )
    plots.reliability(
        {"bins": results["calibration_bins"]},
        f"calibration error {results['calibration_error']:.4f}",
        folder / "reliability.png",
    )
    _draw_mistakes(dataset, probabilities, folder / "mistakes.png")
    facts = {
        "evaluated": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "name": cfg.data.name,
            "root": cfg.data.root,
            "test_sha256": dataset.test_sha256,
        },
        "record": {
            "equal": comparison.equal,
            "text": comparison.text,
            "explained_by_precision": comparison.explained,
            "greatest_difference": comparison.greatest_difference,
        },
    }
    write_json(folder / "evaluation.json", {**facts, **results})
    return folder


def _draw_mistakes(dataset: Dataset, probabilities: np.ndarray, path: Path) -> None:
    labels, names = dataset.labels_of("test"), dataset.class_names
    worst = metrics.worst_mistakes(labels, probabilities, SHOWN_MISTAKES)
    if not len(worst):
        path.unlink(missing_ok=True)  # of an earlier evaluation
        return
    captions = [
        (
            f"is {_shortened(names[labels[i]])}",
            f"taken for {_shortened(names[probabilities[i].argmax()])} {probabilities[i].max():.0%}",
        )
        for i in worst
    ]
    images = dataset.images.batch(dataset.splits["test"][worst])
    plots.mistakes(images, captions, "most confident mistakes", path)


def _shortened(name: str) -> str:
    name = console.printable(name)
    return name if len(name) <= 16 else name[:15] + "…"


# ---------------------------------------------------------------- what is said


def _say(results: dict[str, Any], comparison: Comparison) -> None:
    console.out.print(_figures(results))
    console.out.print(_classes_table(results["per_class"]))
    if results["most_confused"]:
        console.out.print(_pairs_table(results["most_confused"]))
    style = {True: "good", False: "bad", None: "hint"}[comparison.equal]
    console.out.print(Text(comparison.text), style="warn" if comparison.explained else style)


def _figures(results: dict[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    rows = {
        "test images": f"{results['test_images']:,}",
        "accuracy": f"{results['evaluation']:.4f}",
        **({"unseen": words} if (words := metrics.say_unseen(results)) else {}),
        **({"top 5": f"{top5:.4f}"} if (top5 := results.get("top5_accuracy")) else {}),
        "macro F1": f"{results['macro_f1']:.4f}",
        "loss": f"{results['evaluation_loss']:.4f}",
        "calibration error": f"{results['calibration_error']:.4f}",
    }
    if "superclass_accuracy" in results:
        rows["superclass accuracy"] = f"{results['superclass_accuracy']:.4f}"
    for name, value in rows.items():
        grid.add_row(name, f"[number]{value}[/]")
    return grid


def _classes_table(per_class: dict[str, dict[str, Any]]) -> FittedTable:
    """Classes with the least F1 first; those without test images are left out."""
    tested = [(name, c) for name, c in per_class.items() if c["images"]]
    tested.sort(key=lambda item: item[1]["f1"] or 0.0)
    more = len(tested) - SHOWN_CLASSES
    caption = f"and {more} better ones, in evaluation.json" if more > 0 else ""
    columns = [
        Column("class", path=True),
        Column("F1", "right"),
        Column("precision", "right", rank=3),
        Column("recall", "right", rank=2),
        Column("images", "right", rank=1),
    ]
    rows = []
    for name, c in tested[:SHOWN_CLASSES]:
        figures = ("-" if c[k] is None else f"{c[k]:.4f}" for k in ("f1", "precision", "recall"))
        rows.append([console.printable(name), *figures, f"{c['images']:,}"])
    return FittedTable(columns, rows, title="classes, the worst first", caption=caption)


def _pairs_table(pairs: list[dict[str, Any]]) -> FittedTable:
    columns = [
        Column("true", path=True),
        Column("taken for", path=True),
        Column("images", "right"),
        Column("of the class", "right", rank=1),
    ]
    rows = []
    for pair in pairs[:SHOWN_PAIRS]:
        names = (console.printable(pair["true"]), console.printable(pair["predicted"]))
        rows.append([*names, f"{pair['images']:,}", f"{pair['share']:.0%}"])
    return FittedTable(columns, rows, title="most confused")
