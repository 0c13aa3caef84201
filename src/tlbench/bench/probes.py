"""What features are worth: probes on draws of the training images, each answered on every test image."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tlbench.base.labels import leading
from tlbench.bench import draws
from tlbench.bench.settings import Settings
from tlbench.config.schema import Config
from tlbench.probing import heads, neighbours, ridge, spectrum, threads
from tlbench.probing.design import Design
from tlbench.probing.linear import all_scores, right
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
    told: Callable[[float], object] = lambda _: None,
) -> Answers:
    """Answer the test images by every probe; told: the share that is done, as it goes on.

    Training images count by their weights, but for the votes of k-NN, which count alike.
    """
    answered_right: dict[str, list[np.ndarray]] = {}
    images: dict[str, int] = {}
    drawn = _drawn(leading(train.labels), cfg.seed, settings)
    done = itertools.count(1)

    def keep(name: str, found: np.ndarray, count: int) -> None:
        answered_right.setdefault(name, []).append(found)
        images[name] = count
        told(next(done) / (len(drawn) + 3))

    def answered(rows: np.ndarray) -> np.ndarray:
        weights = None if train.weights is None else train.weights[rows]
        some = Design([train.tables[0][rows]], train.labels[rows], train.classes, weights)
        return right(_ridge(some, spectrum.of(some), test, settings), test)

    several = threads.each(lambda named: answered(named[1]), drawn)
    for (name, rows), found in zip(drawn, several, strict=True):
        keep(name, found, len(rows))
    directions = spectrum.of(train)
    keep(CURVE, right(_ridge(train, directions, test, settings), test), len(train))
    monitor = cfg.monitored(solved=True)
    best = heads.solve(cfg.head, train, directions, validation, monitor=monitor).chosen
    keep(ALL, right(all_scores(best.head.scores, test), test), len(train))
    most = min(settings.neighbours, len(train))
    shares = neighbours.votes(train, test, [most])[0] - (0.5 if train.several else 0)
    keep(NEIGHBOURS, right(shares, test), len(train))
    stacked = {name: np.stack(each) for name, each in answered_right.items()}
    return Answers(stacked, images, best.strength)


def _ridge(train: Design, found: Spectrum, test: Design, settings: Settings) -> np.ndarray:
    """Scores of the test images, the strength chosen by leaving out each training image in turn."""
    strengths = np.geomspace(settings.strongest, settings.weakest, settings.steps).tolist()
    targets = train.one_hot(slice(None)).astype(np.float32)
    scores = ridge.left_out(train, found, strengths)
    errors = [((one - targets) ** 2).mean(axis=1) @ train.shares for one in scores]
    head = ridge.solve(train, found, [strengths[int(np.argmin(errors))]])[0]
    return all_scores(head.less(0.5 if train.several else 0).scores, test)


def _drawn(labels: np.ndarray, seed: int, settings: Settings) -> list[tuple[str, np.ndarray]]:
    """Name and rows of each probe on some images: of every draw shots that half of the classes can give, and shares."""
    possible = [count for count in settings.shots if count <= np.median(np.bincount(labels))]
    drawn = []
    for number in range(settings.draws):
        places = draws.order(labels, seed, number)
        drawn += [(shot(count), draws.shots(places, count)) for count in possible]
        drawn += [(part(share), draws.share(labels, places, share)) for share in settings.shares]
    return drawn


def screen(train: Design, test: Design, settings: Settings) -> float:
    """Accuracy of the ridge probe alone."""
    scores = _ridge(train, spectrum.of(train), test, settings)
    return float(right(scores, test).mean())
