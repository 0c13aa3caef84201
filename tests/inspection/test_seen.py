"""Which points are nearer to each other than is usual around them: held against loops over every pair."""

import itertools

import numpy as np
import pytest

from tlbench.inspection import seen


def features(rng: np.random.Generator, rows: int, width: int = 24) -> np.ndarray:
    return rng.gamma(1.0, size=(rows, width)).astype(np.float32)


def told(found: seen.Seen) -> set[tuple[int, int]]:
    return set(zip(found.first.tolist(), found.second.tolist(), strict=True))


@pytest.mark.parametrize("width", [24, 200])  # fewer features than rows, and more
def test_twins_are_found_within_parts_and_between_them(width: int) -> None:
    rng = np.random.default_rng(0)
    rows = features(rng, 90, width)
    for one, other in ((3, 4), (10, 70), (11, 85)):
        rows[other] = rows[one] * rng.uniform(0.95, 1.05, width)
    parts = [np.arange(60), np.arange(60, 80), np.arange(80, 90)]
    found = seen.pairs(rows, parts, np.arange(90))
    closest = set(list(zip(found.first.tolist(), found.second.tolist(), strict=True))[:3])
    assert closest == {(3, 4), (10, 70), (11, 85)}
    assert (np.diff(found.share) >= 0).all()
    assert found.share[2] < 0.2 < found.share[3:].min(initial=1)


def test_a_crowd_is_no_set_of_twins_however_near_its_pictures_are() -> None:
    rng = np.random.default_rng(1)
    crowd = features(rng, 1, 200) * rng.uniform(0.9, 1.1, (60, 200))
    apart = features(rng, 60, 200)
    apart[1] = apart[0] * rng.uniform(0.7, 1.3, 200)
    rows = np.concatenate([crowd, apart]).astype(np.float32)
    found = seen.pairs(rows, [np.arange(120)], np.arange(120))
    assert told(found) == {(60, 61)}
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = units[:60] @ units[:60].T
    assert cosines.min() > units[60] @ units[61]  # a limit for all would call the crowd one


def test_known_copies_are_no_pairs_and_hide_none() -> None:
    rng = np.random.default_rng(2)
    rows = features(rng, 60)
    rows[1] = rows[0] * 1.001
    rows[2] = rows[0] * rng.uniform(0.95, 1.05, 24)
    together = np.arange(60)
    assert (0, 1) in told(seen.pairs(rows, [np.arange(60)], together))
    together[1] = 0
    assert told(seen.pairs(rows, [np.arange(60)], together)) & {(0, 2), (1, 2)}
    assert (0, 1) not in told(seen.pairs(rows, [np.arange(60)], together))


def test_blocks_and_loops_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    rows = features(rng, 70, 6)  # few features: many are near to each other
    parts = [np.arange(0, 70, 2), np.arange(1, 70, 2)]
    together = rng.integers(0, 60, 70)
    monkeypatch.setattr(seen, "BLOCK", 100)
    found = seen.pairs(rows, parts, together)
    assert told(found) == by_loops(rows, parts, together)
    assert len(found.first) > 5


def by_loops(
    rows: np.ndarray, parts: list[np.ndarray], together: np.ndarray
) -> set[tuple[int, int]]:
    values = np.sqrt(rows.astype(np.float64))
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    # The inverse root of (covariance + 1) turned back: cosines do not care for the axes.
    variances, axes = np.linalg.eigh(np.cov(values.T, bias=True))
    points = values @ axes / np.sqrt(variances + 1)
    points /= np.linalg.norm(points, axis=1, keepdims=True)

    def distances(row: int, others: np.ndarray) -> dict[int, float]:
        return {
            int(other): 1 - float(points[row] @ points[other])
            for other in others
            if together[row] != together[other]
        }

    found = set()
    for one, other in itertools.combinations_with_replacement(parts, 2):
        for a in one.tolist():
            there = distances(a, other)
            b = min(there, key=there.__getitem__)
            back = distances(b, one)
            usual = [sorted(side.values())[: seen.USUAL] for side in (there, back)]
            share = 2 * there[b] / (np.mean(usual[0]) + np.mean(usual[1]))
            if min(back, key=back.__getitem__) == a and share <= seen.CLOSER:
                found.add((a, b) if one is not other else (min(a, b), max(a, b)))
    return found


def test_what_is_too_little_has_no_pairs() -> None:
    rows = features(np.random.default_rng(4), 3)
    nothing = np.empty(0, np.int64)
    assert told(seen.pairs(rows[:0], [nothing, nothing], nothing)) == set()
    assert told(seen.pairs(rows[:1], [np.arange(1), nothing], np.arange(1))) == set()
    assert told(seen.pairs(rows, [np.arange(3)], np.zeros(3, np.int64))) == set()
