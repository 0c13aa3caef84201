"""A stage's optimizer: a class of keras.optimizers, with a learning rate that moves within the stage."""

import inspect
from typing import Any

from tlbench.base.errors import ConfigError, suggest
from tlbench.config.schema import Config, Schedule, Stage
from tlbench.networks.hardware import keras


def optimizer(cfg: Config, stage: Stage, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of a stage of so many steps an epoch, its learning rate scheduled over the stage.

    Raises ConfigError for a name that keras.optimizers does not have, or arguments that do not fit it.
    """
    rates = cfg.optimizer.learning_rate
    own = rates.frozen if stage.frozen else rates.trained
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


def _schedule(cfg: Schedule, rate: float, steps: int, share: float) -> Any:
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
