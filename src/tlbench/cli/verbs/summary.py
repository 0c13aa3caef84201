"""`tlbench summary [overrides]`: the layers of what `train` would build, and nothing left behind."""

from pathlib import Path
from typing import Any

from tlbench.base.text import counted
from tlbench.cli import quiet

ABOUT = "print the layers and parameter counts of what `train` would build"
EXAMPLE = "tlbench summary report=resnet50_fc"


def run(words: list[str]) -> int:
    from tlbench.cli import hydra

    hydra.run([*words, "hydra.run.dir=."], _show)
    return 0


def candidates(words: list[str]) -> list[str]:
    from tlbench.cli import hydra

    return hydra.candidates(words)


def _show(cfg: Any, folder: Path, overrides: list[str]) -> None:
    del folder, overrides
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
    console.out.print(summary(cfg, len(names)))
