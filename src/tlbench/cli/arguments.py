"""The words after a verb that is not Hydra's: argparse, its errors one line like any other."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tlbench.base.errors import ConfigError, suggest
from tlbench.runs import layout

if TYPE_CHECKING:
    from tlbench.config.schema import Config

OUTPUTS = Path("outputs")  # where runs are looked for when no path is given


class Parser(argparse.ArgumentParser):
    """An argument parser of one verb: `Parser("report", "what it does", example="tlbench report")`.

    The example ends --help, as it is typed. Words that cannot be parsed raise ConfigError.
    """

    def __init__(self, verb: str, description: str, *, example: str) -> None:
        super().__init__(
            prog=f"tlbench {verb}",
            description=description,
            epilog="example" + ("s" if "\n" in example else "") + ":\n" + _indented(example),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[:1].upper()}{message[1:]}. See: {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """argparse's own check of `choices`, with the near miss named as elsewhere."""
        if action.choices is not None and value not in action.choices:
            name = action.option_strings[-1] if action.option_strings else action.metavar
            raise ConfigError(f"Unknown {name} '{value}'. {suggest(str(value), action.choices)}")

    def candidates(self, words: Sequence[str]) -> list[str]:
        """What Tab offers for the last of the words after the verb; the shell keeps what fits.

        Flags, what the flag before it takes, or run folders; for nothing the shell offers files.
        """
        before, word = ([""], "") if not words else (["", *words[:-1]], words[-1])
        if word.startswith("-"):
            return [flag for action in self._actions for flag in action.option_strings]
        for action in self._actions:
            if before[-1] in action.option_strings and action.nargs != 0:
                return [str(choice) for choice in action.choices or ()]
        return [str(manifest.parent) for manifest in OUTPUTS.rglob(layout.MANIFEST)]


class RunParser(Parser):
    """The parser of a verb that begins with RUN, the folder of a finished run."""

    def __init__(self, verb: str, description: str, *, example: str) -> None:
        super().__init__(verb, description, example=example)
        self.add_argument("run", metavar="RUN", help="the folder of a finished run")

    def add_data(self, metavar: str, help_data: str) -> None:
        """Words that name data as after `train`."""
        self.add_argument("data", metavar=metavar, nargs="*", default=[], help=help_data)
        self.add_argument(
            "--config-dir", metavar="DIR", help="a folder of your own YAML, as for train"
        )

    def candidates(self, words: Sequence[str]) -> list[str]:
        if len(words) == 2 and not words[-1].startswith("-"):
            return []  # after the run: images, or other data
        return super().candidates(words)


class TrainParser(Parser):
    """The parser of a verb that takes what `train` takes, beside flags of its own."""

    def __init__(self, verb: str, description: str, *, example: str) -> None:
        super().__init__(verb, description, example=example)
        help_words = "settings, as for train"
        self.add_argument("words", metavar="key=value", nargs="*", help=help_words)
        help_own = "a folder of your own YAML, as for train"
        self.add_argument("--config-dir", metavar="DIR", help=help_own)

    def candidates(self, words: Sequence[str]) -> list[str]:
        flags = [flag for action in self._actions for flag in action.option_strings]
        if words[-1].startswith("-") or (words[-2:-1] and words[-2] in flags):
            return super().candidates(words)
        from tlbench.cli import hydra

        return hydra.candidates(list(words))


def configuration(verb: str, asked: argparse.Namespace) -> "Config":
    """What the words of a `TrainParser` compose; refused, before TensorFlow is imported, as by `train`."""
    from tlbench.config import checks
    from tlbench.config.compose import compose
    from tlbench.data import augmentations, sources

    cfg = compose(asked.words, asked.config_dir)
    if cfg.resume is not None:
        raise ConfigError(f"{verb} begins anew. Leave resume={cfg.resume} out.")
    checks.check_stages(cfg)
    sources.check(cfg.data)
    augmentations.check(cfg)
    return cfg


def settled(cfg: "Config", asked: argparse.Namespace) -> "Config":
    """The configuration with what recipe=auto chooses for its data; the words then say so themselves."""
    from tlbench.config import checks
    from tlbench.config.compose import compose
    from tlbench.networks import hardware
    from tlbench.training import recipes
    from tlbench.training.train import read

    if cfg.recipe != recipes.AUTO:
        return cfg
    hardware.prepare(cfg.device, cfg.seed, repeatable=cfg.repeatable)
    recipe = recipes.Recipe(asked.words, lambda words: compose(words, asked.config_dir))
    cfg, chosen = recipe.settle(cfg, len(read(cfg).splits["train"]))
    checks.check_stages(cfg)
    recipes.say(chosen)
    asked.words = [*(one.word for one in chosen), *asked.words]
    return cfg


def _indented(lines: str) -> str:
    return "\n".join(f"  {line.strip()}" for line in lines.strip().splitlines())


def with_data(words: Sequence[str]) -> Sequence[str]:
    """The words, which have to name a data set. Raises ConfigError where they do not."""
    if not any(word.startswith("data=") for word in words):
        raise ConfigError(
            "Name the data: data=image_folder data.root=my_photos, data=table data.table=labels.csv, or another."
        )
    return words


def needs_keras(source: str) -> bool:
    """Whether a data source reads through Keras, whose import is to be silenced first."""
    return source.startswith("cifar")
