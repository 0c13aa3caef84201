"""Stages: compile and fit, any list of them, going on where a training was stopped."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tlbench.base import stopping
from tlbench.base.draws import reseed, seed_for
from tlbench.config.schema import Config, Stage
from tlbench.data.datasets import Dataset
from tlbench.features.frozen import Features
from tlbench.networks import batch_norm, dropping, lora
from tlbench.networks.classifiers import Classifier
from tlbench.networks.cuts import Cut
from tlbench.networks.fused import accelerate
from tlbench.networks.hardware import Machine, Precision, enough_memory, keras, tf
from tlbench.runs import metrics
from tlbench.training import checkpoint, inputs, losses, solved
from tlbench.training.callbacks import Averages, EarlyStopping, History, Judge, Keeper, LiveDisplay
from tlbench.training.checkpoint import State
from tlbench.training.inputs import Source
from tlbench.training.optimizers import Sweep, in_parts, optimizer
from tlbench.training.trackers import Tracking

log = logging.getLogger(__name__)


@dataclass
class Trainer:
    """One training: what all its stages share, and where it stands."""

    checkpoint_path: Path | None  # None: nothing is saved
    cfg: Config
    dataset: Dataset
    classifier: Classifier
    machine: Machine
    precision: Precision
    tracking: Tracking
    state: State = field(default_factory=State)
    stopped: bool = False  # whether early stopping ended the last stage
    features: Features | None = None  # of what is frozen, where the last stage read them
    cut: Cut | None = None  # and where that ends

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self.dataset.splits["train"]) / self.cfg.batch_size)

    def start(self) -> None:
        """Go to where the checkpoint is, or to the beginning."""
        if self.checkpoint_path is not None:
            self.state = checkpoint.load(self.checkpoint_path)
        self.own_momentum = batch_norm.own_momentum(self.classifier.backbone)
        if self.state.history:
            epochs, step = len(self.state.history), self.state.step
            log.info("Going on after %d epochs and %d steps", epochs, step)
        if self._adapts and self.state == State():
            began = time.perf_counter()
            self._adapt()
            self.state.seconds = time.perf_counter() - began

    def left(self) -> Sequence[Stage]:
        """The stages that the checkpoint has not seen the end of."""
        return self.cfg.strategy.stages[self.state.stage :]

    def begin(self, stage: Stage) -> None:
        """Bring the classifier to where the stage begins, before anything is computed with it."""
        keras.utils.set_random_seed(seed_for(self.cfg.seed, "stage", self.state.stage))
        if "base" in self.state.arrays:
            self.classifier.backbone.set_weights(self.state.arrays["base"])
        self.classifier.set_trainable(stage.trainable)

    def fit(self, stage: Stage, features: Features | None, cut: Cut | None) -> None:
        """Train a stage to its end; features: of what is frozen below the cut, or None to train on images."""
        state, self.features, self.cut = self.state, features, cut
        if features is not None:
            state.features_seconds += features.facts["seconds"]
        if features is not None and solved.is_solved(stage, self.cfg):
            solved.solve(
                *(self.classifier, self.dataset, features, self.cfg, stage),
                *(state, self.tracking),
            )
        else:
            self._train(stage, features)
        self.stopped = state.stopped
        self.state = state.next_stage()

    def _train(self, stage: Stage, features: Features | None) -> None:
        """Train a stage epoch by epoch, and leave what came of it in the classifier."""
        if features is not None:
            _say_saved(features, self.dataset, stage)
        source = self.ready(stage, features, self.cut)
        kept = self._fit(source, stage)
        self.state.recalibrated = self._recalibrate(source, stage, kept)
        if source.network is not self.trained:
            low_rank = self.cfg.backbone.lora is not None
            weights = lora.merged if low_rank else keras.Model.get_weights
            self.trained.set_weights(weights(source.network))

    def ready(
        self, stage: Stage, features: Features | None, cut: Cut | None, sweep: Sweep | None = None
    ) -> Source:
        """What a stage trains, compiled, and on what; sweep: what its learning rate follows instead of its schedule."""
        self.features, self.cut = features, cut
        source = self._source(features, stage)
        self._compile(source, stage, sweep)
        return source

    @property
    def trained(self) -> keras.Model:
        """The part of the classifier that the stage computes step by step: all of it, or what is above the cut."""
        if self.features is None or self.cut is None:
            return self.classifier.model
        return self.cut.suffix

    def _source(self, features: Features | None, stage: Stage) -> Source:
        """What a stage trains, and on what: the head on features, or a faster copy on maps or on images."""
        if features is not None and stage.frozen:
            return inputs.from_features(self.trained, features, self.cfg, cheap_steps=True)
        frozen_statistics = batch_norm.statistics(self.cfg) == "frozen"
        network = accelerate(
            self.trained, self.precision.policy, frozen_statistics=frozen_statistics
        )
        self._prepare(network)
        batch_norm.set_momentum(network, self.cfg.batch_norm.momentum, self.steps)
        if features is None:
            return inputs.from_images(network, self.dataset, self.cfg)
        return inputs.from_features(network, features, self.cfg, cheap_steps=False)

    def _prepare(self, network: keras.Model) -> None:
        """Let the backbone in a copy of the network train as it is asked to."""
        cfg, backbone = self.cfg.backbone, self.classifier.backbone
        dropping.set_rates(network, backbone, cfg)
        if cfg.lora is not None:
            seed = seed_for(self.cfg.seed, "low-rank pairs", self.state.stage)
            lora.enable(network, backbone, cfg, seed)
        if self.classifier.pairs:
            log.info(
                "%s parameters of pairs of rank %d train in the backbone's place",
                *(f"{self.classifier.pairs:,}", cfg.lora),
            )

    def _fit(self, source: Source, stage: Stage) -> int:
        """One stage, from where the state says: an epoch that was begun is finished first.

        Returns how many epochs are behind the weights that are kept.
        """
        state, network = self.state, source.network
        first = len(state.history) - state.epoch
        images, validating = (len(self.dataset.splits[s]) for s in ("train", "validation"))
        history = History(stage, state, images, self.tracking)
        size = self.cfg.batch_size
        display = LiveDisplay(stage, size, source.evaluated(size), images, validating)
        stopping_early = self._early_stopping(network)
        keeper = Keeper(self.checkpoint_path, state, stopping_early, history, stopping.current())
        # Earlier stages may have trained the backbone, or its statistics were fitted.
        if (state.stage or self._adapts) and self.features is not None:
            keeper.base = checkpoint.values(self.classifier.backbone.weights)
        keeper.mid_epoch = not source.cheap_steps  # epochs on features are too short to split
        keeper.restore(network)
        callbacks = [*self._judge(source), history, stopping_early, Averages(), keeper, display]
        try:
            with (
                keeper.stopping.between_steps(),
                source.told(),
                enough_memory(f"batch_size={self.cfg.batch_size}"),
            ):
                if state.step:
                    unfinished = range(state.epoch, state.epoch + 1)
                    self._epochs(source, unfinished, first, callbacks, first_step=state.step)
                if not state.stopped and state.epoch < stage.epochs:
                    self._epochs(source, range(state.epoch, stage.epochs), first, callbacks)
        finally:
            display.close()
        kept = stopping_early.restore_best(network, state.epoch)
        state.kept = first + kept if kept else state.kept
        if state.stopped or kept < state.epoch:
            how = "stopped" if state.stopped else "ended"
            _say_kept(f"{stage.name} {how} after {state.epoch}", kept)
        return kept

    def _early_stopping(self, network: keras.Model) -> EarlyStopping:
        """What stops a stage and keeps its best epoch, or what it begins with where that stays the best."""
        cfg, state = self.cfg, self.state
        patience, monitor = cfg.early_stopping.patience, cfg.monitored()
        chosen = EarlyStopping(patience, monitor, keep_best=cfg.keep == "best")
        if cfg.keep == "best" and state.stage and not state.recalibrated:
            before = state.history[state.kept - 1]
            plain = cfg.loss.name == "cross_entropy" and not cfg.loss.label_smoothing
            same = (
                plain or monitor != "val_loss" or "strength" not in before
            )  # solved: cross-entropy
            if same and monitor in before:
                chosen.begin_with(before, network.get_weights())
        return chosen

    def _compile(self, source: Source, stage: Stage, sweep: Sweep | None) -> None:
        network, backbone = source.network, self.classifier.backbone
        chosen = optimizer(self.cfg, stage, self.steps, network, backbone, sweep)
        reseed(source.network, self.cfg.seed, self.state.stage)
        parts = self.cfg.microbatch if not source.cheap_steps else None
        if parts is not None:
            in_parts(source.network, parts)
        if self.precision.policy == "mixed_float16" and not source.cheap_steps:
            # Half floats lose small gradients unless the loss is scaled up (Micikevicius et al. 2018).
            chosen = keras.optimizers.LossScaleOptimizer(chosen)
        at_once = _steps_at_once(self.steps) if source.cheap_steps and not sweep else 1
        source.network.compile(
            optimizer=chosen,
            loss=losses.loss(self.cfg.loss, self.dataset, shares=bool(source.mixes)),
            metrics=[losses.accuracy(self.dataset)],
            jit_compile=self.machine.jit_compile and parts is None,  # XLA wants parts of one size
            steps_per_execution=at_once,
        )
        _make_variables(source.network, inputs.labelled(source, self.dataset)(tf.constant([0])))

    def _epochs(
        self,
        source: Source,
        epochs: range,
        before: int,
        callbacks: list[keras.callbacks.Callback],
        first_step: int = 0,
    ) -> None:
        """Epochs of a stage, the first of them from a step on; before: epochs of earlier stages."""
        counted = range(before + epochs.start, before + epochs.stop)
        source.network.fit(
            inputs.shuffled(source, self.dataset, self.cfg, counted, first_step),
            validation_data=self._validation(source),
            initial_epoch=epochs.start,
            epochs=epochs.stop,
            steps_per_epoch=self.steps - first_step,
            shuffle=False,  # the batches come shuffled
            callbacks=callbacks,
            verbose=0,
        )

    def _validation(self, source: Source) -> tf.data.Dataset:
        rows = self.dataset.splits["validation"]
        return inputs.in_order(source, self.dataset, rows, self.cfg.batch_size)

    def _judge(self, source: Source) -> list[Judge]:
        """What computes the figure that epochs are compared by, where Keras does not."""
        monitor = self.cfg.monitored()
        if monitor not in metrics.MONITORED:
            return []
        return [Judge(monitor, self.dataset.labels_of("validation"), self._validation(source))]

    # ------------------------------------------------------------ batch normalization

    @property
    def _adapts(self) -> bool:
        """Whether the backbone's moving statistics are fitted to the training images before all else."""
        return batch_norm.statistics(self.cfg) == "adapted"

    def _adapt(self) -> None:
        log.info("Fitting batch normalization's statistics to the training images")
        self.classifier.set_trainable(True)
        network = accelerate(self.classifier.model, "float32")
        self._fit_statistics(inputs.from_images(network, self.dataset, self.cfg))
        self.classifier.model.set_weights(network.get_weights())

    def _fit_statistics(self, source: Source) -> None:
        """Moving statistics of all training images, in batches as mixed as those of an epoch."""
        own = replace(self.cfg, seed=seed_for(self.cfg.seed, "statistics"))
        batches = inputs.shuffled(source, self.dataset, own, range(1))
        with source.told(), enough_memory(f"batch_size={self.cfg.batch_size}"):
            batch_norm.recalibrate(source.network, batches.map(lambda images, *_: images))

    def _recalibrate(self, source: Source, stage: Stage, kept: int) -> bool:
        """Recompute moving statistics that saw too few steps, in `kept` epochs; whether they had."""
        averaged = self.cfg.optimizer.swa is not None  # statistics are those of no step's weights
        steps = 0 if averaged else self.steps * kept
        if not kept or stage.frozen or batch_norm.statistics(self.cfg) == "frozen":
            return False
        if not batch_norm.needs_recalibration(self.cfg.batch_norm, self.own_momentum, steps):
            return False
        began = time.perf_counter()
        log.info("Recomputing batch normalization's statistics over the training images")
        self._fit_statistics(source)
        self.state.seconds += time.perf_counter() - began
        return True


def check(classifier: Classifier, cfg: Config) -> None:
    """Raise ConfigError for a stage that could not start, before the first one does."""
    dropping.check(classifier.backbone, cfg.backbone)
    for stage in reversed(cfg.strategy.stages):
        classifier.set_trainable(stage.trainable)
        if not stage.frozen:
            lora.check(classifier.backbone, cfg.backbone)
        optimizer(cfg, stage, 1, classifier.model, classifier.backbone)


def _make_variables(network: keras.Model, labels: tf.Tensor) -> None:
    """Make the variables of optimizer and metrics now: made in the first step, it is traced twice.

    labels: of one image.
    """
    network.optimizer.build(network.trainable_variables)
    classes = network.output_shape[-1]
    probabilities = tf.fill([1, classes], 1.0 / classes)
    network.compute_loss(None, labels, probabilities)
    network.compute_metrics(None, labels, probabilities)
    network.reset_metrics()


def _say_kept(what: str, kept: int) -> None:
    log.info("%s, kept %s", what, kept or "what it began with")


def _steps_at_once(steps: int) -> int:
    """Steps that TensorFlow makes in one call: a divisor of the epoch, or the epoch where none will do.

    An execution must end where the epoch ends, or it would take steps of the next one.
    """
    best = max(n for n in range(1, min(steps, 128) + 1) if steps % n == 0)
    return best if best >= 8 else steps


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
