"""Going on with a run: to the end that its own settings lead to, or to more epochs where a command asks for them."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlbench.base.errors import ConfigError
from tlbench.config import identity
from tlbench.config.schema import SOUP, Config
from tlbench.runs.run import Run


@dataclass(frozen=True)
class Plan:
    """What is left of a run, and its settings to the end; done: why nothing is left, "" where something is."""

    run: Run
    cfg: Config
    done: str


def plan(asked: Config, overrides: Sequence[str]) -> Plan:
    """What is left of the run in `asked.resume`.

    overrides: what was typed. Raises ConfigError for a value that differs from the run's, but for more `epochs`,
    and RunError for a folder that is no run of this version.
    """
    run = Run.open(Path(asked.resume or ""))
    saved = run.config()
    if run.extension:
        saved = _with_epochs(saved, run.extension["epochs"])
    cfg = _extended(saved, asked, overrides)
    done = ""
    if saved.strategy.name == SOUP and cfg.epochs > saved.epochs:
        raise ConfigError(
            f"{run.folder} is a mean of models: it was not trained, and has no epochs to go on from. Fine-tune from "
            f"it with backbone.weights={run.folder}."
        )
    if run.status == "completed" and not run.extension and cfg.epochs == saved.epochs:
        done = f"{run.folder} is completed: nothing to do."
    elif run.status == "completed" and run.metrics.get("stopped_early"):
        done = _say_stopped(run.metrics)
    return Plan(run, cfg, done)


def _say_stopped(results: dict[str, Any]) -> str:
    return (
        f"Early stopping ended this run after epoch {results['epochs']} and kept epoch "
        f"{results['kept_epoch']}: more epochs would not change it. Train anew with a larger "
        "early_stopping.patience."
    )


def _extended(saved: Config, asked: Config, overrides: Sequence[str]) -> Config:
    """The run's configuration, with more epochs where the command asks for them."""
    differences = identity.differences(saved, asked, overrides)
    if (epochs := differences.pop("epochs", None)) and epochs[1] > epochs[0]:
        if saved.head.solver is not None and saved.strategy.stages[-1].frozen:
            raise ConfigError(
                f"epochs={epochs[1]} would change nothing: this run's head was solved exactly. Fine-tune from it "
                f"with backbone.weights={saved.resume or asked.resume} trainable=true."
            )
        warmup = saved.strategy.stages[-1].warmup
        warmup = saved.schedule.warmup if warmup is None else warmup
        if saved.schedule.name != "constant" or warmup:
            what = (
                "warm-up"
                if saved.schedule.name == "constant"
                else f"{saved.schedule.name} schedule"
            )
            raise ConfigError(
                f"epochs={epochs[1]} would bend the {what} of a run of {epochs[0]} epochs. Train anew, "
                "or resume without epochs."
            )
        extended = _with_epochs(saved, epochs[1])
    else:
        extended = saved
        if epochs:
            differences["epochs"] = epochs
    if differences:
        listing = ", ".join(
            f"{k} is {old} there, {new} here" for k, (old, new) in differences.items()
        )
        raise ConfigError(
            f"resume={saved.resume or asked.resume} has other settings: {listing}. Leave them out, or train "
            "anew without resume."
        )
    return identity.moved(extended, asked, overrides)


def _with_epochs(cfg: Config, epochs: int) -> Config:
    """A configuration whose last stage ends after so many epochs in all."""
    extended = copy.deepcopy(cfg)
    extended.epochs = epochs
    extended.strategy.stages[-1].epochs += epochs - cfg.epochs
    return extended
