"""What a training came to: figures, predictions, pictures and the model, in the run's folder."""

import csv
import io
import logging
import time
from typing import Any

import numpy as np

from tlbench.base import memory
from tlbench.base.draws import seed_for
from tlbench.base.files import atomic, write_json, write_text
from tlbench.base.labels import several
from tlbench.data.datasets import Dataset
from tlbench.networks import backbones, batch_norm
from tlbench.networks.hardware import enough_memory
from tlbench.runs import layout, listing, metrics, multilabel
from tlbench.runs.recording import Recording
from tlbench.training import inputs
from tlbench.training.latency import latency_ms
from tlbench.training.stages import Trainer

log = logging.getLogger(__name__)

INFERENCE_SAMPLE = 2000  # training images that are evaluated in inference mode
WIDE_GAP = 0.1  # between training accuracy while training and in inference, worth a line


def found(trainer: Trainer, run: Recording) -> dict[str, Any]:
    """Figures of the final model, as metrics.json has them; test labels and probabilities are kept."""
    began = time.perf_counter()
    cfg, dataset, state = trainer.cfg, trainer.dataset, trainer.state
    splits, classifier = dataset.splits, trainer.classifier
    parts = [splits["test"], splits["validation"], sample(splits["train"], cfg.seed)]
    given = predict(trainer, np.concatenate(parts))
    probabilities, *others = np.split(given, np.cumsum([len(rows) for rows in parts])[:-1])
    thresholds = _thresholds(dataset, others[0])
    validated, sampled = (
        metrics.accuracy(dataset.labels[rows], part, thresholds)
        for rows, part in zip(parts[1:], others, strict=True)
    )
    evaluated = time.perf_counter() - began
    labels = dataset.labels_of("test")
    _keep(run, dataset, np.concatenate(parts[:2]), given, thresholds)
    last = state.history[state.kept - 1]
    _warn_of_a_gap(last["accuracy"], sampled, batch_norm.statistics(cfg))
    return {
        "parameters": classifier.parameters,
        "trainable_parameters": classifier.trainable_parameters,
        "accuracy": last["accuracy"],
        "train_accuracy": last["accuracy"],
        "inference_accuracy": sampled,
        "val_accuracy": validated,
        "val_loss": metrics.loss(dataset.labels_of("validation"), others[0]),
        "epochs": len(state.history),
        "kept_epoch": state.kept,
        "stopped_early": trainer.stopped,
        **{name: last[name] for name in ("strength",) if last.get(name) is not None},
        **metrics.metrics(labels, probabilities, dataset.class_names, thresholds),
        **metrics.unseen(metrics.right(labels, probabilities, thresholds), dataset.seen),
        "batch_norm_recalibrated": state.recalibrated,
        "features_seconds": state.features_seconds,
        "training_seconds": state.seconds,
        "evaluation_seconds": state.evaluation_seconds + evaluated,
        "images_per_second": len(splits["train"]) * len(state.history) / state.seconds,
        "latency_ms": latency_ms(classifier, dataset, cfg, trainer.machine),
        "peak_memory_bytes": memory.peak_bytes(),
    }


def _thresholds(dataset: Dataset, validated: np.ndarray) -> np.ndarray | None:
    """From which probability on an image has a class, as validation images have it; None: an image has one class."""
    labels = dataset.labels_of("validation")
    return multilabel.thresholds(labels, validated) if several(labels) else None


def _keep(
    run: Recording,
    dataset: Dataset,
    rows: np.ndarray,
    given: np.ndarray,
    thresholds: np.ndarray | None,
) -> None:
    """Write what the test and then the validation images were taken for; the files' names for people."""
    probabilities = given[: len(rows)]
    tested = len(dataset.splits["test"])
    with atomic(run.new / layout.PREDICTIONS) as temporary:
        np.savez_compressed(
            temporary, labels=dataset.labels_of("test"), probabilities=probabilities[:tested]
        )
    table = listing.predictions(
        [dataset.file(row) for row in rows],
        ["test"] * tested + ["validation"] * (len(rows) - tested),
        *(dataset.labels[rows], probabilities, dataset.class_names, thresholds),
    )
    write_text(run.new / layout.PREDICTED_FILES, table)


def predict(trainer: Trainer, rows: np.ndarray) -> np.ndarray:
    """Probabilities of the rows in their order, (rows, classes) float32."""
    cfg, dataset, classifier = trainer.cfg, trainer.dataset, trainer.classifier
    if trainer.features is None:
        source = inputs.from_images(classifier.model, dataset, cfg)
    else:
        source = inputs.from_features(trainer.trained, trainer.features, cfg, cheap_steps=False)
    source.network.steps_per_execution = 1  # Keras unrolls the steps of one call into its graph
    batches = inputs.in_order(source, dataset, rows, cfg.batch_size).map(lambda x, _: x)
    with source.told(), enough_memory(f"batch_size={cfg.batch_size}"):
        return source.network.predict(batches, verbose=0)


def sample(rows: np.ndarray, seed: int) -> np.ndarray:
    """Some of the rows of training images, in their order."""
    drawn = np.random.default_rng(seed_for(seed, "inference sample"))
    return np.sort(drawn.permutation(rows)[:INFERENCE_SAMPLE])


def _warn_of_a_gap(training: float, inference: float, statistics: str) -> None:
    if training - inference > WIDE_GAP and statistics != "frozen":
        log.warning(
            "Training accuracy was %.2f while training but %.2f in inference: batch normalization's moving "
            "statistics do not fit the weights; set batch_norm.recalibrate=true.",
            *(training, inference),
        )


def write(trainer: Trainer, run: Recording, figures: dict[str, Any]) -> None:
    """Write the model, the figures and the pictures of a training that has ended."""
    history = trainer.state.history
    backbones.settle(trainer.classifier.model)
    with atomic(run.new / layout.MODEL) as temporary:
        trainer.classifier.model.save(temporary)
    table = io.StringIO(newline="")
    named = {name for record in history for name in record}
    writer = csv.DictWriter(table, [name for name in layout.HISTORY_COLUMNS if name in named])
    writer.writeheader()
    writer.writerows(history)
    write_text(run.new / layout.HISTORY, table.getvalue())
    write_json(run.new / layout.METRICS, figures)
    _draw(trainer, run, figures)


def _draw(trainer: Trainer, run: Recording, figures: dict[str, Any]) -> None:
    from tlbench.runs import plots

    names = trainer.dataset.class_names
    (run.new / layout.PLOTS).mkdir(exist_ok=True)
    with np.load(run.new / layout.PREDICTIONS) as saved:
        taken = metrics.taken(saved["probabilities"], multilabel.chosen(figures, names))
        counts = metrics.confusion(saved["labels"], taken, len(names))
    plots.curves(trainer.state.history, run.folder.name, run.new / layout.CURVES)
    title = f"test accuracy {figures['evaluation']:.4f}"
    plots.confusion_matrix(counts, names, title, run.new / layout.CONFUSION)
