"""The path of an inspection: data set -> facts -> problems -> a page and corrections.csv."""

import logging
from dataclasses import dataclass
from pathlib import Path

from tlbench.base.files import write_text
from tlbench.config.schema import Config
from tlbench.data import datasets, groups, near
from tlbench.data.corrections import COLUMNS
from tlbench.data.datasets import Dataset
from tlbench.data.resize import Resize
from tlbench.inspection import facts, problems
from tlbench.inspection.facts import Facts
from tlbench.inspection.problems import Problem
from tlbench.runs import listing

log = logging.getLogger(__name__)

CORRECTIONS, PAGE = "corrections.csv", "inspect.html"


@dataclass(frozen=True)
class Inspection:
    """A data set, what it holds, and its problems, the worst first."""

    dataset: Dataset
    facts: Facts
    problems: list[Problem]

    def count(self, kind: str) -> tuple[int, int]:
        """How often there is a problem, and how many pictures it is of."""
        rows = [problem.rows for problem in self.problems if problem.kind == kind]
        return len(rows), sum(map(len, rows))


def inspect(cfg: Config, *, doubt: bool) -> Inspection:
    """Read the data of a configuration and look for problems; doubt: also by the features of its backbone."""
    if doubt:
        from tlbench.inspection import doubts

        doubts.check()
    dataset = datasets.load(cfg.data, Resize.of(cfg))
    log.info("Looking for pictures that are alike")
    looks = near.looks(dataset.images)
    alike = near.pairs(looks)
    found = problems.of_pictures(dataset, looks, alike)
    if doubt:
        together = groups.tied(len(dataset.images), alike.first, alike.second)
        found += doubts.of_network(dataset, cfg, looks, together)
    return Inspection(dataset, facts.of(dataset), problems.ordered(found))


def write(found: Inspection, folder: Path, command: str) -> None:
    """The page, and the table in which a person decides; folder: a new one."""
    from tlbench.inspection import page

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / PAGE, page.html(found, command))
    if found.dataset.files is not None:  # decisions go by paths
        write_text(folder / CORRECTIONS, corrections(found))


def corrections(found: Inspection) -> str:
    """CSV with a line for each picture of each problem, and an empty column for what is decided."""
    dataset = found.dataset
    lines = [
        [
            listing.writable(dataset.file(row)),
            dataset.label(row),
            problem.kind,
            better,
            "",
        ]
        for problem in found.problems
        for row, better in zip(problem.rows, problem.suggestions, strict=True)
    ]
    return listing.table(COLUMNS, lines)
