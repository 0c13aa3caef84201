"""Every advice that a message gives: it is followed to the letter, and helps."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import BACKBONE, MOBILENET, SHORT, Answer, make_config
from tlbench.networks import classifiers
from tlbench.runs.recording import Recording
from tlbench.runs.run import Run

Command = Callable[..., Answer]

HEAD = (*BACKBONE, *SHORT[:2], "trainable=false", "epochs=1", "device=cpu")


def advised(answer: Answer, pattern: str) -> str:
    """The advice in the last line of a command that was refused."""
    assert answer.code == 2, answer.err
    found = re.search(pattern, answer.error_lines[-1])
    assert found, answer.error_lines[-1]
    return found[0]


def test_images_that_cannot_be_read_are_skipped_as_advised(tlbench: Command, photos: Path) -> None:
    (photos / "grass" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    words = ("train", *HEAD, "data=image_folder", f"data.root={photos}", "hydra.run.dir=run")
    advice = advised(tlbench(*words, "data.unreadable=refuse"), r"data\.unreadable=\w+")
    answer = tlbench(*words, advice)
    assert answer.code == 0, answer.err
    broken = f"{photos / 'grass' / 'broken.png'}: not a readable image"
    assert f"Skipped {broken}" in answer.err
    assert "1 image cannot be read and was left out" in answer.err
    # What else reads the folder says the same.
    (photos / "grass" / "gone.png").symlink_to("nowhere")
    gone = f"Skipped {photos / 'grass' / 'gone.png'}: a link that leads nowhere."
    answer = tlbench("evaluate", "run", "data=image_folder", f"data.root={photos}")
    assert "2 images cannot be read and were left out" in answer.err
    assert gone in answer.err
    told = Path("run", "evaluation", "evaluation.json")
    assert len(json.loads(told.read_text())["data"]["unreadable"]) == 2
    few = ("bench.draws=2", "bench.shares=[0.5]", "bench.shots=[1]", "bench.steps=2")
    words = (*BACKBONE, SHORT[0], "data=image_folder", f"data.root={photos}", *few, "--out", "b")
    for _ in range(2):  # the second time everything is found
        answer = tlbench("bench", *words)
        assert answer.code == 0, answer.err
        assert answer.err.count("2 images cannot be read and were left out") == 1
        assert gone in answer.err
        assert "2 images cannot be read and were left out: " in Path("b/bench.html").read_text()
        data = json.loads(Path("b/bench.json").read_text())["data"]["photos"]
        assert any("broken.png: not a readable image" in line for line in data["unreadable"])


def test_classes_of_unlike_sizes_are_told_and_helped_as_advised(
    tlbench: Command, photos: Path
) -> None:
    for number in range(9):
        next(photos.glob(f"blue sky/{number}.*")).unlink()
    own = ("data=image_folder", f"data.root={photos}", "data.validation=4", "data.test=5")
    answer = tlbench("train", *HEAD, *own, "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    line = next(line for line in answer.err.splitlines() if "Classes differ in size" in line)
    assert "'grass' has 5 training images, 'blue sky' has 1. What may help: " in line
    advice = line.partition("What may help: ")[2].split(", ")
    assert len(advice) == 3
    for number, words in enumerate(([advice[0], advice[2]], [advice[1], advice[2]])):
        answer = tlbench("train", *HEAD, *own, *words, f"hydra.run.dir={number}")
        assert answer.code == 0, answer.err
        assert "'blue sky' has 1" in answer.err
        assert "What may help" not in answer.err
    answer = tlbench("evaluate", "run")
    assert "balanced accuracy" in answer.out


def test_weights_that_moved_are_found_as_advised(tlbench: Command) -> None:
    words = [*MOBILENET, *HEAD[2:]]
    backbone = classifiers.build(make_config(*MOBILENET), (8, 8, 3), 10).backbone
    backbone.save_weights("old.weights.h5")
    chosen = ("backbone.weights=old.weights.h5", "hydra.run.dir=run")
    answer = tlbench("train", *words, *chosen)
    assert answer.code == 0, answer.err
    Path("old.weights.h5").rename("it's moved.weights.h5")
    again = ("train", "resume=run", "epochs=2")
    answer = tlbench(*again)
    assert "old.weights.h5 does not exist" in answer.error_lines[-1]
    advice = advised(answer, r"backbone\.weights=")
    answer = tlbench(*again, f"{advice}it's moved.weights.h5")
    assert answer.code == 0, answer.err
    assert Run.open(Path("run")).metrics["epochs"] == 2


def test_other_weights_are_refused_with_what_to_give(tlbench: Command) -> None:
    words = [*MOBILENET, *HEAD[2:]]
    for seed in (0, 1):
        made = classifiers.build(make_config(*MOBILENET, f"seed={seed}"), (8, 8, 3), 10)
        made.backbone.save_weights(f"{seed}.weights.h5")
    chosen = ("backbone.weights=0.weights.h5", "hydra.run.dir=run")
    assert tlbench("train", *words, *chosen).code == 0
    again = ("train", "resume=run", "epochs=2", "backbone.weights=1.weights.h5")
    advice = advised(tlbench(*again), r"backbone\.weights=")
    assert tlbench(*again[:-1], f"{advice}0.weights.h5").code == 0


@pytest.mark.parametrize("word", ["features.batch_size=4", "features.folder=elsewhere"])
def test_what_only_says_how_may_change_when_a_run_goes_on(tlbench: Command, word: str) -> None:
    words = ("train", "data=digits", "data.limit=300", *HEAD, "hydra.run.dir=run")
    assert tlbench(*words).code == 0
    answer = tlbench("train", "resume=run", "epochs=2", word)
    assert answer.code == 0, answer.err
    assert Run.open(Path("run")).metrics["epochs"] == 2


def test_a_sweep_goes_on_where_its_pictures_have_moved(
    tlbench: Command, photos: Path, tmp_path: Path
) -> None:
    """Their place is named in YAML of one's own alone: no word of the command says it."""
    own = tmp_path / "own" / "data"
    own.mkdir(parents=True)
    text = "defaults: [image_folder]\nroot: {}\n"
    (own / "mine.yaml").write_text(text.format(photos))
    words = ("--multirun", *HEAD, "data=mine", "head.widths=[4]", "hydra.sweep.dir=sweep")
    flag = f"--config-dir={tmp_path / 'own'}"
    assert tlbench("train", *words, flag, "hydra/launcher=basic").code == 0
    Recording.open(Path("sweep/0")).record(status="interrupted")
    moved = photos.rename(tmp_path / "it's moved")
    answer = tlbench("train", "--multirun", "resume=sweep", flag)
    assert answer.code == 1
    assert "Set data.root to the folder with the data" in answer.err
    (own / "mine.yaml").write_text(text.format(moved))
    answer = tlbench("train", "--multirun", "resume=sweep", flag)
    assert answer.code == 0, answer.err
    assert Run.open(Path("sweep/0")).config().data.root == str(moved)


def test_what_a_head_is_followed_by_trains_every_layer(tlbench: Command, photos: Path) -> None:
    """The last line of a frozen training, whatever head it had."""
    for head in ("head=linear", "head=logistic"):
        own = (*BACKBONE, SHORT[0], "trainable=false", "data=image_folder", f"data.root={photos}")
        words = ("train", head, *own, *(["epochs=1"] if head == "head=linear" else []))
        answer = tlbench(*words, f"hydra.run.dir={head}")
        assert answer.code == 0, answer.err
        (advice,) = re.findall(r"next +the same with ([\w= ]+\w)", answer.out)
        answer = tlbench(*words, *advice.split(), "epochs=1", f"hydra.run.dir={head} tuned")
        assert answer.code == 0, answer.err
        stages = Path(f"{head} tuned", "history.csv").read_text()
        assert "finetune" in stages
