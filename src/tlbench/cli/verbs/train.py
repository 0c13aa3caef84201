"""`tlbench train [overrides]`: one run, or with --multirun a sweep of runs."""

import shlex
from pathlib import Path
from typing import Any

from tlbench.cli import finished, quiet, signals

ABOUT = "train a classifier, keep its model, metrics and plots in a folder"
EXAMPLE = """
tlbench train backbone=mobilenetv3 head=exp
tlbench train data=image_folder data.root=photos trainable=false
tlbench train experiment=quickstart
"""


def run(words: list[str]) -> int:
    signals.ignore_saving()
    from tlbench.cli import hydra
    from tlbench.sweep import folders

    words = folders.resumed(words)
    command = shlex.join(["tlbench", "train", *words])
    with signals.heard_in_sweeps(words):
        hydra.run(hydra.in_own_folder(words), lambda *job: _train(command, *job))
    return 0


def candidates(words: list[str]) -> list[str]:
    from tlbench.cli import hydra

    return hydra.candidates(words)


def _train(command: str, cfg: Any, folder: Path, overrides: list[str]) -> float:
    """Train, or go on; the validation accuracy, which a sweep of Hydra's may optimise."""
    from tlbench.config import checks
    from tlbench.data import augmentations, sources

    if cfg.resume is None:  # before TensorFlow takes its seconds
        checks.check_stages(cfg)
        sources.check(cfg.data)
        augmentations.check(cfg)
    quiet.import_tensorflow()
    from tlbench.cli.hydra import recomposed
    from tlbench.training import resuming
    from tlbench.training.recipes import Recipe
    from tlbench.training.train import go_on, train

    with signals.heard():
        if cfg.resume is None:
            trained = train(cfg, folder, command, recipe=Recipe(overrides, recomposed()))
        elif (plan := resuming.plan(cfg, overrides)).done:
            _say(plan.done)
            return float(plan.run.metrics["val_accuracy"])
        else:
            trained = go_on(plan, command)
    finished.show(trained)
    return float(trained.metrics["val_accuracy"])


def _say(line: str) -> None:
    from tlbench.base import console

    console.out.print(line, markup=False)
