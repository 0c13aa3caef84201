"""Intervals, tests and the power law: against what is drawn from known shares."""

import numpy as np
import pytest

from tlbench.bench import curve, draws, uncertainty


def answers(rng: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    """5 draws x 400 images: images differ in how hard they are, draws in how good they turned out."""
    hard = rng.normal(0, 1, 400)
    good = rng.normal(0, 0.4, (5, 1))
    return rng.random((5, 400)) < 1 / (1 + np.exp(-(0.5 + shift + hard + good)))


def expected() -> float:
    """The share of right answers over all images and draws there could be."""
    rng = np.random.default_rng(1)
    return float((1 / (1 + np.exp(-(0.5 + rng.normal(0, np.sqrt(1.16), 10**6))))).mean())


def test_an_interval_holds_the_share_as_often_as_it_says() -> None:
    rng, share = np.random.default_rng(0), expected()
    found = [uncertainty.share(answers(rng)) for _ in range(400)]
    held = np.mean([estimate.low <= share <= estimate.high for estimate in found])
    assert 0.92 <= held <= 0.99


def test_a_difference_that_is_none_is_found_as_seldom_as_it_says() -> None:
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(400):
        hard, good = rng.normal(0, 1, 400), rng.normal(0, 0.4, (5, 1))
        chances = 1 / (1 + np.exp(-(0.5 + hard + good)))  # what both share
        a, b = (rng.random((5, 400)) < chances for _ in "ab")
        alarms.append(uncertainty.difference(a, b).p < 0.05)
    assert np.mean(alarms) <= 0.08


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    found = uncertainty.difference(answers(rng, 1.0), answers(rng))
    assert found.p < 0.05
    assert found.low > 0


def test_one_draw_is_tested_exactly() -> None:
    a, b = np.zeros((1, 20), bool), np.zeros((1, 20), bool)
    a[0, :8] = True
    b[0, 8] = True
    assert uncertainty.difference(a, b).p == pytest.approx(2 * (1 + 9) / 2**9)  # 1 of 9 or fewer
    assert uncertainty.difference(a, a).p == 1


def test_all_right_is_not_certain() -> None:
    found = uncertainty.share(np.ones((5, 50), bool))
    assert found.mean == found.high == 1
    assert found.low == pytest.approx(50 / (50 + 1.959964**2))  # Wilson's bound of 50 of 50


def test_holm() -> None:
    assert uncertainty.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def lawful(rng: np.random.Generator, sizes: list[int], exponent: float) -> list[np.ndarray]:
    hard = rng.random(2000)
    return [np.stack([hard > 2 * n**-exponent for _ in range(3)]) for n in sizes]


def test_a_power_law_is_found_and_says_what_twice_the_images_bring() -> None:
    sizes = [100, 200, 400, 800, 1600]
    fitted = curve.fit(sizes, lawful(np.random.default_rng(0), sizes, 0.4), seed=0)
    assert fitted is not None
    assert fitted.supported
    assert fitted.exponent == pytest.approx(0.4, abs=0.06)
    gain, low, high = fitted.gain()
    true = 2 * 1600**-0.4 - 2 * 3200**-0.4
    assert low <= true <= high
    assert gain == pytest.approx(true, abs=0.005)
    assert f"Twice the images (3,200 for 1,600) would bring about {100 * gain:+.1f} points" in (
        curve.say(fitted)
    )


def test_a_curve_that_bends_supports_no_claim() -> None:
    rng = np.random.default_rng(0)
    sizes = [100, 200, 400, 800, 1600]
    right = lawful(rng, sizes[:4], 0.5)
    fitted = curve.fit(sizes, [*right, right[3]], seed=0)  # the last doubling brought nothing
    assert fitted is not None
    assert not fitted.supported
    assert "cannot be told" in curve.say(fitted)


def test_two_sizes_are_no_curve() -> None:
    right = lawful(np.random.default_rng(0), [100, 200], 0.5)
    assert curve.fit([100, 200], right, seed=0) is None


def test_draws_are_nested_balanced_and_the_same_again() -> None:
    labels = np.repeat([0, 1, 2], [40, 30, 4])
    places = draws.order(labels, 7, 2)
    np.testing.assert_array_equal(places, draws.order(labels, 7, 2))
    assert not np.array_equal(places, draws.order(labels, 7, 3))
    one, five = (set(draws.shots(places, count).tolist()) for count in (1, 5))
    assert one < five
    assert np.bincount(labels[sorted(five)]).tolist() == [5, 5, 4]  # a small class gives all it has
    quarter, half = (draws.share(labels, places, part) for part in (0.25, 0.5))
    assert set(quarter.tolist()) < set(half.tolist())
    assert np.bincount(labels[half]).tolist() == [20, 15, 2]
