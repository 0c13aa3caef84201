"""A few steps of one batch size: the memory that they take, and how fast they are."""

import time
from dataclasses import replace

import numpy as np

from tlbench.base import stopping
from tlbench.base.errors import DeviceError
from tlbench.config import checks
from tlbench.config.schema import Config
from tlbench.data import images
from tlbench.networks import hardware
from tlbench.networks.hardware import Machine, enough_memory, keras
from tlbench.training import inputs, solved
from tlbench.training.batch_finder import Trial
from tlbench.training.callbacks import Logs
from tlbench.training.decisions import Decisions
from tlbench.training.stages import Trainer
from tlbench.training.trackers import Tracking
from tlbench.training.train import prepared

FEWEST, SECONDS = 3, 1.0  # steps, and seconds of them, that make a speed
ENDLESS = range(10**6)  # epochs


def tried(cfg: Config) -> Trial:
    """Train the last stage that has steps for some of them, on whole batches of images, in this process."""
    checks.check_stages(cfg)
    stage = cfg.strategy.stages[solved.last_with_steps(cfg)]
    parts = prepared(cfg, Decisions())
    trainer = Trainer(None, *parts, Tracking(None))
    trainer.begin(stage)
    source = trainer.ready(stage, None, None)
    splits, table = parts.dataset.splits, parts.dataset.images
    count = len(splits["train"])
    rows = np.resize(splits["train"], count + -count % cfg.batch_size)
    filled = replace(parts.dataset, splits={**splits, "train": rows})
    clock = _Clock(parts.machine)
    trial = Trial(cfg.batch_size, parts.machine.device, count)
    try:
        with (
            stopping.current().between_steps(),
            source.told(),
            enough_memory(f"batch_size={cfg.batch_size}"),
        ):
            batches = inputs.shuffled(source, filled, parts.cfg, ENDLESS)
            first = batches.take(1).map(lambda *batch: tuple(each[:1] for each in batch))
            batches = first.concatenate(batches)
            source.network.fit(batches, shuffle=False, callbacks=[clock], verbose=0)
    except DeviceError:
        return replace(trial, refusal="out of memory")
    decoded = images.yet_to_hold(table) if parts.machine.device == "cpu" else 0
    step = hardware.peak_bytes(parts.machine) + decoded
    return replace(
        trial,
        held_bytes=clock.held + decoded,
        step_bytes=step,
        peak_bytes=max(step, clock.compiling),
        images_per_second=clock.steps * cfg.batch_size / clock.seconds,
    )


class _Clock(keras.callbacks.Callback):
    """Measures the first step, of one image, and those after the second; ends the training once they make a speed."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine, self.asked = machine, stopping.current()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        float((logs or {})["loss"])  # the step has ended where this is known
        if batch == 0:
            self.compiling = hardware.peak_bytes(self.machine)
            hardware.forget_peak(self.machine)
            self.held = hardware.held_bytes(self.machine)
        elif batch == 1:
            self.began = time.perf_counter()
        else:
            self.steps, self.seconds = batch - 1, time.perf_counter() - self.began
            self.model.stop_training = self.steps >= FEWEST and self.seconds >= SECONDS
        self.asked.raise_if_ending()
