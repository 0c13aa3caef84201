"""The range test: it trains as `train` does, and its rules find the rates that theory has."""

import csv
import math
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import processes
from helpers import TINY, Answer, make_config
from tlbench.data import pictures
from tlbench.networks.hardware import keras, tf
from tlbench.runs.run import Run
from tlbench.training import inputs
from tlbench.training.optimizers import Sweep
from tlbench.training.range_test import raised, range_test
from tlbench.training.rates import Curve, suggest

Command = Callable[..., Answer]


def steps_of(folder: str) -> list[dict[str, float]]:
    with Path(folder, "learning_rates.csv").open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def curve(losses: np.ndarray, smoothed: np.ndarray | None = None, last: float = 1e2) -> Curve:
    """Of rates from 1e-8 to the last; smoothed: where the losses are smooth as they are."""
    found = Curve("train")
    for rate, loss in zip(np.geomspace(1e-8, last, len(losses)), losses, strict=True):
        found.add(float(rate), float(loss))
    if smoothed is not None:
        found.smoothed = [float(value) for value in smoothed]
    return found


# ---------------------------------------------------------------- rules


def test_the_valley_is_two_thirds_along_the_longest_fall() -> None:
    """The loss falls in a straight line from 1e-5 to 1e-2, then rises. Two thirds of three decades lead to 1e-3; of the
    95 % that are left where a fall counts as begun, to 10^-2.95.
    """
    decades = np.linspace(-8, 2, 1001)
    losses = 3 - np.clip(decades + 5, 0, 3) + 2 * np.clip(decades + 2, 0, None)
    found = suggest(curve(losses, losses))
    assert found is not None
    assert (found.first, found.last) == pytest.approx((10**-4.85, 1e-2), rel=0.05)
    assert found.valley == pytest.approx(10**-2.95, rel=0.05)
    assert not found.open_ended


@pytest.mark.parametrize("centre", [3e-4, 2e-2])
def test_the_steepest_rate_is_where_the_loss_falls_fastest(centre: float) -> None:
    """1 / (1 + rate / centre) falls fastest, over the logarithm of the rate, at the centre."""
    losses = 1 / (1 + np.geomspace(1e-8, 1e2, 1001) / centre)
    found = suggest(curve(losses, losses))
    assert found is not None
    assert found.steepest == pytest.approx(centre, rel=0.05)


def test_a_short_fall_far_from_the_long_one_does_not_count() -> None:
    """After its longest fall, 1e-5 to 1e-2, the loss jumps up and falls once more, and more steeply."""
    decades = np.linspace(-8, 2, 1001)
    losses = 3 - np.clip(decades + 5, 0, 3) + 5 * (decades > -2) - 4 * np.clip(decades + 1, 0, 1)
    found = suggest(curve(losses, losses))
    assert found is not None
    assert found.valley == pytest.approx(10**-2.95, rel=0.05)
    assert 1e-5 <= found.steepest <= 1e-2


@pytest.mark.parametrize("steps", [30, 100, 400])
def test_noise_alone_suggests_nothing(steps: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        assert suggest(curve(2.3 + 0.2 * rng.standard_normal(steps))) is None


@pytest.mark.parametrize(
    "losses",
    [
        np.full(100, 2.3),
        np.geomspace(1, 50, 100),
        np.array([2.0, np.nan]),
        np.full(20, np.nan),
        np.array([1.0]),
    ],
    ids=["flat", "rising", "lost at once", "never known", "one step"],
)
def test_without_a_fall_nothing_is_suggested(losses: np.ndarray) -> None:
    assert suggest(curve(losses)) is None


@pytest.mark.parametrize("lost", [np.nan, np.inf, 1e30])
def test_a_fall_under_noise_is_found_whatever_ends_the_curve(lost: float) -> None:
    """From 1e-5 on the loss falls by 1 a decade, with deviations of 0.1; it is lost at 1e-2."""
    noise = 0.1 * np.random.default_rng(1).standard_normal(121)
    losses = 4 - np.clip(np.linspace(-8, -2, 121) + 5, 0, None) + noise
    seen = curve(losses, last=1e-2)
    assert not seen.diverged
    seen.add(1.1e-2, lost)
    assert seen.diverged
    found = suggest(seen)
    assert found is not None
    assert 1e-5 < found.first < 4e-5
    assert found.last == pytest.approx(1e-2, rel=0.2)
    assert found.valley == pytest.approx(10**-2.95, rel=0.3)


def test_smoothed_losses_begin_without_a_bias() -> None:
    """1, 2, 4: weights 1; 0.9 and 1 of 1.9; 0.81, 0.9 and 1 of 2.71."""
    found = curve(np.array([1.0, 2.0, 4.0])).smoothed
    assert found == pytest.approx([1, 2.9 / 1.9, 6.61 / 2.71])


def test_descent_on_a_parabola() -> None:
    """The loss (w - y)^2 curves by c = 2: descent is stable below the rate 2 / c = 1.

    While rates are low, w^2 is multiplied by (1 - c rate)^2 a step, so it is exp(-2 c rate / ln q) of the first where
    rates grow by q: over the logarithm of the rate that falls fastest where 2 c rate = ln q. Smoothing tells of it 10
    steps later at most. With targets of 0.1 and -0.1 in turns w comes to rest at -rate / (1 - rate) times the next
    target: the loss, 0.01 / (1 - rate)^2, is four times its least from the rate 0.5 on.
    """
    steps, low, high = 800, 1e-6, 10.0
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    network.set_weights([np.array([[10.0]])])
    sweep = Sweep(low, high, steps)
    network.compile(optimizer=keras.optimizers.SGD(sweep.of(1.0)), loss="mse")
    targets = tf.data.Dataset.from_tensor_slices([[[0.1]], [[-0.1]]]).repeat()
    batches = targets.map(lambda y: (tf.ones([1, 1]), y))
    seen = raised(network, batches, steps, "line")
    assert seen.rates[:2] == pytest.approx([low, low * (high / low) ** (1 / 799)], rel=1e-5)
    assert 0.5 < seen.rates[-1] < 1
    found = suggest(seen)
    assert found is not None
    growth = math.log(high / low) / (steps - 1)
    fastest = growth / 4
    assert fastest <= found.steepest <= fastest * math.exp(10 * growth) * 1.1
    assert found.valley < found.last < 0.5


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    "words",
    [
        ("trainable=false", "head.dropout=0.2", "augment=flip"),
        ("trainable=conv_2", "batch_norm.statistics=frozen"),
        (
            "strategy=probe_finetune",
            "optimizer=adamw",
            "optimizer.layer_decay=0.5",
            "microbatch=24",
        ),
        ("strategy=probe_finetune", "trainable=true", "head=logistic", "head.widths=[]"),
        ("features.cache=false", "trainable=false", "augment=strong", "loss=focal"),
    ],
    ids=lambda words: words[0] + words[1],
)
def test_a_rate_that_stays_trains_as_train_does(tlbench: Command, words: tuple[str, ...]) -> None:
    """The first epoch of the last stage: its loss is the mean over the images of all its steps."""
    words = (*TINY, *words, "epochs=1", "batch_size=32")
    assert tlbench("train", *words, "learning_rate=0.003", "hydra.run.dir=run").code == 0
    images = Run.open(Path("run")).manifest["data"]["images"]["train"]
    with Path("run", "history.csv").open() as file:
        *_, trained = csv.DictReader(file)
    steps = math.ceil(images / 32)
    seen = range_test(make_config(*words), Sweep(0.003, 0.003, steps))
    assert seen.stage == trained["stage"]
    sizes = [32] * (steps - 1) + [images - 32 * (steps - 1)]
    assert np.average(seen.losses, weights=sizes) == pytest.approx(float(trained["loss"]), rel=1e-4)
    assert seen.rates == pytest.approx([0.003] * steps)


@pytest.mark.parametrize("trainable", ["false", "conv_2"])
def test_what_is_frozen_is_computed_once(trainable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("images are read in steps")

    monkeypatch.setattr(inputs, "from_images", refuse)
    words = (f"trainable={trainable}", "features.storage=float32", "batch_size=64")
    seen = range_test(make_config(*TINY, *words), Sweep(1e-6, 1e-5, 12))
    assert len(seen.losses) == 12  # of 4 steps an epoch


def test_a_suggested_rate_trains_better_than_the_one_that_stands_in_conf(tlbench: Command) -> None:
    answer = tlbench("find-rate", *TINY, "--out", "found")
    assert answer.code == 0, answer.err
    override = answer.out.splitlines()[-1]
    assert re.fullmatch(r"learning_rate=[\d.]+(e-\d)?", override)
    assert re.search(r"valley .*\n *steepest ", answer.out)
    seen = steps_of("found")
    assert [seen[0]["learning_rate"], seen[1]["learning_rate"]] == pytest.approx(
        [1e-7, 1e-7 * 1e8 ** (1 / 99)], rel=1e-5
    )
    assert len(seen) < 100  # the highest rates would tell nothing
    assert Path("found", "learning_rates.png").read_bytes()[:4] == b"\x89PNG"
    assert {path.name for path in Path("found").iterdir()} == {
        *("learning_rates.csv", "learning_rates.png")
    }
    for words in ((), (override,)):
        folder = f"run{len(words)}"
        assert tlbench("train", *TINY, *words, f"hydra.run.dir={folder}").code == 0
    before, after = (Run.open(Path(folder)).metrics["val_loss"] for folder in ("run0", "run1"))
    assert after < before - 0.5


def test_a_loss_that_is_no_number_ends_the_test_and_suggests_nothing(tlbench: Command) -> None:
    answer = tlbench("find-rate", *TINY, "--low", "1e30", "--high", "1e38")
    assert answer.code == 1
    assert answer.error_lines[-1].startswith("The loss does not fall by more than it varies")
    assert "learning_rate=" not in answer.out
    (folder,) = Path("outputs").glob("*_find-rate_small_digits")
    assert not math.isfinite(steps_of(str(folder))[-1]["loss"])
    assert (folder / "learning_rates.png").is_file()
    assert tlbench("report").code == 2  # there is no run


def test_a_loss_that_still_falls_asks_for_a_higher_rate(tlbench: Command) -> None:
    words = ("trainable=false", "head.widths=[]", "--low", "1e-4", "--high", "3e-3", "--out", "a")
    answer = tlbench("find-rate", *TINY, *words)
    assert answer.code == 0, answer.err
    assert "The loss still falls at 0.003: try a higher --high." in answer.err


def test_a_strategy_that_sets_its_rates_is_named(tlbench: Command) -> None:
    Path("own", "strategy").mkdir(parents=True)
    stage = "{name: own, trainable: true, epochs: 1, learning_rate: 0.5, warmup: null}"
    Path("own", "strategy", "mine.yaml").write_text(f"name: mine\nstages: [{stage}]\n")
    words = ("strategy=mine", "--config-dir", "own", "--steps", "60", "--low", "1e-4")
    answer = tlbench("find-rate", *TINY, *words)
    assert answer.code == 0, answer.err
    assert "in the strategy's own YAML, which sets the rate of the stage 'own'" in answer.out


def test_what_a_recipe_chooses_is_what_is_trained(tlbench: Command) -> None:
    """More than 200 training images: the last stage, after a solved head."""
    words = (*TINY, "head.widths=[]", "recipe=auto", "--low", "1e-4", "--steps", "60")
    answer = tlbench("find-rate", *words, "--out", "found")
    assert answer.code in (0, 1), answer.err
    assert "recipe=auto: head=logistic" in answer.err
    assert "logistic" in answer.err
    if answer.code == 0:
        assert answer.out.splitlines()[-1].startswith("learning_rate=")
        assert "own YAML" not in answer.out


def test_what_is_solved_exactly_has_no_rate(tlbench: Command) -> None:
    words = (*TINY, "head=logistic", "head.widths=[]", "trainable=false")
    answer = tlbench("find-rate", *words)
    assert (answer.code, answer.out) == (2, "")
    assert "head.solver=logistic solves the head exactly: it has no steps" in answer.err
    assert len(answer.error_lines) == 1
    assert not Path("outputs").exists()


def test_ctrl_c_leaves_nothing() -> None:
    words = ("find-rate", *TINY, "trainable=false", "--steps", "1000000", "--low", "1e-9")
    command = processes.Command(*words, "--high", "1e-8")
    for line in command.stderr:
        if line.startswith("Frozen features"):
            break
    command.send_signal(signal.SIGINT)
    code, said = command.rest()
    assert code == 130
    assert "interrupted by SIGINT" in said
    assert not Path("outputs").exists()


def test_the_folder_of_a_range_test_is_no_class_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "learning_rates.png").touch()
    assert not pictures.is_output(tmp_path)
    (tmp_path / "learning_rates.csv").touch()
    assert pictures.is_output(tmp_path)
