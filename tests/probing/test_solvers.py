"""Solvers against scikit-learn's at equal strength, and against what they are by definition."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from tlbench.probing import logistic, neighbours, ridge, spectrum
from tlbench.probing.design import Design, taken
from tlbench.probing.linear import Linear, probabilities, scaled, scored

STRENGTHS = (1.0, 0.1, 0.01, 0.001)
SHAPES = ((600, 64, 5), (80, 300, 4))  # more rows than features, and fewer: the dual


def drawn(rows: int, width: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of unlike scales and means, one of them constant, and labels that some of them tell."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, width)) * rng.uniform(0.1, 3, width) + rng.normal(size=width)
    told = features[:, :classes] - features[:, :classes].mean(axis=0)
    labels = (told + rng.normal(size=(rows, classes))).argmax(axis=1)
    features[:, -1] = 2
    return features.astype(np.float32), labels


def standardised(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mean = np.average(features, axis=0, weights=weights)
    deviation = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights))
    return (features - mean) / np.where(deviation < 1e-6, 1, deviation)


@pytest.mark.parametrize("shape", SHAPES)
def test_logistic_regression_is_scikit_learns(shape: tuple[int, int, int]) -> None:
    features, labels = drawn(*shape)
    weights = np.random.default_rng(1).uniform(0.2, 2, len(labels))
    design = Design([features], labels, shape[2], weights)
    rows = standardised(features, weights)
    path = logistic.solve(design, spectrum.of(design), STRENGTHS)
    for strength, head in zip(STRENGTHS, path, strict=True):
        theirs = LogisticRegression(C=1 / (strength * weights.sum()), tol=1e-8, max_iter=5000)
        theirs.fit(rows, labels, sample_weight=weights)
        ours = softmax(head.scores(features), axis=1)
        np.testing.assert_allclose(ours, theirs.predict_proba(rows), atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_ridge_is_scikit_learns(shape: tuple[int, int, int]) -> None:
    features, labels = drawn(*shape)
    weights = np.random.default_rng(1).uniform(0.2, 2, len(labels))
    design = Design([features], labels, shape[2], weights)
    rows, targets = standardised(features, weights), np.eye(shape[2])[labels]
    found = ridge.solve(design, spectrum.of(design), STRENGTHS)
    for strength, head in zip(STRENGTHS, found, strict=True):
        theirs = Ridge(alpha=strength * weights.sum()).fit(rows, targets, sample_weight=weights)
        np.testing.assert_allclose(head.scores(features), theirs.predict(rows), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_left_out_is_predicted_by_the_others(shape: tuple[int, int, int]) -> None:
    features, labels = drawn(*shape)
    design = Design([features], labels, shape[2])
    scores = ridge.left_out(design, spectrum.of(design), [0.1])[0]
    rows = standardised(features, np.ones(len(labels)))
    for one in (0, 7, 41):
        others = np.arange(len(labels)) != one
        theirs = Ridge(alpha=0.1 * len(labels)).fit(rows[others], np.eye(shape[2])[labels[others]])
        np.testing.assert_allclose(scores[one], theirs.predict(rows[one : one + 1])[0], atol=1e-4)


def test_neighbours_are_scikit_learns() -> None:
    features, labels = drawn(3000, 30, 4)
    train, queries = Design([features[:2500]], labels[:2500], 4), features[2500:]
    ours = neighbours.votes(train, Design([queries], labels[2500:], 4), [1, 5, 20])
    for k, votes in zip((1, 5, 20), ours, strict=True):
        theirs = KNeighborsClassifier(k, metric="cosine").fit(features[:2500], labels[:2500])
        np.testing.assert_allclose(votes, theirs.predict_proba(queries), atol=1e-6)


def test_class_means_are_scikit_learns() -> None:
    features, labels = drawn(400, 30, 4)
    design = Design([features], labels, 4)
    head = neighbours.class_means(design, spectrum.of(design))
    rows = standardised(features, np.ones(len(labels)))
    theirs = NearestCentroid().fit(rows[:, :-1], labels).predict(rows[:, :-1])
    np.testing.assert_array_equal(head.scores(features).argmax(axis=1), theirs)


def test_a_weight_of_two_is_a_row_that_stands_there_twice() -> None:
    features, labels = drawn(200, 20, 3)
    twice = np.arange(200) % 3 == 0
    weighted = Design([features], labels, 3, 1.0 + twice)
    repeated = Design([np.vstack([features, features[twice]])], np.append(labels, labels[twice]), 3)
    heads = [next(logistic.solve(d, spectrum.of(d), [0.01])) for d in (weighted, repeated)]
    np.testing.assert_allclose(heads[0].kernel, heads[1].kernel, atol=1e-4)


def test_views_are_rows_and_count_as_one_image_together() -> None:
    features, labels = drawn(200, 20, 3)
    views = [features, features + 0.5]
    design = Design(views, labels, 3)
    assert len(design) == 400
    stacked = Design([np.vstack(views)], np.tile(labels, 2), 3)
    for one, other in zip(
        *(ridge.solve(d, spectrum.of(d), STRENGTHS) for d in (design, stacked)), strict=True
    ):
        np.testing.assert_allclose(one.kernel, other.kernel, atol=1e-10)


def test_features_on_disk_give_the_same_head(tmp_path: Path) -> None:
    features, labels = drawn(5000, 20, 3)
    np.save(tmp_path / "features.npy", features)
    rows = np.random.default_rng(0).permutation(5000)[:3000]
    mapped = taken(np.load(tmp_path / "features.npy", mmap_mode="r"), rows)
    assert not isinstance(mapped, np.ndarray)
    designs = [Design([table], labels[rows], 3) for table in (mapped, features[rows])]
    on_disk, in_memory = (next(logistic.solve(d, spectrum.of(d), [0.01])) for d in designs)
    np.testing.assert_array_equal(on_disk.kernel, in_memory.kernel)


def test_the_same_bits_every_time() -> None:
    features, labels = drawn(3000, 40, 5)
    design = Design([features], labels, 5)
    first, second = (list(logistic.solve(design, spectrum.of(design), STRENGTHS)) for _ in "ab")
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.kernel, other.kernel)


def test_scores_are_scaled_to_the_least_log_loss() -> None:
    rng = np.random.default_rng(0)
    sure = rng.normal(size=(2000, 3)) * 2  # log odds
    labels = np.array([rng.choice(3, p=row) for row in softmax(sure, axis=1)])
    design = Design([np.zeros((2000, 1), np.float32)], labels, 3)
    factor = scaled(sure / 50, design)
    assert factor == pytest.approx(50, rel=0.1)
    best = scored(factor * sure / 50, design).loss
    assert all(scored(f * factor * sure / 50, design).loss > best for f in (0.8, 1.25))


def test_a_class_without_a_row_is_never_taken() -> None:
    features, labels = drawn(100, 10, 3)
    design = Design([features], labels, 5)
    found = spectrum.of(design)
    heads: list[Linear] = [
        neighbours.class_means(design, found),
        *ridge.solve(design, found, [0.1]),
        *logistic.solve(design, found, [0.1]),
    ]
    for head in heads:
        assert head.scores(features).argmax(axis=1).max() < 3


# ---------------------------------------------------------------- several classes to an image


def several(rows: int, width: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, and for each row which of the classes it has; weights of the rows."""
    features, _ = drawn(rows, width, classes)
    rng = np.random.default_rng(2)
    told = features[:, :classes] - features[:, :classes].mean(axis=0)
    labels = (told + rng.normal(size=told.shape) > np.linspace(-1, 1.5, classes)).astype(np.uint8)
    return features, labels, rng.uniform(0.2, 2, rows)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_class_is_solved_as_if_it_were_alone(shape: tuple[int, int, int]) -> None:
    features, labels, weights = several(*shape)
    design = Design([features], labels, shape[2], weights)
    rows, found = standardised(features, weights), spectrum.of(design)
    path = list(logistic.solve(design, found, STRENGTHS))
    for strength, head, ridged in zip(
        STRENGTHS, path, ridge.solve(design, found, STRENGTHS), strict=True
    ):
        given = probabilities(head.scores(features), design)
        for c in range(shape[2]):
            theirs = LogisticRegression(C=1 / (strength * weights.sum()), tol=1e-8, max_iter=5000)
            theirs.fit(rows, labels[:, c], sample_weight=weights)
            np.testing.assert_allclose(given[:, c], theirs.predict_proba(rows)[:, 1], atol=1e-4)
        alone = Ridge(alpha=strength * weights.sum())
        alone.fit(rows, labels.astype(float), sample_weight=weights)
        np.testing.assert_allclose(ridged.scores(features), alone.predict(rows), atol=1e-5)


def test_each_class_is_nearest_to_the_mean_of_those_that_have_it_or_of_the_others() -> None:
    features, labels, _ = several(*SHAPES[0])
    design = Design([features], labels, 5)
    scores = neighbours.class_means(design, spectrum.of(design)).scores(features)
    rows = standardised(features, np.ones(len(labels)))
    for c in range(5):
        theirs = NearestCentroid().fit(rows, labels[:, c])
        np.testing.assert_array_equal(scores[:, c] > 0, theirs.predict(rows) == 1)


def test_neighbours_vote_on_each_class() -> None:
    features, labels, _ = several(*SHAPES[0])
    train, queries = Design([features[:500]], labels[:500], 5), features[500:]
    (shares,) = neighbours.votes(train, Design([queries], labels[500:], 5), [7])
    theirs = KNeighborsClassifier(7, metric="cosine").fit(features[:500], labels[:500])
    for c, given in enumerate(theirs.predict_proba(queries)):
        np.testing.assert_allclose(shares[:, c], given[:, 1], atol=1e-6)
