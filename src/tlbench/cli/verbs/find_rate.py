"""`tlbench find-rate [overrides]`: a range test of the learning rate of what `train` would train."""

import argparse
import math
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from tlbench.base import kept
from tlbench.base.errors import ConfigError
from tlbench.cli import quiet, signals
from tlbench.cli.arguments import TrainParser, configuration, settled

ABOUT = "suggest a learning rate, by a short training in which it rises"
EXAMPLE = "tlbench find-rate data=image_folder data.root=photos strategy=probe_finetune"

FEWEST_STEPS = 20


def run(words: list[str]) -> int:
    """0: there is a suggestion; 1: the loss falls nowhere."""
    asked = _parser().parse_intermixed_args(words)
    _check(asked)
    cfg = configuration("find-rate", asked)
    name = _name(cfg)
    folder = _folder(asked.out, name)
    quiet.import_tensorflow()
    from tlbench.training.optimizers import Sweep
    from tlbench.training.range_test import range_test, write
    from tlbench.training.rates import suggest

    with signals.heard(), kept.between_jobs():  # the data are read once
        cfg = settled(cfg, asked)
        curve = range_test(cfg, Sweep(asked.low, asked.high, asked.steps))
        found = suggest(curve)
        write(curve, found, folder, f"{name}, {curve.stage}")
    _show(curve, found, folder, asked)
    return 0 if found else 1


def candidates(words: list[str]) -> list[str]:
    return _parser().candidates(words)


def _parser() -> TrainParser:
    parser = TrainParser(
        "find-rate",
        "Train what `train` would train, the last stage while its learning rate rises\n"
        "exponentially (Smith 2017), and suggest rates by how the loss falls. Settings are\n"
        "those of train; stages before the last are trained as there, schedule= is not used.\n"
        "Writes a picture and a table of every step.",
        example=f"{EXAMPLE}\ntlbench find-rate backbone=resnet50 data=digits optimizer=sgd --high 100",
    )
    for flag, value, what in (("--low", 1e-7, "first"), ("--high", 10.0, "last")):
        help_rate = f"the {what} rate (default: {value:g})"
        parser.add_argument(flag, metavar="RATE", type=float, default=value, help=help_rate)
    help_steps = "from one to the other (default: 100); more tell more, where the loss is noisy"
    parser.add_argument("--steps", metavar="N", type=int, default=100, help=help_steps)
    help_out = "where to; without it a new folder in outputs/"
    parser.add_argument("--out", metavar="DIR", help=help_out)
    return parser


def _check(asked: argparse.Namespace) -> None:
    if not 0 < asked.low < asked.high < math.inf:
        raise ConfigError(
            f"--low {asked.low:g} --high {asked.high:g} is no range. Expected two rates above 0, the lower one first."
        )
    if asked.steps < FEWEST_STEPS:
        raise ConfigError(f"--steps {asked.steps} is too few. Expected at least {FEWEST_STEPS}.")


def _name(cfg: Any) -> str:
    """What is trained on what, as run folders have it."""
    from tlbench.config import identity, names

    return names.folder(identity.flat(asdict(cfg)))


def _folder(asked: str | None, name: str) -> Path:
    """A new folder."""
    from tlbench.cli import targets
    from tlbench.config.words import expanded
    from tlbench.sweep import folders

    if asked is None:
        now = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
        folder = folders.claimed(Path("outputs") / f"{now}_find-rate_{name}")
        targets.check_folder("Without --out,", folder)
        return folder
    folder = Path(expanded(asked))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--out {folder} is there already. Expected a new folder.")
    targets.check_folder("--out", folder)
    return folder


# ---------------------------------------------------------------- what is shown


def _show(curve: Any, found: Any, folder: Path, asked: argparse.Namespace) -> None:
    """The suggestions and, last of all, what to paste; or why there are none."""
    from tlbench.base import console

    if found:
        console.out.print(_table(curve, found))
    console.out.print("written to", console.path(folder), soft_wrap=True)
    if not found:
        console.say(
            "The loss does not fall by more than it varies from step to step: no rate is suggested. More may be seen "
            f"with --steps {3 * asked.steps}, with a larger batch_size, or between other rates than {asked.low:g} and "
            f"{asked.high:g}.",
            style="warn",
        )
        return
    if found.open_ended:
        console.say(f"The loss still falls at {asked.high:g}: try a higher --high.", style="warn")
    console.out.print(_override(curve.stage, _short(found.valley), asked), soft_wrap=True)


def _table(curve: Any, found: Any) -> Any:
    from tlbench.base.columns import Column, FittedTable

    falls = f"the loss falls from {_short(found.first)} to {_short(found.last)}"
    rows = [
        ["valley", _short(found.valley), f"two thirds along: {falls}"],
        ["steepest", _short(found.steepest), "there it falls fastest"],
    ]
    columns = [Column("rule"), Column("learning rate", "right"), Column("why", fold=True)]
    return FittedTable(columns, rows, title=f"{curve.stage}: {len(curve.rates)} steps")


def _override(stage: str, rate: str, asked: argparse.Namespace) -> str:
    """The setting that has the stage train at a rate; a sentence where its strategy sets the rate itself."""
    from tlbench.config.compose import compose

    setting = f"learning_rate={rate}"
    words = [word for word in asked.words if not word.startswith("learning_rate=")]
    stages = compose([*words, setting], asked.config_dir).strategy.stages
    if any(one.name == stage and one.learning_rate == float(rate) for one in stages):
        return setting
    return (
        f"{setting} in the strategy's own YAML, which sets the rate of the stage '{stage}' itself"
    )


def _short(rate: float) -> str:
    """Two digits, as a setting takes them: 3.2e-4, 3e-4, 1.5."""
    digits, _, exponent = f"{rate:.1e}".partition("e")
    power = "" if int(exponent) == 0 else f"e{int(exponent)}"
    return digits.removesuffix(".0") + power
