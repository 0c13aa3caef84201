"""What a bench compares: backbones x data sets, from words as after `train` with several values."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tlbench.base.errors import ConfigError
from tlbench.bench.settings import Settings
from tlbench.config import words as grammar
from tlbench.config.compose import compose
from tlbench.config.schema import Config

SEVERAL = ("backbone", "data")  # groups whose words may have several values
OWN = ("head=logistic", "trainable=false")  # what a bench solves


@dataclass(frozen=True)
class Entry:
    """One backbone on one data set; labels tell them apart in the table."""

    backbone: str
    data: str
    cfg: Config
    words: tuple[str, ...]  # of the backbone, as they can be typed


def entries(words: Sequence[str], settings: Settings, config_dir: str | None) -> list[Entry]:
    """Every backbone on every data set. Raises ConfigError for words that cannot be used."""
    if not any(word.startswith("backbone=") for word in words):
        words = [f"backbone={','.join(settings.backbones)}", *words]
    choices = [_values(word) for word in words]
    found = []
    for chosen in itertools.product(*choices):
        cfg = compose([*OWN, *chosen], config_dir)
        several = [word for word, values in zip(chosen, choices, strict=True) if len(values) > 1]
        labels = (_label(getattr(cfg, name).name, name, several) for name in SEVERAL)
        own = tuple(word for word in chosen if word.startswith("backbone"))
        found.append(Entry(*labels, cfg, own))
    return found


def _values(word: str) -> list[str]:
    """A word for each of the values that it has."""
    values = grammar.several(word)
    if len(values) > 1 and word.partition("=")[0].split(".")[0] not in SEVERAL:
        raise ConfigError(
            f"'{word}' has several values. A bench compares backbones and data; expected one value."
        )
    return values


def _label(name: str, group: str, several: Sequence[str]) -> str:
    """A name, and behind it the values that several entries differ by."""
    differ = [word.partition("=")[2] for word in several if word.startswith(f"{group}.")]
    return " ".join([name, *(value.strip("'\"").rpartition("/")[2] for value in differ)])
