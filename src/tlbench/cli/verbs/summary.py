"""`tlbench summary [overrides]`: the layers of what `train` would build, or with --show the images it would draw."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from tlbench.base.text import counted
from tlbench.cli import quiet

ABOUT = "print the layers and parameter counts of what `train` would build"
EXAMPLE = """
tlbench summary report=resnet50_fc
tlbench summary data=image_folder data.root=photos augment=strong --show drawn.png
"""
FORMATS = (".pdf", ".png", ".svg")


def run(words: list[str]) -> int:
    from tlbench.cli import hydra

    file, rest = _asked(words)
    job = _print if file is None else partial(_draw, file)
    hydra.run([*rest, "hydra.run.dir=."], job)
    return 0


def _asked(words: list[str]) -> tuple[str | None, list[str]]:
    """What --show names, and the words that are Hydra's."""
    from tlbench.base.errors import ConfigError
    from tlbench.cli import targets

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--show")
    try:
        asked, rest = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise ConfigError("--show expects a file, as in: --show drawn.png") from error
    if asked.show is not None:
        if Path(asked.show).suffix not in FORMATS:
            raise ConfigError(f"--show {asked.show} is not valid. Expected {', '.join(FORMATS)}.")
        targets.check_file("--show", asked.show)
    return asked.show, rest


def candidates(words: list[str]) -> list[str]:
    from tlbench.cli import hydra

    flags = ["--show"] if words[-1].startswith("-") else []
    return [] if words[-2:-1] == ["--show"] else [*flags, *hydra.candidates(words)]


def _draw(file: str, cfg: Any, folder: Path, overrides: list[str]) -> None:
    """A grid of training images and of what training makes of them."""
    del folder
    from tlbench.base import console
    from tlbench.data import augmentations, sources

    augmentations.chosen(cfg.augment)
    sources.check(cfg.data)
    quiet.import_tensorflow()
    from tlbench.networks import hardware
    from tlbench.runs import plots
    from tlbench.training.preview import preview

    hardware.prepare(cfg.device, cfg.seed)
    cfg = _decided(cfg, overrides)
    drawn = preview(cfg)
    operations = {"augment": cfg.augment["name"], **cfg.augment, "name": None}
    on = [f"{name}={value}" for name, value in operations.items() if value]
    plots.images(drawn.names, drawn.columns, ", ".join(on), Path(file))
    console.out.print("drawn in", console.path(Path(file)), soft_wrap=True)


def _print(cfg: Any, folder: Path, overrides: list[str]) -> None:
    del folder
    from tlbench.base import console
    from tlbench.base.errors import DataError
    from tlbench.data import sources

    names = sources.class_names(cfg.data)
    if len(names) < 2:
        raise DataError(
            f"{cfg.data.root or cfg.data.name} holds {counted(len(names), 'class', 'classes')}; expected at least 2."
        )
    quiet.import_tensorflow()
    from tlbench.networks import hardware
    from tlbench.networks.summary import summary

    hardware.prepare(cfg.device, cfg.seed)
    console.out.print(summary(_decided(cfg, overrides), len(names)))


def _decided(cfg: Any, overrides: list[str]) -> Any:
    """With what a recipe chooses for the data."""
    from tlbench.cli.hydra import recomposed
    from tlbench.training import recipes

    return recipes.decided(cfg, recipes.Recipe(overrides, recomposed()))
