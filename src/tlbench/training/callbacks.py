"""What listens to training: history, live display, early stopping, and the keeper of checkpoints."""

import contextlib
import logging
import math
import operator
import time
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.base import console
from tlbench.base.errors import TrainingError
from tlbench.base.stopping import Stopping
from tlbench.config.schema import Stage
from tlbench.networks.hardware import keras, tf
from tlbench.runs import metrics
from tlbench.training import checkpoint, optimizers
from tlbench.training.checkpoint import State
from tlbench.training.trackers import Tracking

log = logging.getLogger(__name__)

BETWEEN_EQUALS = 1e-7  # of a loss: less than what two accuracies on a million images differ by

Epoch = dict[str, Any]
Logs = dict[str, float] | None


class History(keras.callbacks.Callback):
    """Adds one record an epoch to those of the run, and says it in one line.

    Training and validation are timed apart; an epoch that was interrupted keeps the time it had taken.
    """

    def __init__(self, stage: Stage, state: State, images: int, tracking: Tracking) -> None:
        super().__init__()
        self.stage, self.state, self.images = stage, state, images
        self.tracking = tracking
        self.before = state.epoch_seconds

    @property
    def seconds(self) -> float:
        """Of training in the epoch under way."""
        return self.before + (self.trained or time.perf_counter()) - self.began

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.began, self.trained = time.perf_counter(), 0.0

    def on_test_begin(self, logs: Logs = None) -> None:
        self.trained = self.trained or time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.trained = self.trained or time.perf_counter()
        validation = time.perf_counter() - self.trained
        values, state = dict(logs or {}), self.state
        record = {
            "stage": self.stage.name,
            "epoch": len(state.history) + 1,
            "loss": values["loss"],
            "accuracy": values["accuracy"],
            "val_loss": values["val_loss"],
            "val_accuracy": values["val_accuracy"],
            **{name: values[name] for name in metrics.MONITORED if name in values},
            "learning_rate": learning_rate(self.model),
            "seconds": self.seconds + validation,
            "images_per_second": self.images / self.seconds,
        }
        state.history.append(record)
        self.tracking.epoch(record)
        state.seconds += self.seconds
        state.evaluation_seconds += validation
        self.before = 0.0
        log.info(
            "%s %d/%d  loss %.4f  accuracy %.4f  val %.4f %.4f%s  %.1f s  %s img/s",
            *(self.stage.name, epoch + 1, self.stage.epochs, record["loss"], record["accuracy"]),
            *(record["val_loss"], record["val_accuracy"], say_monitored(record), record["seconds"]),
            f"{record['images_per_second']:,.0f}",
        )


def say_monitored(record: Epoch) -> str:
    """What a record has beyond loss and accuracy, for its line."""
    return "".join(
        f"  {name.removeprefix('val_')} {record[name]:.4f}"
        for name in metrics.MONITORED
        if name in record
    )


class Judge(keras.callbacks.Callback):
    """Adds to an epoch's figures one that only all validation images together have.

    batches: inputs and labels, in the order of `labels`. First of the callbacks, or the others will not see it.
    """

    def __init__(self, monitor: str, labels: np.ndarray, batches: tf.data.Dataset) -> None:
        super().__init__()
        self.monitor, self.labels, self.batches = monitor, labels, batches

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self.answer = tf.function(lambda given: model(given, training=False), reduce_retracing=True)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None:
            given = np.concatenate([self.answer(some).numpy() for some, _ in self.batches])
            logs[self.monitor] = metrics.MONITORED[self.monitor](self.labels, given)


class LiveDisplay(keras.callbacks.Callback):
    """A bar for the epoch under way and its validation; off a terminal the history's lines must do.

    batch_size, evaluated: images of a batch in training and in validation; images: of an epoch's training;
    validation: images that follow them.
    """

    def __init__(
        self, stage: Stage, batch_size: int, evaluated: int, images: int, validation: int
    ) -> None:
        super().__init__()
        self.stage, self.batch_size, self.evaluated = stage, batch_size, evaluated
        self.images, self.validation = images, validation
        self.bar = contextlib.ExitStack()

    def close(self) -> None:
        """Leave the terminal as it was, whatever ended the training."""
        self.bar.close()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        name, total = f"{self.stage.name} {epoch + 1}/{self.stage.epochs}", self.images
        self.seen, self.figures = 0, ""
        self.advance = self.bar.enter_context(
            console.progress(name, total + self.validation, "img")
        )

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if logs is not None:
            self.figures = f"loss {logs['loss']:.3f}  acc {logs['accuracy']:.3f}"
        self._reach(min((batch + 1) * self.batch_size, self.images))

    def on_test_begin(self, logs: Logs = None) -> None:
        self._reach(self.images)

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._reach(self.images + min((batch + 1) * self.evaluated, self.validation))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        self.close()

    def _reach(self, seen: int) -> None:
        self.advance(seen - self.seen, self.figures)
        self.seen = seen


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras's, over several calls of fit: it begins once, and restores the best weights once.

    What the stage began with may be the best of all. Patience is for the stage's own epochs: the first of them may
    well be worse than that.
    """

    KEPT = ("wait", "best", "best_epoch", "own_best")
    best_weights: list[np.ndarray] | None

    def __init__(self, patience: int | None, monitor: str, *, keep_best: bool) -> None:
        mode = "min" if metrics.less_is_better(monitor) else "max"
        super().__init__(monitor, mode=mode, restore_best_weights=keep_best)
        self.patience = math.inf if patience is None else patience
        self.active = keep_best or patience is not None
        self.own_best: float | None = None  # of the epochs of the stage
        super().on_train_begin()
        # Keras compares in float32, and chooses how in the first epoch, which may be another call's.
        self.monitor_op = operator.lt if mode == "min" else operator.gt

    def begin_with(self, figures: Epoch, weights: list[np.ndarray]) -> None:
        """Hold weights that the stage begins with; figures: what was recorded of them."""
        self.best = self.get_monitor_value(figures)
        self.best_weights, self.best_epoch = weights, -1

    def get_monitor_value(self, logs: Logs) -> float:
        """What is monitored; of equal ones, such as accuracies on few images, that of the least loss is better."""
        assert logs is not None
        value = logs[self.monitor]
        return value if self.mode == "min" else value - BETWEEN_EQUALS * logs["val_loss"]

    def on_train_begin(self, logs: Logs = None) -> None:
        """A stage that goes on is no new training."""

    def on_train_end(self, logs: Logs = None) -> None:
        """The end of a call of fit need not be the end of the stage."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if not self.active:
            return
        value = self.get_monitor_value(logs)
        if self.own_best is None or self._is_improvement(value, self.own_best):
            self.own_best, self.wait = value, -1  # Keras counts this epoch, too
        super().on_epoch_end(epoch, logs)

    def restore_best(self, network: keras.Model, epochs: int) -> int:
        """Give the network its best weights; after which of the stage's epochs it had them, 0: at its beginning."""
        if self.best_weights is None:
            _take_averages(network)
            return epochs
        network.set_weights(self.best_weights)
        return self.best_epoch + 1

    def get_state(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in self.KEPT}
        return {k: None if v is None else float(v) for k, v in state.items()}

    def set_state(self, state: dict[str, Any], best_weights: list[np.ndarray] | None) -> None:
        self.wait = int(state["wait"])
        self.best = state["best"]
        self.own_best = state.get("own_best", self.best)  # in runs of format 5 they were one
        self.best_epoch = int(state["best_epoch"])
        self.best_weights = best_weights


def _take_averages(network: keras.Model) -> None:
    """Give the network the averages of its weights, where its optimizer makes any."""
    network.optimizer.finalize_variable_values(network.trainable_variables)


class Averages(keras.callbacks.Callback):
    """Lends the network the averages of its weights, from validation to the callbacks after this one.

    It does nothing where the optimizer makes none. Keras's SwapEMAWeights swaps by sums, which round what is trained
    on; and Keras's fit ends by taking the averages, which a stage that goes on in another call of fit must not.
    """

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        averaged = any(part.use_ema for part in optimizers.parts(model.optimizer))
        self.variables = model.trainable_variables if averaged else []

    def on_test_begin(self, logs: Logs = None) -> None:
        self.trained = checkpoint.values(self.variables)
        _take_averages(self.model)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        checkpoint.assign(self.variables, self.trained)

    def on_train_end(self, logs: Logs = None) -> None:
        checkpoint.assign(self.variables, self.trained)


class Keeper(keras.callbacks.Callback):
    """Saves a checkpoint at the end of each epoch and when a signal asks; stops a loss that is lost.

    `state` is kept up to date as the training moves; path: of the checkpoint, None where nobody will go on.
    """

    mid_epoch = True  # whether an epoch under way may be saved
    base: list[np.ndarray] | None = None  # weights that the network trained here does not hold

    def __init__(
        self,
        path: Path | None,
        state: State,
        early: EarlyStopping,
        history: History,
        stopping: Stopping,
    ) -> None:
        super().__init__()
        self.path, self.state, self.early = path, state, early
        self.history, self.stopping = history, stopping
        self.metrics: list[np.ndarray] | None = None

    def restore(self, network: keras.Model) -> None:
        """Put back what the state holds of this stage."""
        arrays = self.state.arrays
        self.first_step = self.state.step
        if "network" in arrays:
            checkpoint.assign(network.variables, arrays["network"])
            checkpoint.assign(network.optimizer.variables, arrays["optimizer"])
            self.early.set_state(self.state.early_stopping, arrays.get("best"))
            self.metrics = arrays["metrics"] if self.state.step else None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        if self.metrics is not None:  # of the part of this epoch that was done before
            checkpoint.assign(self._metrics(), self.metrics)
            self.metrics = None

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        step = self.first_step + batch + 1
        if logs is not None and not math.isfinite(logs["loss"]):
            self._diverged(
                f"The loss is no longer finite in epoch {len(self.state.history) + 1}, step {step}"
            )
        if batch + 1 == self.params["steps"]:
            return  # the epoch's end acts on what was asked, once its validation is done
        if self.mid_epoch and (self.stopping.save or self.stopping.ending is not None):
            self._save(step)
        self.stopping.raise_if_ending()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None and not math.isfinite(logs["val_loss"]):
            self._diverged(f"val_loss is no longer finite after epoch {len(self.state.history)}")
        self.first_step = 0
        self.state.epoch = epoch + 1
        self.state.stopped = self.model.stop_training
        self._save(0)
        self.stopping.raise_if_ending()

    def _save(self, step: int) -> None:
        if self.path is None:
            return
        state, network = self.state, self.model
        state.step, state.epoch_seconds = step, self.history.seconds if step else 0.0
        state.early_stopping = self.early.get_state()
        state.arrays = {
            "network": checkpoint.values(network.variables),
            "optimizer": checkpoint.values(network.optimizer.variables),
            "metrics": checkpoint.values(self._metrics()),
        }
        if self.early.best_weights is not None:
            state.arrays["best"] = list(self.early.best_weights)
        if self.base is not None:
            state.arrays["base"] = self.base
        checkpoint.save(self.path, state)
        state.arrays = {}  # not held between saves
        if self.stopping.save:
            log.info("Saved a checkpoint, as SIGUSR1 asked")
            self.stopping.save = False

    def _metrics(self) -> list[keras.Variable]:
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def _diverged(self, what: str) -> None:
        raise TrainingError(
            f"{what}, at a learning rate of {learning_rate(self.model):g}. Train anew with a lower "
            "learning_rate, with schedule.warmup=0.1 or with optimizer.clipnorm=1."
        )


def learning_rate(network: keras.Model) -> float:
    """The rate of the last step, in units of the optimizer; the head's, where each block has its own."""
    rates = [part.learning_rate for part in optimizers.parts(network.optimizer)]
    return max(float(keras.ops.convert_to_numpy(rate)) for rate in rates)
