"""What listens to training: the history of epochs, and the live display."""

import logging
import time
from typing import Any

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tlbench import console
from tlbench.hardware import keras

log = logging.getLogger(__name__)

Epoch = dict[str, Any]


class History(keras.callbacks.Callback):
    """Collects one record an epoch, over all stages, and says it in one line."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images
        self.epochs: list[Epoch] = []

    def begin_stage(self, name: str, epochs: int) -> None:
        self.stage, self.total = name, epochs

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.began, self.trained = time.perf_counter(), 0.0

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self.trained = self.trained or time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        now, values = time.perf_counter(), dict(logs or {})
        record = {
            "stage": self.stage,
            "epoch": len(self.epochs) + 1,
            "loss": values["loss"],
            "accuracy": values["accuracy"],
            "val_loss": values["val_loss"],
            "val_accuracy": values["val_accuracy"],
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "seconds": now - self.began,
            "images_per_second": self.images / ((self.trained or now) - self.began),
        }
        self.epochs.append(record)
        log.info(
            "%s %d/%d  loss %.4f  accuracy %.4f  val %.4f %.4f  %.1f s  %s img/s",
            *(self.stage, epoch + 1, self.total, record["loss"], record["accuracy"]),
            *(record["val_loss"], record["val_accuracy"], record["seconds"]),
            f"{record['images_per_second']:,.0f}",
        )


class LiveDisplay(keras.callbacks.Callback):
    """A bar for the epoch under way, on a terminal; elsewhere the history's lines must do."""

    def __init__(self, steps: int, batch_size: int, images: int) -> None:
        super().__init__()
        self.steps, self.batch_size, self.images = steps, batch_size, images

    def begin_stage(self, name: str, epochs: int) -> None:
        self.stage, self.total = name, epochs

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=console.err,
            transient=True,
            disable=not console.err.is_terminal,
        )
        self.progress.start()
        self.bar = self.progress.add_task("", total=self.steps, figures="")

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was, whatever ended the training."""
        if hasattr(self, "progress"):
            self.progress.stop()

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.began = time.perf_counter()
        self.progress.reset(
            self.bar, description=f"{self.stage} {epoch + 1}/{self.total}", figures=""
        )

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if not console.err.is_terminal or logs is None:
            return
        seen = min((batch + 1) * self.batch_size, self.images)
        rate = seen / (time.perf_counter() - self.began)
        figures = f"loss {logs['loss']:.3f}  acc {logs['accuracy']:.3f}  {rate:,.0f} img/s"
        self.progress.update(self.bar, completed=batch + 1, figures=figures)
