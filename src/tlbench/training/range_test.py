"""The learning-rate range test (Smith 2017): a last stage trained while its rate rises exponentially."""

import math
from pathlib import Path
from typing import Any

from tlbench.base import console, files, stopping
from tlbench.config import checks
from tlbench.config.schema import Config
from tlbench.data.sources import Contents
from tlbench.networks.hardware import enough_memory, keras
from tlbench.runs import layout, listing
from tlbench.training import inputs, solved
from tlbench.training.callbacks import Logs, learning_rate
from tlbench.training.decisions import Decisions
from tlbench.training.optimizers import Sweep
from tlbench.training.rates import Curve, Suggestion
from tlbench.training.stages import Trainer
from tlbench.training.trackers import Tracking
from tlbench.training.train import computed_once, prepared


def range_test(cfg: Config, sweep: Sweep, given: Contents | None = None) -> Curve:
    """Raise the rate of the last stage that has steps, after the stages before it were trained as `train` does.

    Raises ConfigError where no stage has a rate.
    """
    checks.check_stages(cfg)
    last = solved.last_with_steps(cfg)
    stages = cfg.strategy.stages
    parts = prepared(cfg, Decisions(), given)
    trainer = Trainer(None, *parts, Tracking(None))
    trainer.start()
    for stage in stages[:last]:
        trainer.begin(stage)
        trainer.fit(stage, *computed_once(parts))
    trainer.begin(stages[last])
    source = trainer.ready(stages[last], *computed_once(parts), sweep)
    first = len(trainer.state.history)
    epochs = range(first, first + math.ceil(sweep.steps / trainer.steps))
    batches = inputs.shuffled(source, parts.dataset, parts.cfg, epochs)
    with source.told(), enough_memory(f"batch_size={parts.cfg.batch_size}"):
        return raised(source.network, batches, sweep.steps, stages[last].name)


def raised(network: keras.Model, batches: Any, steps: int, stage: str) -> Curve:
    """Train a network whose optimizer raises the rate by itself, until the loss is lost.

    batches: as `fit` takes them, one a step; stage: its name, for the curve.
    """
    curve = Curve(stage)
    with (
        console.progress(f"{stage}, rate by rate", steps, "step") as advance,
        stopping.current().between_steps(),
    ):
        network.fit(
            batches,
            steps_per_epoch=steps,
            shuffle=False,  # the batches come shuffled
            callbacks=[_Recorder(curve, advance)],
            verbose=0,
        )
    return curve


class _Recorder(keras.callbacks.Callback):
    """Adds to a curve each step's own loss; ends the test where it diverges, or somebody asks."""

    def __init__(self, curve: Curve, advance: console.Advance) -> None:
        super().__init__()
        self.curve, self.advance, self.asked = curve, advance, stopping.current()

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        self.model.reset_metrics()  # or the loss would be the mean of all steps so far
        self.rate = learning_rate(self.model)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        loss = float((logs or {})["loss"])
        self.curve.add(self.rate, loss)
        self.advance(1, f"rate {self.rate:.1e}  loss {loss:.3f}")
        self.model.stop_training = self.curve.diverged
        self.asked.raise_if_ending()


def write(curve: Curve, found: Suggestion | None, folder: Path, title: str) -> None:
    """A table of every step and a picture, in a new folder that holds both or is not there."""
    from tlbench.runs import plots

    rows = zip(curve.rates, curve.losses, curve.smoothed, strict=True)
    lines = [[f"{value:.6g}" for value in row] for row in rows]
    with files.whole_folder(folder) as temporary:
        files.write_text(
            temporary / layout.RATES, listing.table(("learning_rate", "loss", "smoothed"), lines)
        )
        marks = {"valley": found.valley, "steepest": found.steepest} if found else {}
        plots.learning_rates(
            *(curve.rates, curve.losses, curve.smoothed, marks, title),
            temporary / layout.RATES_PICTURE,
        )
