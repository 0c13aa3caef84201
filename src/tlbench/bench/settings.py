"""What a bench measures: conf/bench.yaml, with what a command sets of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlbench.base.errors import ConfigError
from tlbench.config import omegaconf_errors
from tlbench.config.compose import conf_dir

PREFIX = "bench."


@dataclass
class Settings:
    """The values of conf/bench.yaml, where each is explained."""

    backbones: list[str]
    shots: list[int]
    draws: int
    shares: list[float]
    neighbours: int
    strongest: float
    weakest: float
    steps: int
    pixels: int
    screened_shots: int
    screened_tests: int


def load(words: Sequence[str]) -> Settings:
    """The settings, words such as `bench.draws=10` last. Raises ConfigError for what does not fit."""
    schema = OmegaConf.structured(Settings)
    try:
        typed = OmegaConf.from_dotlist([word.removeprefix(PREFIX) for word in words])
        merged = OmegaConf.merge(schema, OmegaConf.load(conf_dir() / "bench.yaml"), typed)
        settings = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{PREFIX}{omegaconf_errors.explain(error)}") from error
    assert isinstance(settings, Settings)
    _check(settings)
    return settings


def _check(s: Settings) -> None:
    least = {
        **{"draws": 2, "neighbours": 1, "steps": 1, "pixels": 1},
        **{"screened_shots": 1, "screened_tests": 1},
    }
    for name, value in least.items():
        if getattr(s, name) < value:
            raise ConfigError(
                f"{PREFIX}{name}={getattr(s, name)} is not valid. Expected at least {value}."
            )
    if not s.shots or min(s.shots) < 1:
        raise ConfigError(f"{PREFIX}shots={s.shots} is not valid. Expected numbers of at least 1.")
    if any(not 0 < share < 1 for share in s.shares):
        raise ConfigError(
            f"{PREFIX}shares={s.shares} is not valid. Expected shares between 0 and 1."
        )
    if not 0 < s.weakest <= s.strongest < float("inf"):
        raise ConfigError(
            f"{PREFIX}weakest={s.weakest} is not valid. Expected above 0, and at most bench.strongest."
        )
