"""A stage whose head is solved exactly: no epochs, no steps, no learning rate; a path of strengths instead."""

import logging
import time

import numpy as np

from tlbench.base import console
from tlbench.base.errors import ConfigError
from tlbench.config.schema import Config, Stage
from tlbench.data.datasets import Dataset
from tlbench.features.frozen import Features
from tlbench.networks.classifiers import Classifier
from tlbench.probing import heads, spectrum, threads
from tlbench.probing.design import Design, taken
from tlbench.training import losses
from tlbench.training.callbacks import say_monitored
from tlbench.training.checkpoint import State
from tlbench.training.trackers import Tracking

log = logging.getLogger(__name__)


def is_solved(stage: Stage, cfg: Config) -> bool:
    """Whether a stage is solved, and has no steps."""
    return stage.frozen and cfg.head.solver is not None


def last_with_steps(cfg: Config) -> int:
    """The number of the last stage that has steps. Raises ConfigError where all of them are solved."""
    stages = cfg.strategy.stages
    stepped = [i for i, stage in enumerate(stages) if not is_solved(stage, cfg)]
    if not stepped:
        raise ConfigError(
            f"head.solver={cfg.head.solver} solves the head exactly: it has no steps, no batches and no learning rate. "
            "For those of fine-tuning from it add strategy=probe_finetune trainable=true."
        )
    return stepped[-1]


def solve(
    classifier: Classifier,
    dataset: Dataset,
    features: Features,
    cfg: Config,
    stage: Stage,
    state: State,
    tracking: Tracking,
) -> None:
    """Solve the head of a classifier on the features of its backbone, and record the path in the state."""
    begun, began = len(state.history), time.perf_counter()
    weights = losses.weights(dataset, cfg, solved=True)
    if cfg.data.sampling == "balanced":
        log.info("A head that is solved draws no images: balanced by the weights of its classes")
    train = _design(dataset, features, "train", weights)
    validation = _design(dataset, features, "validation")
    total = len(heads.strengths(cfg.head)) or 1
    monitor = cfg.monitored(solved=True)
    recorder = _Recorder(stage, state, tracking, total, monitor)
    with (
        console.progress(f"{stage.name} ({cfg.head.solver})", total) as recorder.advance,
        threads.over_blocks(),
    ):
        path = heads.solve(
            *(cfg.head, train, spectrum.of(train), validation, recorder.told),
            monitor=monitor,
        )
    for name, arrays in path.chosen.head.weights.items():
        classifier.head.get_layer(name).set_weights([each.astype(np.float32) for each in arrays])
    state.kept = begun + path.best + 1
    state.seconds += time.perf_counter() - began
    if path.at_an_end and path.chosen.validation.accuracy < 1:
        strength = float(path.chosen.strength or 0)
        end, beyond = ("strongest", 100) if path.best == 0 else ("weakest", 1 / 100)
        log.warning(
            "The best strength, %.2g, is at the end of the path: one beyond may be better, with head.path.%s=%.2g",
            *(strength, end, strength * beyond),
        )


class _Recorder:
    """Makes a record of each step of a path, as of an epoch, and says it in one line."""

    advance: console.Advance

    def __init__(
        self, stage: Stage, state: State, tracking: Tracking, total: int, monitor: str
    ) -> None:
        self.stage, self.state, self.tracking, self.total = stage, state, tracking, total
        self.monitor = monitor
        self.number, self.last = 0, time.perf_counter()

    def told(self, step: heads.Step) -> None:
        now = time.perf_counter()
        record = {
            "stage": self.stage.name,
            "epoch": len(self.state.history) + 1,
            "strength": step.strength,
            **{"loss": step.train.loss, "accuracy": step.train.accuracy},
            **{"val_loss": step.validation.loss, "val_accuracy": step.validation.accuracy},
            self.monitor: step.monitored,
            "seconds": now - self.last,
        }
        self.last, self.number = now, self.number + 1
        self.state.history.append(record)
        self.tracking.epoch(record)
        self.advance(1, f"val {step.validation.accuracy:.4f}")
        strength = "" if step.strength is None else f"strength {step.strength:<8.2g} "
        log.info(
            "%s %d/%d  %sloss %.4f  accuracy %.4f  val %.4f %.4f%s",
            *(self.stage.name, self.number, self.total, strength, step.train.loss),
            *(step.train.accuracy, step.validation.loss, step.validation.accuracy),
            say_monitored(record),
        )


def _design(
    dataset: Dataset, features: Features, split: str, weights: np.ndarray | None = None
) -> Design:
    """The rows of a split; of training images in each of their views. weights: of all images of the data set."""
    views = features.views if split == "train" else features.views[:1]
    rows = features.position[dataset.splits[split]]
    tables = [taken(table, rows) for table in views]
    counted = None if weights is None else weights[dataset.splits[split]]
    return Design(tables, dataset.labels_of(split), len(dataset.class_names), counted)
