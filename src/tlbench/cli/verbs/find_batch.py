"""`tlbench find-batch [overrides]`: the largest batch that fits, each size tried in a process of its own."""

import argparse
import json
import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tlbench.base.errors import ConfigError, DeviceError, TrainingError, UserError
from tlbench.cli import quiet, signals
from tlbench.cli.arguments import TrainParser, configuration, settled

ABOUT = "find the largest batch size that fits in memory, and the fastest"
EXAMPLE = "tlbench find-batch data=image_folder data.root=photos backbone=resnet50"

MOST_BYTES = 2**20  # of what a trial reports

log = logging.getLogger(__name__)


def run(words: list[str]) -> int:
    """0: some batch fits; errors where none does."""
    asked = _parser().parse_intermixed_args(words)
    _check(asked)
    cfg = configuration("find-batch", asked)
    from tlbench.base import console

    with signals.heard():
        trials = [_here(cfg, asked)] if asked.only else _searched(cfg, asked)
    if asked.json:
        from tlbench.cli import targets

        with targets.writing("--json", asked.json) as file:
            json.dump([asdict(trial) for trial in trials], file, indent=2)
    if asked.only:
        console.out.print(_table(trials, None, None))
    else:
        _show(trials, cfg)
    return 0


def candidates(words: list[str]) -> list[str]:
    return _parser().candidates(words)


def _parser() -> TrainParser:
    parser = TrainParser(
        "find-batch",
        "Make some training steps of batches that double, on images, each batch size in a\n"
        "process of its own: what memory they take, and how fast they are. On a CPU a batch\n"
        "is only tried where the memory of those before it tells that there is room.\n"
        "Settings are those of train; of several stages the last one counts.",
        example=f"{EXAMPLE}\ntlbench find-batch data=digits backbone=mobilenet --memory 2 --most 64",
    )
    help_memory = "what a batch may take at most; without it all that is free"
    parser.add_argument("--memory", metavar="GIB", type=float, help=help_memory)
    help_most = "images of a batch at most; without it those of the training split"
    parser.add_argument("--most", metavar="N", type=int, help=help_most)
    help_only = "try batch_size=... alone, in this process"
    parser.add_argument("--only", action="store_true", help=help_only)
    help_json = "write what was measured as JSON, too"
    parser.add_argument("--json", metavar="FILE", help=help_json)
    return parser


def _check(asked: argparse.Namespace) -> None:
    if asked.memory is not None and not 0 < asked.memory < math.inf:
        raise ConfigError(f"--memory {asked.memory:g} is not valid. Expected GiB, above 0.")
    if asked.most is not None and asked.most < 1:
        raise ConfigError(f"--most {asked.most} is not valid. Expected at least 1.")
    if asked.json is not None:
        from tlbench.cli import targets

        targets.check_file("--json", asked.json)


# ---------------------------------------------------------------- trials


def _here(cfg: Any, asked: argparse.Namespace) -> Any:
    """The trial of the configuration's own batch size."""
    from tlbench.base import kept, memory

    memory.first_to_go()
    quiet.import_tensorflow()
    from tlbench.training.batch_trial import tried

    with kept.between_jobs():  # the data are read once
        return tried(settled(cfg, asked))


def _searched(cfg: Any, asked: argparse.Namespace) -> list[Any]:
    from tlbench.training.batch_finder import gib, search

    if cfg.features.cache and cfg.strategy.stages[-1].trainable is not True:
        log.info(
            "Measured on images: what reads features or maps from the cache takes less, and is faster"
        )

    def measured(size: int) -> Any:
        trial = _in_a_process(size, asked)
        if trial.fits:
            speed = f"{trial.images_per_second:,.0f} images/s"
            log.info("batch_size=%d: %s, %s", size, gib(trial.peak_bytes), speed)
        else:
            log.info("batch_size=%d: %s", size, trial.refusal)
        return trial

    limit = math.inf if asked.memory is None else asked.memory * 2**30
    return search(measured, asked.most, limit)


def _in_a_process(size: int, asked: argparse.Namespace) -> Any:
    """A trial as a command, as a user could type it; its process ends with this one, and with its trial."""
    from tlbench.base import console, files
    from tlbench.sweep.workers import Worker, reason
    from tlbench.training.batch_finder import Trial

    words = [word for word in asked.words if not word.startswith("batch_size=")]
    own = ["--config-dir", asked.config_dir] if asked.config_dir else []
    said = [""]
    with tempfile.TemporaryDirectory(prefix="tlbench-") as folder:
        report = Path(folder, "trial.json")
        command = ["find-batch", *words, f"batch_size={size}", "--only", *own]
        worker = Worker(None, console.err.width, at_once=1)
        try:
            code = worker.run([*command, "--json", str(report)], said.append)
        finally:
            worker.kill()
            worker.close()
        if code == 0:
            return Trial(**files.read_json(report, MOST_BYTES)[0])
    why = reason(code, said[-1])
    if code < 0:
        return Trial(size, refusal=why)
    raise (UserError if code == UserError.exit_code else TrainingError)(why)


# ---------------------------------------------------------------- what is shown


def _show(trials: Sequence[Any], cfg: Any) -> None:
    """A table and, last of all, what to paste. Raises DeviceError where no batch fits."""
    from tlbench.base import console

    fitting = [trial for trial in trials if trial.fits]
    largest = max(fitting, key=lambda trial: trial.batch_size, default=None)
    fastest = max(fitting, key=lambda trial: trial.images_per_second, default=None)
    console.out.print(_table(trials, largest, fastest))
    if largest is None:
        raise DeviceError(
            "Not even one image at a time fits. Lower backbone.image_size, or choose a smaller backbone."
        )
    if cfg.microbatch is None:
        size = largest.batch_size
        console.out.print(
            f"the step of a larger batch in this memory: batch_size={4 * size} microbatch={size}",
            style="hint",
            soft_wrap=True,
        )
    console.out.print(f"batch_size={largest.batch_size}")


def _table(trials: Sequence[Any], largest: Any, fastest: Any) -> Any:
    from tlbench.base.columns import Column, FittedTable
    from tlbench.training.batch_finder import gib

    def said(trial: Any) -> str:
        marks = {"the largest that fits": largest, "the fastest": fastest}
        return trial.refusal or ", ".join(name for name, one in marks.items() if one is trial)

    rows = [
        [
            f"{trial.batch_size:,}",
            "" if trial.peak_bytes is None else gib(trial.peak_bytes),
            "" if trial.images_per_second is None else f"{trial.images_per_second:,.0f}",
            said(trial),
        ]
        for trial in sorted(trials, key=lambda trial: trial.batch_size)
    ]
    columns = [
        *(Column(name, "right") for name in ("batch_size", "peak memory", "images/s")),
        Column("", fold=True),
    ]
    return FittedTable(columns, rows)
