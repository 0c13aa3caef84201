"""What a network shows of a data set: labels that may be wrong, pictures unlike all others, and some that are alike.

A label is doubted by what a head says that has not seen the picture: the exact logistic head is solved on the features
of all other pictures, part by part, and cleanlab weighs what it says against the label (Northcutt et al. 2021,
Confident Learning). Pictures that look alike are in one part: a wrong label would be confirmed by its own copies.
"""

import importlib.util
import logging
import warnings

import numpy as np

from tlbench.base.errors import ConfigError
from tlbench.base.labels import leading, name, several
from tlbench.config.schema import Config
from tlbench.data.datasets import SPLITS, Dataset
from tlbench.data.near import Looks
from tlbench.features import frozen
from tlbench.inspection import problems, seen
from tlbench.inspection.problems import OUTLIER, WRONG, Problem
from tlbench.networks import classifiers, cuts
from tlbench.networks.hardware import prepare
from tlbench.probing import heads, logistic, spectrum, threads
from tlbench.probing.design import Design, taken
from tlbench.probing.linear import probabilities
from tlbench.runs.multilabel import HALF

log = logging.getLogger(__name__)

PARTS = 5
OUTLIERS = 0.01  # share of the pictures that are least like their neighbours, at most
UNLIKE = 0.5  # of cleanlab's score, 0-1, below which a picture is called an outlier


def check() -> None:
    """Raise ConfigError where cleanlab is not installed."""
    if importlib.util.find_spec("cleanlab") is None:
        raise ConfigError(
            "Labels are doubted with cleanlab, not installed here. Run: pip install 'tlbench[inspect]', or leave "
            "backbone=... out: all else is found without it."
        )


def of_network(dataset: Dataset, cfg: Config, looks: Looks, together: np.ndarray) -> list[Problem]:
    """Problems that features show; together: (images,) equal for pictures that look alike and vouch for each other."""
    machine = prepare(cfg.device, cfg.seed, repeatable=cfg.repeatable)
    classifier = classifiers.build(cfg, dataset.images.shape, len(dataset.class_names))
    found = frozen.compute(frozen.way(cuts.pooled(classifier), dataset, cfg, machine), dataset, cfg)
    with threads.over_blocks():
        return [
            *_of_labels(dataset, found, cfg, together),
            *_alike(dataset, found, looks, together),
        ]


def _of_labels(
    dataset: Dataset, found: frozen.Features, cfg: Config, together: np.ndarray
) -> list[Problem]:
    rows = np.sort(np.concatenate([dataset.splits[name] for name in SPLITS]))
    table, labels = taken(found.views[0], found.position[rows]), dataset.labels[rows]
    strength = _strength(dataset, found, cfg)
    shares = out_of_fold(table, labels, len(dataset.class_names), together[rows], cfg, strength)
    return [*_wrong(dataset, rows, shares), *_outliers(rows, np.asarray(table[:]))]


def _alike(
    dataset: Dataset, found: frozen.Features, looks: Looks, together: np.ndarray
) -> list[Problem]:
    """Pairs that the network sees alike and that do not look alike, nor show too little."""
    log.info("Looking for pictures that the network sees alike")
    rows = np.flatnonzero((found.position >= 0) & ~looks.flat)
    splits = [np.flatnonzero(np.isin(rows, dataset.splits[name])) for name in SPLITS]
    pairs = seen.pairs(taken(found.views[0], found.position[rows]), splits, together[rows])
    notes = [f"at {share:.0%} of the usual distance" for share in pairs.share]
    return problems.of_pairs(dataset, rows[pairs.first], rows[pairs.second], notes)


def _strength(dataset: Dataset, found: frozen.Features, cfg: Config) -> list[float]:
    """The path of strengths down to the one that the validation images prefer."""
    designs = [
        Design(
            [taken(found.views[0], found.position[dataset.splits[split]])],
            dataset.labels_of(split),
            len(dataset.class_names),
        )
        for split in ("train", "validation")
    ]
    path = heads.solve(cfg.head, designs[0], spectrum.of(designs[0]), designs[1])
    return heads.strengths(cfg.head)[: path.best + 1]


def out_of_fold(
    table: np.ndarray,
    labels: np.ndarray,
    classes: int,
    together: np.ndarray,
    cfg: Config,
    strengths: list[float],
) -> np.ndarray:
    """Probabilities of each row by a head that was solved without its part, (rows, classes)."""
    from sklearn.model_selection import StratifiedGroupKFold

    shares = np.empty((len(labels), classes), np.float32)
    parts = StratifiedGroupKFold(PARTS, shuffle=True, random_state=cfg.data.split_seed)
    with warnings.catch_warnings(
        action="ignore", category=UserWarning
    ):  # of classes with few images
        by = leading(labels)
        folds = list(parts.split(by, by, together))
    for others, part in folds:
        design = Design([table[others]], labels[others], classes)
        *_, head = logistic.solve(design, spectrum.of(design), strengths)
        shares[part] = probabilities(head.scores(np.asarray(table[part])), design)
    return shares


def _wrong(dataset: Dataset, rows: np.ndarray, shares: np.ndarray) -> list[Problem]:
    """Labels that cleanlab doubts, the most doubtful first, each with the class that the picture looks like."""
    from cleanlab.filter import find_label_issues

    labels = dataset.labels[rows]
    if several(labels):
        return _wrong_of_several(dataset, rows, shares)
    doubted = find_label_issues(
        labels, shares, return_indices_ranked_by="normalized_margin", n_jobs=1
    )
    return [
        Problem(
            WRONG,
            (int(rows[i]),),
            (dataset.class_names[shares[i].argmax()],),
            f"{shares[i].max():.0%} sure, {shares[i][labels[i]]:.0%} for its label",
        )
        for i in doubted
        if shares[i].argmax() != labels[i]
    ]


def _wrong_of_several(dataset: Dataset, rows: np.ndarray, shares: np.ndarray) -> list[Problem]:
    """The same where a picture may have several classes; a suggestion has all that it looks like."""
    from cleanlab.multilabel_classification.filter import find_label_issues

    labels, names = dataset.labels[rows], dataset.class_names
    named = [np.flatnonzero(label).tolist() for label in labels]
    doubted = find_label_issues(named, shares, return_indices_ranked_by="self_confidence", n_jobs=1)
    found = []
    for i in doubted:
        seen = (shares[i] >= HALF).astype(np.uint8)
        odd = np.flatnonzero(seen != labels[i])
        if len(odd):
            most = odd[abs(shares[i][odd] - HALF).argmax()]
            note = f"'{names[most]}' is there with {shares[i][most]:.0%}"
            found.append(Problem(WRONG, (int(rows[i]),), (name(seen, names),), note))
    return found


def _outliers(rows: np.ndarray, features: np.ndarray) -> list[Problem]:
    from cleanlab.outlier import OutOfDistribution

    with warnings.catch_warnings(action="ignore"):
        scores = OutOfDistribution().fit_score(features=features, verbose=False)
    order = np.argsort(scores, kind="stable")[: max(1, round(OUTLIERS * len(rows)))]
    return [Problem(OUTLIER, (int(rows[i]),), ("",)) for i in order if scores[i] < UNLIKE]
