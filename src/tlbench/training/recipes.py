"""`recipe=auto`: what to train, for how long and how, from the number of pictures and the kind of network.

As BiT's hyper-rule (Kolesnikov et al. 2020) it looks at the data once and asks for no search. Measured, for
convolutions and some thousand pictures, by benchmarks/fine_tuning.py; bounds and rates of transformers are judgement.
"""

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tlbench.base.errors import ConfigError
from tlbench.config.schema import Config
from tlbench.data import datasets
from tlbench.data.resize import Resize

log = logging.getLogger(__name__)

AUTO = "auto"
FEW = 200  # training images below which the head alone is trained
MANY = 20_000  # and above which every layer is
STEPS = 150  # of fine-tuning, where the epochs' limits allow
EPOCHS = (3, 12)
TRANSFORMERS = re.compile(r"vit|deit|dino|siglip", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """A word of `tlbench train`, and why it was chosen."""

    word: str
    why: str

    @property
    def setting(self) -> str:
        return self.word.partition("=")[0]


@dataclass(frozen=True)
class Recipe:
    """What a command typed, and how it is composed anew with other words before it."""

    typed: Sequence[str]
    compose: Callable[[Sequence[str]], Config]

    def settle(self, cfg: Config, images: int) -> tuple[Config, list[Choice]]:
        """The configuration with what is chosen for so many training images, and that; what was typed stays."""
        names = [name for name in map(_named, self.typed) if name not in ("recipe", "data")]
        if given := [name for name in names if name in ("report", "experiment")]:
            raise ConfigError(f"recipe=auto and {given[0]}=... both say how to train. Choose one.")
        found = [
            one
            for one in choices(cfg, images)
            if not any(_decides(name, one.setting) for name in names)
        ]
        return self.compose([*(one.word for one in found), *self.typed]), found


def decided(cfg: Config, recipe: Recipe) -> Config:
    """The configuration as `train` would settle it, for those that do not train; its choices are said."""
    if cfg.recipe != AUTO:
        return cfg
    dataset = datasets.load(cfg.data, Resize.of(cfg))
    cfg, chosen = recipe.settle(cfg, len(dataset.splits["train"]))
    say(chosen)
    return cfg


def say(chosen: Sequence[Choice]) -> None:
    """A line for each choice."""
    for one in chosen:
        log.info("recipe=auto: %s (%s)", one.word, one.why)


def choices(cfg: Config, images: int) -> list[Choice]:
    """What the recipe would have for so many training images, in the order in which it is said."""
    told = f"{images:,} training images"
    head = Choice("head=logistic", "the best linear head, solved exactly")
    if cfg.trainable is False or images < FEW:
        why = "as asked" if cfg.trainable is False else f"{told}, below {FEW}: too few to fine-tune"
        return [head, Choice("trainable=false", why)]
    return [head, *_depth(images, told), *_length(cfg, images, told), *_rate(cfg)]


def _depth(images: int, told: str) -> list[Choice]:
    stages = Choice("strategy=probe_finetune", "from the solved head on")
    if images > MANY:
        return [stages, Choice("trainable=true", f"{told}: enough for all layers")]
    return [stages, Choice("trainable=0.5", f"{told}: what lies below is computed once")]


def _length(cfg: Config, images: int, told: str) -> list[Choice]:
    steps = math.ceil(images / cfg.batch_size)
    least, most = EPOCHS
    epochs = min(max(math.ceil(STEPS / steps), least), most)
    why = f"some {STEPS} steps, {least} to {most} epochs, of {steps:,} steps each for {told}"
    return [Choice(f"epochs={epochs}", why)]


def _rate(cfg: Config) -> list[Choice]:
    rate, kind = ("1e-4", "a transformer") if is_transformer(cfg) else ("1e-3", "convolutions")
    return [
        Choice("augment=flip", "a mirrored picture shows the same; augment=none where it does not"),
        Choice("optimizer=adamw", "weights that multiply features are kept small"),
        Choice(f"optimizer.learning_rate.trained={rate}", f"{kind}, from a solved head"),
        Choice("schedule=cosine", "ends in small steps"),
    ]


def is_transformer(cfg: Config) -> bool:
    """By its published name."""
    name = f"{cfg.backbone.preset} {cfg.backbone.architecture} {cfg.backbone.name}"
    return TRANSFORMERS.search(name) is not None


def _named(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _decides(name: str, setting: str) -> bool:
    """Whether what was typed decides a setting: itself, or the group that holds it."""
    return setting == name or setting.startswith(f"{name}.")
