"""Stages -> compile and fit: one loop runs any list of them, and goes on where it was stopped."""

import inspect
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base.draws import reseed, seed_for
from tlbench.base.errors import ConfigError, suggest
from tlbench.base.stopping import Interrupts
from tlbench.config import schema
from tlbench.config.schema import Config, Stage
from tlbench.data.datasets import Dataset
from tlbench.features import compute
from tlbench.features.compute import Features
from tlbench.networks import batch_norm
from tlbench.networks.classifiers import Classifier
from tlbench.networks.fused import accelerate
from tlbench.networks.hardware import Machine, Precision, enough_memory, keras, tf
from tlbench.training import checkpoint, inputs
from tlbench.training.callbacks import EarlyStopping, Epoch, History, Keeper, LiveDisplay
from tlbench.training.checkpoint import State
from tlbench.training.inputs import Source

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """What training left besides the weights."""

    state: State  # after the last stage
    stopped: bool  # whether early stopping ended the last stage
    features: Features | None  # of the frozen backbone, when the last stage read them

    @property
    def history(self) -> list[Epoch]:
        return self.state.history


@dataclass(frozen=True)
class Trainer:
    """What every stage of one training shares."""

    classifier: Classifier
    dataset: Dataset
    cfg: Config
    machine: Machine
    precision: Precision
    interrupts: Interrupts
    checkpoint: Path
    record: Callable[
        [dict[str, Any]], None
    ]  # keeps what was decided of features, before they are used

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self.dataset.splits["train"]) / self.cfg.batch_size)

    def run(self) -> Fitted:
        """Train through the stages that the checkpoint has not seen the end of."""
        state, frozen, stopped = checkpoint.load(self.checkpoint), None, False
        if state.history:
            log.info("Going on after %d epochs and %d steps", len(state.history), state.step)
        own_momentum = batch_norm.own_momentum(self.classifier.backbone)
        if self._adapts and state == State():
            began = time.perf_counter()
            self._adapt()
            state.seconds = time.perf_counter() - began
        for stage in self.cfg.strategy.stages[state.stage :]:
            source, frozen = self._source(stage, state)
            kept = self._fit(source, stage, state)
            state.recalibrated = frozen is None and self._recalibrate(
                source, stage, own_momentum, kept, state
            )
            if frozen is None:
                self.classifier.model.set_weights(source.network.get_weights())
            stopped = state.stopped
            state = state.next_stage()
        return Fitted(state, stopped, frozen)

    @property
    def _adapts(self) -> bool:
        """Whether the backbone's moving statistics are fitted to the training images before all else."""
        return batch_norm.statistics(self.cfg) == "adapted"

    def _adapt(self) -> None:
        log.info("Fitting batch normalization's statistics to the training images")
        self.classifier.set_trainable(True)
        network = accelerate(self.classifier.model, "float32")
        source = inputs.from_images(network, self.dataset, self.cfg)
        self._fit_statistics(source)
        self.classifier.model.set_weights(network.get_weights())

    def _fit_statistics(self, source: Source) -> None:
        """Moving statistics of all training images, in batches as mixed as those of an epoch."""
        own = replace(self.cfg, seed=seed_for(self.cfg.seed, "statistics"))
        batches = inputs.shuffled(source, self.dataset, own, range(1))
        with source.told(), enough_memory(f"batch_size={self.cfg.batch_size}"):
            batch_norm.recalibrate(source.network, batches.map(lambda images, _: images))

    def _source(self, stage: Stage, state: State) -> tuple[Source, Features | None]:
        """What the stage trains, and on what: the head on cached features, or a faster copy of all."""
        keras.utils.set_random_seed(seed_for(self.cfg.seed, "stage", state.stage))
        if "base" in state.arrays:
            self.classifier.backbone.set_weights(state.arrays["base"])
        self.classifier.set_trainable(stage.trainable)
        if stage.trainable is False and self.cfg.features.cache:
            began = time.perf_counter()
            frozen = compute.compute(self.classifier, self.dataset, self.cfg, self.machine)
            state.features_seconds += time.perf_counter() - began
            self.record(frozen.facts)
            _say_saved(frozen, self.dataset, stage)
            return inputs.from_features(self.classifier, frozen), frozen
        frozen_statistics = batch_norm.statistics(self.cfg) == "frozen"
        network = accelerate(
            self.classifier.model, self.precision.policy, frozen_statistics=frozen_statistics
        )
        batch_norm.set_momentum(network, self.cfg.batch_norm.momentum, self.steps)
        return inputs.from_images(network, self.dataset, self.cfg), None

    def _recalibrate(
        self, source: Source, stage: Stage, own_momentum: float, kept: int, state: State
    ) -> bool:
        """Recompute moving statistics that saw too few steps, in `kept` epochs; whether they had."""
        frozen = stage.trainable is False or batch_norm.statistics(self.cfg) == "frozen"
        if frozen or not batch_norm.needs_recalibration(
            self.cfg.batch_norm, own_momentum, self.steps * kept
        ):
            return False
        began = time.perf_counter()
        log.info("Recomputing batch normalization's statistics over the training images")
        self._fit_statistics(source)
        state.seconds += time.perf_counter() - began
        return True

    def _fit(self, source: Source, stage: Stage, state: State) -> int:
        """One stage, from where the state says: an epoch that was begun is finished first.

        Returns how many epochs are behind the weights that are kept.
        """
        network, optimizer = source.network, _optimizer(self.cfg, stage, self.steps)
        reseed(network, self.cfg.seed, state.stage)
        if self.precision.policy == "mixed_float16" and not source.cheap_steps:
            # Half floats lose small gradients unless the loss is scaled up (Micikevicius et al. 2018).
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        network.compile(
            optimizer=optimizer,
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=self.machine.jit_compile,
            steps_per_execution=_steps_at_once(self.steps) if source.cheap_steps else 1,
        )
        _make_variables(network)
        images, first = len(self.dataset.splits["train"]), len(state.history) - state.epoch
        history = History(stage, state, images)
        validating = len(self.dataset.splits["validation"])
        display = LiveDisplay(stage, self.cfg.batch_size, images, validating)
        stopping = EarlyStopping(self.cfg.early_stopping.patience)
        keeper = Keeper(self.checkpoint, state, stopping, history, self.interrupts)
        # Earlier stages may have trained the backbone, or its statistics were fitted.
        if (state.stage or self._adapts) and source.cheap_steps:
            keeper.base = checkpoint.values(self.classifier.backbone.weights)
        keeper.mid_epoch = not source.cheap_steps  # epochs on features are too short to split
        keeper.restore(network)
        validation = inputs.in_order(
            source, self.dataset, self.dataset.splits["validation"], self.cfg.batch_size
        )
        callbacks = [history, stopping, keeper, display]

        def fit(epochs: range, first_step: int) -> None:
            network.fit(
                inputs.shuffled(
                    source,
                    self.dataset,
                    self.cfg,
                    range(first + epochs.start, first + epochs.stop),
                    first_step,
                ),
                validation_data=validation,
                initial_epoch=epochs.start,
                epochs=epochs.stop,
                steps_per_epoch=self.steps - first_step,
                shuffle=False,  # the batches come shuffled
                callbacks=callbacks,
                verbose=0,
            )

        try:
            with (
                self.interrupts.between_steps(),
                source.told(),
                enough_memory(f"batch_size={self.cfg.batch_size}"),
            ):
                if state.step:
                    fit(range(state.epoch, state.epoch + 1), state.step)
                if not state.stopped and state.epoch < stage.epochs:
                    fit(range(state.epoch, stage.epochs), 0)
        finally:
            display.close()
        kept = stopping.restore_best(network, state.epoch)
        state.kept = first + kept
        if state.stopped or kept < state.epoch:
            ended = "stopped" if state.stopped else "ended"
            log.info("%s %s after %d, kept %d", stage.name, ended, state.epoch, kept)
        return kept


def predict(
    classifier: Classifier, dataset: Dataset, rows: np.ndarray, cfg: Config, frozen: Features | None
) -> np.ndarray:
    """Probabilities of the rows in their order, (rows, classes) float32."""
    source = (
        inputs.from_images(classifier.model, dataset, cfg)
        if frozen is None
        else inputs.from_features(classifier, frozen)
    )
    batches = inputs.in_order(source, dataset, rows, cfg.batch_size).map(lambda x, _: x)
    with source.told(), enough_memory(f"batch_size={cfg.batch_size}"):
        return source.network.predict(batches, verbose=0)


def check(classifier: Classifier, cfg: Config) -> None:
    """Raise ConfigError for a stage that could not start, before the first one does."""
    for stage in reversed(cfg.strategy.stages):
        classifier.set_trainable(stage.trainable)
        _optimizer(cfg, stage, steps=1)


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
    warmup = cfg.schedule.warmup if stage.warmup is None else stage.warmup
    rate = _schedule(cfg.schedule, stage.learning_rate or own, steps * stage.epochs, warmup)
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


def _schedule(cfg: schema.Schedule, rate: float, steps: int, share: float) -> Any:
    """The learning rate over a stage: Keras's cosine with warm-up, or a constant after a warm-up.

    share: of the steps, in which the rate rises from zero.
    """
    warmup = round(share * steps)
    if cfg.name == "constant" and not warmup:
        return rate
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else rate,
        decay_steps=max(1, steps - warmup),
        alpha=1.0 if cfg.name == "constant" else cfg.final,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )


def _say_saved(frozen: Features, dataset: Dataset, stage: Stage) -> None:
    """What computing the frozen part once spared the backbone in this stage."""
    counts = {name: len(rows) for name, rows in dataset.splits.items()}
    plain = stage.epochs * (counts["train"] + counts["validation"]) + counts["test"]
    log.info(
        "The backbone ran over %s images, %s came from the cache; epoch by epoch it would be %s",
        f"{frozen.facts['images_computed']:,}",
        f"{frozen.facts['images_reused']:,}",
        f"{plain:,}",
    )
