"""`recipe=...`: how to train, as one word; what is typed beside it stays."""

from collections.abc import Callable
from pathlib import Path

import pytest

import tlbench as face
from helpers import BACKBONE, Answer, make_config
from tlbench.base.errors import ConfigError
from tlbench.config.compose import compose
from tlbench.runs.run import Run
from tlbench.training import recipes

Command = Callable[..., Answer]

AUTO = ("data=digits", *BACKBONE, "recipe=auto", "features.precision=float32")


def words(images: int, *typed: str) -> dict[str, str]:
    """What the recipe chooses for so many images, by setting."""
    found = recipes.choices(make_config("data=digits", *typed), images)
    assert all(choice.why for choice in found)
    return dict(choice.word.split("=") for choice in found)


def test_what_is_trained_and_for_how_long_goes_by_the_number_of_images() -> None:
    few, some, many = words(100), words(2_000), words(100_000)
    assert few == {"head": "logistic", "trainable": "false"}
    assert (some["strategy"], some["trainable"]) == ("probe_finetune", "0.5")
    assert (many["strategy"], many["trainable"]) == ("probe_finetune", "true")
    steps = {count: -(-count // 64) for count in (2_000, 100_000)}
    for images, found in ((2_000, some), (100_000, many)):
        least, most = recipes.EPOCHS
        wanted = -(-recipes.STEPS // steps[images])
        assert int(found["epochs"]) == max(least, min(most, wanted))
    assert words(2_000, "trainable=false") == few
    convolutions = float(some["optimizer.learning_rate.trained"])
    transformer = float(words(2_000, "backbone=vit_base")["optimizer.learning_rate.trained"])
    assert convolutions > transformer


def test_every_choice_composes_and_can_be_overridden() -> None:
    typed = ["data=digits", "recipe=auto", "optimizer=sgd", "epochs=3", "trainable=true"]
    recipe = recipes.Recipe(typed, compose)
    cfg, chosen = recipe.settle(compose(typed), 2_000)
    assert cfg.optimizer.name == "SGD"
    assert [stage.epochs for stage in cfg.strategy.stages] == [2, 3]
    assert cfg.strategy.stages[-1].trainable is True
    assert cfg.head.solver == "logistic"
    assert not {"epochs", "trainable", "optimizer"} & {choice.setting for choice in chosen}
    for group in ("report=resnet50_fc", "experiment=quickstart"):
        with pytest.raises(ConfigError, match="both say how to train"):
            recipes.Recipe(["recipe=auto", group], compose).settle(compose(typed), 2_000)


def test_auto_says_what_it_chose_and_why_and_goes_on(tlbench: Command) -> None:
    answer = tlbench("train", *AUTO, "data.limit=300", "epochs=2", "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    run = Run.finished(Path("run"))
    cfg = run.config()
    assert (cfg.recipe, cfg.epochs, cfg.head.solver) == ("auto", 2, "logistic")
    assert [stage.trainable for stage in cfg.strategy.stages] == [False, 0.5]
    said = (run.folder / "train.log").read_text()
    assert "recipe=auto: trainable=0.5 (270 training images: " in said
    assert "recipe=auto: epochs=" not in said
    assert "nothing to do" in tlbench("train", "resume=run").out
    shown = tlbench("summary", *AUTO, "data.limit=120")
    assert shown.code == 0, shown.err
    assert "recipe=auto: trainable=false (108 training images, below 200" in shown.err


def test_a_sweep_of_recipes_goes_on(tlbench: Command) -> None:
    few = ("data.limit=100", "hydra.sweep.dir=sweep", "recipe=quick,auto")
    sweep = ("--multirun", *(word for word in AUTO if word != "recipe=auto"), *few)
    first = tlbench("train", *sweep)
    assert first.code == 0, first.err
    again = tlbench("train", *sweep)
    assert again.code == 0, again.err
    runs = [Run.finished(Path("sweep", str(number))) for number in range(2)]
    assert [run.config().recipe for run in runs] == ["quick", "auto"]
    other = tlbench("train", *sweep, "seed=3")
    assert other.code == 2
    assert "holds another job" in other.error_lines[-1]


def test_from_python_the_settings_themselves_are_given(tmp_path: Path) -> None:
    run = face.train(*AUTO, "data.limit=100", folder=tmp_path / "run")
    assert run.config().trainable is False
    with pytest.raises(ConfigError, match="train from the settings themselves"):
        face.train(make_config(*AUTO, "data.limit=100"), folder=tmp_path / "other")
