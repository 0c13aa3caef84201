"""What features are worth: probes on draws of the training images, each answered on every test image."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tlbench.bench import draws
from tlbench.bench.settings import Settings
from tlbench.config.schema import Config
from tlbench.probing import heads, neighbours, ridge, spectrum
from tlbench.probing.design import Design
from tlbench.probing.linear import all_scores
from tlbench.probing.spectrum import Spectrum

ALL, NEIGHBOURS, CURVE = "all", "k-NN", "ridge"  # probes on every training image
SHARE, SHOT = "share ", "-shot"  # how names of probes on some of them begin or end


@dataclass(frozen=True)
class Answers:
    """Which test images each probe gets right, and on how many training images it was solved."""

    right: dict[str, np.ndarray]  # probe -> (draws, test images) booleans
    images: dict[str, int]
    strength: float | None  # of the logistic head on all images


def shot(count: int) -> str:
    """The name of a few-shot probe."""
    return f"{count}{SHOT}"


def part(share: float) -> str:
    """The name of the probe on a share of the training images."""
    return f"{SHARE}{share:g}"


def answers(
    train: Design,
    validation: Design,
    test: Design,
    cfg: Config,
    settings: Settings,
    told: Callable[[], object] = lambda: None,
) -> Answers:
    """Answer the test images by every probe; told: `steps(settings)` times, as it goes on."""
    right: dict[str, list[np.ndarray]] = {}
    images: dict[str, int] = {}

    def keep(name: str, scores: np.ndarray, count: int) -> None:
        right.setdefault(name, []).append(scores.argmax(axis=1) == test.labels)
        images[name] = count

    def draw(name: str, rows: np.ndarray) -> None:
        drawn = Design([train.tables[0][rows]], train.labels[rows], train.classes)
        keep(name, _ridge(drawn, spectrum.of(drawn), test, settings), len(rows))

    for number in range(settings.draws):
        places = draws.order(train.labels, cfg.seed, number)
        for count in _possible(settings.shots, train.labels):
            draw(shot(count), draws.shots(places, count))
        for share in settings.shares:
            draw(part(share), draws.share(train.labels, places, share))
        told()
    found = spectrum.of(train)
    keep(CURVE, _ridge(train, found, test, settings), len(train))
    told()
    best = heads.solve(cfg.head, train, found, validation).chosen
    keep(ALL, all_scores(best.head.scores, test), len(train))
    most = min(settings.neighbours, len(train))
    keep(NEIGHBOURS, neighbours.votes(train, test, [most])[0], len(train))
    told()
    return Answers({name: np.stack(each) for name, each in right.items()}, images, best.strength)


def steps(settings: Settings) -> int:
    """How often `answers` tells of itself."""
    return settings.draws + 2


def _ridge(train: Design, found: Spectrum, test: Design, settings: Settings) -> np.ndarray:
    """Scores of the test images, the strength chosen by leaving out each training image in turn."""
    strengths = np.geomspace(settings.strongest, settings.weakest, settings.steps).tolist()
    targets = np.eye(train.classes, dtype=np.float32)[train.targets]
    scores = ridge.left_out(train, found, strengths)
    best = int(np.argmin([np.mean((one - targets) ** 2) for one in scores]))
    return all_scores(ridge.solve(train, found, [strengths[best]])[0].scores, test)


def _possible(shots: list[int], labels: np.ndarray) -> list[int]:
    """Shots that half of the classes can give."""
    return [count for count in shots if count <= np.median(np.bincount(labels))]


def screen(train: Design, test: Design, settings: Settings) -> float:
    """Accuracy of the ridge probe alone."""
    scores = _ridge(train, spectrum.of(train), test, settings)
    return float((scores.argmax(axis=1) == test.labels).mean())
