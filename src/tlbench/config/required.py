"""What a setting has to be: said where it is not, with what was expected."""

from collections.abc import Iterable
from typing import Any

from tlbench.base.errors import ConfigError, suggest


def require(condition: bool, setting: str, value: Any, expected: str) -> None:
    """Raise ConfigError where a setting does not fit."""
    if not condition:
        value = "null" if value is None else value
        raise ConfigError(f"{setting}={value} is not valid. Expected {expected}.")


def one_of(setting: str, value: str | None, options: Iterable[str | None]) -> None:
    """Raise ConfigError where a setting is none of its options, with the nearest of them."""
    if value not in (options := list(options)):
        named = [option for option in options if option is not None]
        raise ConfigError(f"Unknown {setting} '{value}'. {suggest(str(value), named)}")
