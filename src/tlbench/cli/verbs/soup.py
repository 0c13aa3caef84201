"""`tlbench soup SWEEP`: the mean of the weights of a sweep's models, while validation improves."""

import shlex
from pathlib import Path

from tlbench.cli import finished, quiet, signals
from tlbench.cli.arguments import Parser

ABOUT = "average the models of a sweep: no dearer to run than one of them"
EXAMPLE = "tlbench soup outputs/SWEEP"


def run(words: list[str]) -> int:
    signals.ignore_saving()
    asked = _parser().parse_args(words)
    from tlbench.base.errors import RunError
    from tlbench.runs import layout, results

    sweep = Path(asked.sweep)
    folder = Path(asked.out) if asked.out else sweep / "soup"
    if layout.is_run(folder):
        raise RunError(f"{folder} holds a run already. Choose another folder: --out DIR")
    runs = [result.run for result in results.collect([sweep]) if result.completed]
    quiet.import_tensorflow()
    from tlbench.training.soup import soup

    with signals.heard():
        made = soup(runs, folder.absolute(), shlex.join(["tlbench", "soup", *words]))
    finished.show(made)
    return 0


def candidates(words: list[str]) -> list[str]:
    return _parser().candidates(words)


def _parser() -> Parser:
    parser = Parser(
        "soup",
        "Average the weights of a sweep's models, from the best down, each kept where\n"
        "validation gets no worse by it (a greedy soup: Wortsman et al. 2022). The mean is\n"
        "a run like any other, in SWEEP/soup. Runs on other splits or networks are left out.",
        example="tlbench train --multirun seed=0,1,2 hydra.sweep.dir=outputs/SWEEP\n"
        "tlbench soup outputs/SWEEP",
    )
    parser.add_argument("sweep", metavar="SWEEP", help="a folder with finished runs")
    parser.add_argument(
        "--out", metavar="DIR", help="the folder of the mean, in the place of SWEEP/soup"
    )
    return parser
