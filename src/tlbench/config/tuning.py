"""How a backbone trains: what its settings may be, and what they ask of others."""

from operator import attrgetter

from tlbench.base.errors import ConfigError
from tlbench.config.required import require
from tlbench.config.schema import Config

OF_WHAT_TRAINS = ("backbone.lora", "backbone.dropout", "backbone.drop_path")


def check(c: Config) -> None:
    """Raise ConfigError for values out of range, and where nothing of a backbone trains that they could act on."""
    rank, alpha = c.backbone.lora, c.backbone.lora_alpha
    require(rank is None or rank >= 1, "backbone.lora", rank, "a rank of at least 1, or null")
    if rank is None:
        require(alpha is None, "backbone.lora_alpha", alpha, "null, or backbone.lora beside it")
    positive = alpha is None or 0 < alpha < float("inf")
    require(positive, "backbone.lora_alpha", alpha, "a number above 0, or null")
    for setting in ("backbone.dropout", "backbone.drop_path"):
        rate = attrgetter(setting)(c)
        fits = rate is None or 0 <= rate < 1
        require(fits, setting, rate, "at least 0 and below 1, or null")
    if rank is not None:
        _check_statistics(c)
    if all(stage.frozen for stage in c.strategy.stages):
        for setting in OF_WHAT_TRAINS:
            if (value := attrgetter(setting)(c)) is not None:
                raise ConfigError(
                    f"{setting}={value} acts where a backbone trains, and with trainable=false none of it does. Add "
                    "trainable=true, or leave it out."
                )


def _check_statistics(c: Config) -> None:
    """Beside pairs nothing of a backbone changes, moving statistics neither."""
    beside = "with backbone.lora, beside which nothing of a backbone changes"
    asked = c.batch_norm.statistics
    kept = asked in ("auto", "frozen")
    require(kept, "batch_norm.statistics", asked, f"auto or frozen {beside}")
    again = c.batch_norm.recalibrate
    require(again is not True, "batch_norm.recalibrate", again, f"auto or false {beside}")
