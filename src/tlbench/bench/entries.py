"""What a bench compares: backbones x data sets, from words as after `train` with several values."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tlbench.base.errors import ConfigError
from tlbench.bench.settings import Settings
from tlbench.config import names
from tlbench.config import words as grammar
from tlbench.config.compose import compose
from tlbench.config.identity import flat
from tlbench.config.schema import Config

SEVERAL = ("backbone", "data")  # groups whose words may have several values
PATHS = ("backbone.weights=", "data.root=", "data.table=")
OWN = ("head=logistic", "trainable=false")  # what a bench solves


@dataclass(frozen=True)
class Entry:
    """One backbone on one data set; labels tell them apart in the table."""

    backbone: str
    data: str
    cfg: Config
    words: tuple[str, ...]  # of the backbone, as they can be typed
    data_words: tuple[str, ...]  # of the data


def entries(words: Sequence[str], settings: Settings, config_dir: str | None) -> list[Entry]:
    """Every backbone on every data set. Raises ConfigError for words that cannot be used."""
    if not any(word.startswith("backbone=") for word in words):
        words = [f"backbone={','.join(settings.backbones)}", *words]
    choices = [_values(word) for word in words]
    chosen = [(one, compose([*OWN, *one], config_dir)) for one in itertools.product(*choices)]
    for _, cfg in chosen:
        _check(cfg)
    known = [flat(asdict(cfg)) for _, cfg in chosen]
    backbones = apart([(names.backbone(one), names.place("backbone.name", one)) for one in known])
    data = apart([(names.data(one), names.place("data.name", one)) for one in known])
    found = []
    for (one, cfg), backbone, data_set in zip(chosen, backbones, data, strict=True):
        several = [word for word, values in zip(one, choices, strict=True) if len(values) > 1]
        labelled = _label(backbone, "backbone.", several), _label(data_set, "data.", several)
        typed = [tuple(word for word in one if word.startswith(group)) for group in SEVERAL]
        found.append(Entry(*labelled, cfg, *typed))
    return found


def _check(cfg: Config) -> None:
    """Raise ConfigError for what a bench decides itself."""
    if cfg.head.solver != "logistic" or not all(s.frozen for s in cfg.strategy.stages):
        raise ConfigError(
            "A bench solves heads of its own on frozen backbones. Leave head=..., trainable=... and strategy=... "
            "out; head.path.steps=... and its like can be set."
        )
    if cfg.loss.class_weights is not None or cfg.data.sampling != "natural":
        raise ConfigError(
            "A bench draws as many images of each class as of any other, and counts them alike. Leave "
            "loss.class_weights=... and data.sampling=... out."
        )


def apart(known: Sequence[tuple[str, Path | None]]) -> list[str]:
    """The name of each; where several places have one name, the shortest end of its path that no other has."""
    found = []
    for name, place in known:
        others = {other for one, other in known if one == name} - {place}
        found.append(
            _end(place, [(o.parts if o else (name,)) for o in others]) if place and others else name
        )
    return found


def _end(place: Path, others: Sequence[tuple[str, ...]]) -> str:
    ends = (place.parts[-depth:] for depth in range(1, len(place.parts) + 1))
    return "/".join(next(end for end in ends if all(o[-len(end) :] != end for o in others)))


def _values(word: str) -> list[str]:
    """A word for each of the values that it has; a path that is there has no other for its comma."""
    if word.startswith(PATHS) and Path(grammar.expanded(word.partition("=")[2])).exists():
        return [word]
    values = grammar.several(word)
    if len(values) > 1 and word.partition("=")[0].split(".")[0] not in SEVERAL:
        raise ConfigError(
            f"'{word}' has several values. A bench compares backbones and data; expected one value."
        )
    return values


def _label(name: str, prefix: str, several: Sequence[str]) -> str:
    """A name, and behind it the settings by which several entries of that name differ."""
    differ = [word for word in several if word.startswith(prefix)]
    differ = [word for word in differ if not (word.startswith(PATHS) and _says(name, word))]
    return " ".join([name, *(word.removeprefix(prefix) for word in differ)])


def _says(name: str, word: str) -> bool:
    """Whether a name is that of the path which a word sets."""
    path = grammar.path_of(word)
    return name == path.stem or f"/{path.absolute().as_posix()}".endswith(f"/{name}")
