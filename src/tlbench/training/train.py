"""The main path: configuration -> data -> classifier -> stages -> evaluation -> run folder."""

import contextlib
import copy
import csv
import io
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base import console, memory
from tlbench.base.draws import seed_for
from tlbench.base.errors import ConfigError, RunError
from tlbench.base.files import atomic, write_json, write_text
from tlbench.base.stopping import Interrupts
from tlbench.config import schema
from tlbench.config.schema import Config
from tlbench.data import datasets
from tlbench.data.datasets import Dataset
from tlbench.networks import classifiers, hardware, weights
from tlbench.networks.classifiers import Classifier
from tlbench.networks.hardware import tf
from tlbench.networks.summary import layer_table
from tlbench.runs import metrics, plots
from tlbench.runs.run import Run, resume_command
from tlbench.training import decisions, outcome, stages
from tlbench.training.stages import Fitted

log = logging.getLogger(__name__)

INFERENCE_SAMPLE = 2000  # training images that are evaluated in inference mode
LATENCY_REPEATS = 11


def train(cfg: Config, folder: Path, command: str) -> None:
    """Train what a configuration describes and leave a finished run in the folder."""
    _carry_out(cfg, lambda facts: Run.start(folder, cfg, command, facts))


def resume(asked: Config, overrides: list[str], command: str) -> None:
    """Go on with the run in `asked.resume`, in its folder, to the end that its own settings lead to.

    overrides: what was typed; a value that differs from the run's is refused, but for more `epochs`.
    """
    run = Run.open(Path(asked.resume or ""))
    saved = run.config()
    if run.extension:
        saved = _with_epochs(saved, run.extension["epochs"])
    cfg = _extended(saved, asked, overrides)
    if run.status == "completed" and not run.extension and cfg.epochs == saved.epochs:
        console.out.print(f"{run.folder} is completed: nothing to do.", markup=False)
        return
    if run.status == "completed" and run.metrics().get("stopped_early"):
        console.out.print(_say_stopped(run.metrics()), markup=False)
        return
    _carry_out(cfg, lambda facts: run.resume(cfg, command, facts), run.manifest)


def _say_stopped(results: dict[str, Any]) -> str:
    return (
        f"Early stopping ended this run after epoch {results['epochs']} and kept epoch "
        f"{results['kept_epoch']}: more epochs would not change it. Train anew with a larger "
        "early_stopping.patience."
    )


def _carry_out(
    cfg: Config, open_run: Callable[[dict[str, Any]], Run], begun: Mapping[str, Any] | None = None
) -> None:
    """Train and evaluate in the folder that `open_run` takes.

    begun: the manifest of a run that goes on; what "auto" came to when it began holds to its end.
    """
    decided = decisions.of(begun or {})
    console.start_logging()
    interrupts = Interrupts()
    with interrupts.heard():
        machine = hardware.prepare(
            decided.device or cfg.device, cfg.seed, repeatable=cfg.repeatable
        )
        settled = decided.settle(cfg, machine)
        classifiers.check_layers(cfg)
        dataset = datasets.load(cfg.data, cfg.backbone.image_size)
        classifier = classifiers.build(cfg, dataset.images.shape, len(dataset.class_names))
        stages.check(classifier, cfg)
        precision = decided.precision or hardware.training_precision(
            cfg.precision, machine, classifier.backbone
        )
        run = open_run(_facts(settled, machine, precision, dataset, classifier))
        interrupts.resume_command = resume_command(run.folder)
        with _room_to_write(interrupts.resume_command), run:
            xla = "with XLA" if machine.jit_compile else "without XLA"
            log.info("Training on %s in %s (%s), %s", machine.name, *vars(precision).values(), xla)
            _say_data(dataset)
            _write_images(run, dataset)
            _write_summary(run, classifier)
            checkpoint = run.folder / "checkpoint" / "latest.npz"
            fitted = stages.Trainer(
                classifier,
                dataset,
                settled,
                machine,
                precision,
                interrupts,
                checkpoint,
                lambda facts: run.record(features={**facts, **decided.reasons}),
            ).run()
            results = _evaluate(run, classifier, dataset, settled, fitted)
            _write_results(run, classifier, dataset, fitted, results)
        outcome.say(run, results, settled)


@contextlib.contextmanager
def _room_to_write(resume: str) -> Iterator[None]:
    """What a full or read-only disk leaves to do; the last checkpoint is still whole."""
    try:
        yield
    except BrokenPipeError:  # nobody reads the terminal's lines any more: no matter of disks
        raise
    except OSError as error:
        where = error.filename or "the run folder"
        raise RunError(
            f"{where} cannot be written ({error.strerror or error}). Make room, then go on with: {resume}"
        ) from error


def _extended(saved: Config, asked: Config, overrides: list[str]) -> Config:
    """The run's configuration, with more epochs where the command asks for them."""
    differences = schema.differences(saved, asked, overrides)
    if (epochs := differences.pop("epochs", None)) and epochs[1] > epochs[0]:
        warmup = saved.strategy.stages[-1].warmup
        warmup = saved.schedule.warmup if warmup is None else warmup
        if saved.schedule.name != "constant" or warmup:
            what = (
                "warm-up"
                if saved.schedule.name == "constant"
                else f"{saved.schedule.name} schedule"
            )
            raise ConfigError(
                f"epochs={epochs[1]} would bend the {what} of a run of {epochs[0]} epochs. Train anew, "
                "or resume without epochs."
            )
        extended = _with_epochs(saved, epochs[1])
    else:
        extended = saved
        if epochs:
            differences["epochs"] = epochs
    if differences:
        listing = ", ".join(
            f"{k} is {old} there, {new} here" for k, (old, new) in differences.items()
        )
        raise ConfigError(
            f"resume={saved.resume or asked.resume} has other settings: {listing}. Leave them out, or train "
            "anew without resume."
        )
    return schema.moved(extended, asked, overrides)


def _with_epochs(cfg: Config, epochs: int) -> Config:
    """A configuration whose last stage ends after so many epochs in all."""
    extended = copy.deepcopy(cfg)
    extended.epochs = epochs
    extended.strategy.stages[-1].epochs += epochs - cfg.epochs
    return extended


def _say_data(dataset: Dataset) -> None:
    counts = ", ".join(f"{len(rows):,} {name}" for name, rows in dataset.splits.items())
    log.info("%d classes: %s images", len(dataset.class_names), counts)
    for line in dataset.unreadable[:10]:
        log.warning("Skipped %s", line)
    if dataset.unreadable:
        log.warning("%d images cannot be read and were left out", len(dataset.unreadable))
    if dataset.repeated:
        log.info("%s images are equal to another one", f"{dataset.repeated:,}")
    if dataset.contradictory:
        log.warning("%d images stand in more than one class", dataset.contradictory)
    for split in ("validation", "test"):
        seen = np.isin(dataset.ids_of(split), dataset.ids_of("train"))
        if seen.any():
            log.warning("%d of %d %s images are training images too", seen.sum(), len(seen), split)


def _write_images(run: Run, dataset: Dataset) -> None:
    """Keep which images the run is made from: a later evaluation can tell those it was trained on."""
    ids: dict[str, Any] = {split: dataset.ids_of(split) for split in dataset.splits}
    with atomic(run.new / "images.npz") as temporary:
        np.savez(temporary, **ids)


def _facts(
    cfg: Config,
    machine: hardware.Machine,
    precision: hardware.Precision,
    dataset: Dataset,
    classifier: Classifier,
) -> dict[str, object]:
    """What the manifest records of the run's surroundings."""
    return {
        "hardware": {
            **hardware.describe(),
            "device": machine.device,
            "precision": precision.policy,
            "precision_reason": precision.reason,
            "xla": machine.jit_compile,
            "repeatable": cfg.repeatable or machine.device == "cpu",
        },
        "data": {
            "name": cfg.data.name,
            "fingerprint": dataset.fingerprint,
            "sha256": dataset.sha256,
            "test_sha256": dataset.test_sha256,
            "class_names": dataset.class_names,
            "images": {name: len(rows) for name, rows in dataset.splits.items()},
            "unreadable": dataset.unreadable,
        },
        "batch_norm": {"statistics": cfg.batch_norm.statistics},
        "weights": {"source": cfg.backbone.weights, "sha256": weights.digest(classifier.backbone)},
    }


def _write_summary(run: Run, classifier: Classifier) -> None:
    table = layer_table(classifier)
    console.err.print(table)
    write_text(run.folder / "summary.txt", console.plain(table, width=100))


def _evaluate(
    run: Run, classifier: Classifier, dataset: Dataset, cfg: Config, fitted: Fitted
) -> dict[str, Any]:
    """Metrics of the final model; the test labels and probabilities are kept."""

    began = time.perf_counter()
    sample = _sample(dataset.splits["train"], cfg.seed)
    parts = [dataset.splits["test"], dataset.splits["validation"], sample]
    found = stages.predict(classifier, dataset, np.concatenate(parts), cfg, fitted.features)
    ends = np.cumsum([len(rows) for rows in parts])[:-1]
    probabilities, *others = np.split(found, ends)
    validated, sampled = (
        metrics.accuracy(dataset.labels[rows], part)
        for rows, part in zip(parts[1:], others, strict=True)
    )
    evaluated = time.perf_counter()
    labels = dataset.labels_of("test")
    seen = np.isin(dataset.ids_of("test"), dataset.ids_of("train"))
    with atomic(run.new / "predictions.npz") as temporary:
        np.savez_compressed(temporary, labels=labels, probabilities=probabilities)
    state = fitted.state
    trained_images = len(dataset.splits["train"]) * len(state.history)
    return {
        "parameters": classifier.parameters,
        "trainable_parameters": classifier.trainable_parameters,
        "accuracy": state.history[state.kept - 1]["accuracy"],
        "train_accuracy": state.history[state.kept - 1]["accuracy"],
        "inference_accuracy": sampled,
        "val_accuracy": validated,
        "val_loss": metrics.loss(dataset.labels_of("validation"), others[0]),
        "epochs": len(state.history),
        "kept_epoch": state.kept,
        "stopped_early": fitted.stopped,
        **metrics.metrics(labels, probabilities, dataset.class_names),
        **metrics.unseen(labels, probabilities, seen),
        "batch_norm_recalibrated": state.recalibrated,
        "features_seconds": state.features_seconds,
        "training_seconds": state.seconds,
        "evaluation_seconds": state.evaluation_seconds + evaluated - began,
        "images_per_second": trained_images / state.seconds,
        "latency_ms": _latency(classifier, dataset),
        "peak_memory_bytes": memory.peak_bytes(),
    }


def _latency(classifier: Classifier, dataset: Dataset) -> float:
    """Median milliseconds for one image at a time, after a first that compiles."""
    image = tf.constant(dataset.images.batch(dataset.splits["test"][:1]), tf.float32)
    forward = tf.function(lambda pixels: classifier.model(pixels, training=False))
    forward(image)
    times = []
    for _ in range(LATENCY_REPEATS):
        began = time.perf_counter()
        forward(image).numpy()
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


def _sample(rows: np.ndarray, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed_for(seed, "inference sample"))
    chosen = drawn.permutation(rows)[:INFERENCE_SAMPLE]
    return np.sort(chosen)


def _write_results(
    run: Run,
    classifier: Classifier,
    dataset: Dataset,
    fitted: Fitted,
    results: dict[str, Any],
) -> None:
    with atomic(run.new / "model.keras") as temporary:
        classifier.model.save(temporary)
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, fitted.history[0])
    writer.writeheader()
    writer.writerows(fitted.history)
    write_text(run.new / "history.csv", table.getvalue())
    write_json(run.new / "metrics.json", results)
    with np.load(run.new / "predictions.npz") as saved:
        counts = metrics.confusion(
            saved["labels"], saved["probabilities"].argmax(axis=1), len(dataset.class_names)
        )
    pictures = run.new / "plots"
    pictures.mkdir(exist_ok=True)
    title = f"test accuracy {results['evaluation']:.4f}"
    plots.curves(fitted.history, run.folder.name, pictures / "curves.png")
    plots.confusion_matrix(counts, dataset.class_names, title, pictures / "confusion_matrix.png")
