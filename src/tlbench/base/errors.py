"""The error family: what a user sees of a failure is the message of one of these, on one line."""

import difflib
import re
from collections.abc import Iterable


class TlbenchError(Exception):
    """Root of every error tlbench raises; `exit_code` is what the command then returns."""

    exit_code = 1


class UserError(TlbenchError):
    """The command, a setting or a file of the user's does not fit; the message says how to mend it."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration value or key that cannot be used."""


class DataError(UserError):
    """Images or labels that are missing, unreadable or too few."""


class WeightsError(UserError):
    """Backbone weights that cannot be fetched, read or fitted."""


class DownloadError(WeightsError):
    """Weights that the network did not bring; `what`: the message without its advice."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what} {advice}")
        self.what = what


class DeviceError(UserError):
    """A device that is not there, or too small for the work."""


class RunError(UserError):
    """A run folder that cannot be written or read."""


class ExportError(UserError):
    """A model that a format cannot hold, or an optional package that is not installed."""


class SweepError(TlbenchError):
    """Some jobs of a sweep failed; the others finished."""


class BenchError(TlbenchError):
    """Nothing that a bench compares can be measured."""


class TrainingError(TlbenchError):
    """A training that cannot go on, though its settings are valid."""


def first_line(error: Exception) -> str:
    """The first line of what another library says of an error, to be set into one of ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".:")


def suggest(name: str, options: Iterable[str]) -> str:
    """The option that was probably meant, and the options where they are few or none is near."""
    options = sorted(options)
    near = difflib.get_close_matches(name, [o for o in options if _same_number(name, o)], n=1)
    guess = [f"Did you mean '{near[0]}'?"] if near else []
    listing = [f"Expected one of: {', '.join(options)}."] if len(options) <= 6 or not near else []
    return " ".join(guess + listing)


def _same_number(name: str, option: str) -> bool:
    """Whether the digits could be a typing error of one another: ResNet18 is no misspelt ResNet50."""
    typed, meant = (re.sub(r"\D", "", text) for text in (name, option))
    return typed.startswith(meant) or meant.startswith(typed) or sorted(typed) == sorted(meant)
