"""A head solved on features: every strength of a path, and of them the one that validation images prefer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tlbench.config.schema import Head
from tlbench.probing import logistic, neighbours, ridge
from tlbench.probing.design import Design
from tlbench.probing.linear import (
    Linear,
    Scored,
    all_scores,
    probabilities,
    scaled,
    scored,
    scored_by,
)
from tlbench.probing.neighbours import Voters
from tlbench.probing.spectrum import Spectrum
from tlbench.runs import metrics


@dataclass(frozen=True)
class Step:
    """One head of a path and how it does; strength: of the penalty, None for a head that has none.

    monitored: the figure of the validation by which the best step is chosen.
    """

    head: Linear | Voters
    strength: float | None
    train: Scored
    validation: Scored
    monitored: float


@dataclass(frozen=True)
class Path:
    """Heads from the strongest penalty on, and which of them is the best."""

    steps: list[Step]
    best: int  # its place in `steps`: the first that has the best of what is monitored

    @property
    def chosen(self) -> Step:
        """The head that is kept."""
        return self.steps[self.best]

    @property
    def at_an_end(self) -> bool:
        """Whether a strength beyond the path may be better still."""
        return len(self.steps) > 1 and self.best in (0, len(self.steps) - 1)


def solve(
    cfg: Head,
    train: Design,
    found: Spectrum,
    validation: Design,
    told: Callable[[Step], object] = lambda _: None,
    monitor: str = "val_loss",
) -> Path:
    """Solve a head on the training rows; found: their spectrum; told: of each step as it is there.

    monitor: what the best step is best in, as `early_stopping.monitor` has it.
    """
    steps = []
    for strength, head in _heads(cfg, train, found, validation):
        scores = all_scores(head.scores, validation)
        on_train = scored_by(head.scores, train)
        on_validation = scored(scores, validation)
        values = {"val_loss": on_validation.loss, "val_accuracy": on_validation.accuracy}
        if monitor not in values:
            judged = metrics.MONITORED[monitor](
                validation.targets, probabilities(scores, validation)
            )
            values[monitor] = judged
        steps.append(Step(head, strength, on_train, on_validation, values[monitor]))
        told(steps[-1])
    best = np.argmin if metrics.less_is_better(monitor) else np.argmax
    return Path(steps, int(best([step.monitored for step in steps])))


def strengths(cfg: Head) -> list[float]:
    """Of a head's path, the strongest first, in equal ratios; none for a head that has no penalty."""
    if cfg.path is None:
        return []
    return [float(s) for s in np.geomspace(cfg.path.strongest, cfg.path.weakest, cfg.path.steps)]


def _heads(
    cfg: Head, train: Design, found: Spectrum, validation: Design
) -> Iterator[tuple[float | None, Linear | Voters]]:
    """Each strength and its head, whose scores make probabilities."""
    path = strengths(cfg)
    if cfg.solver == "nearest":
        yield None, Voters(train, min(cfg.neighbours or 1, len(train)))
        return
    if cfg.solver == "logistic":
        yield from zip(path, logistic.solve(train, found, path), strict=True)
        return
    ranked: list[tuple[float | None, Linear]] = [(None, neighbours.class_means(train, found))]
    if cfg.solver == "ridge":
        solved = ridge.solve(train, found, path)
        if train.several:  # of targets 0 and 1
            solved = [head.less(0.5) for head in solved]
        ranked = list(zip(path, solved, strict=True))
    for strength, head in ranked:
        yield strength, head.times(scaled(all_scores(head.scores, validation), validation))
