"""The README: its commands run, and a wheel holds all that they need."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import BACKBONE, TINY, Answer
from tlbench.cli.verbs import NAMES as VERBS
from tlbench.runs.run import Run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("tlbench ")]
OF_PICTURES = [c for c in COMMANDS if c.split()[1] in ("inspect", "data") or "--show" in c]


def test_every_verb_has_a_command() -> None:
    assert {shlex.split(command)[1] for command in COMMANDS} == set(VERBS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.split()[1] == "train"])
def test_training_commands_compose(
    tlbench: Callable[..., Answer], command: str, photos: Path
) -> None:
    """Every command is refused for nothing but what its placeholders stand for."""
    words = shlex.split(command)[1:]
    photos.rename("my_photos")
    if "--help" in words or "--cfg" in words:
        assert tlbench(*words).code == 0
        return
    if any("resume=" in word for word in words):
        answer = tlbench(*words)
        assert answer.code == 2
        assert re.search("outputs/(RUN|SWEEP) is no (run|sweep)", answer.error_lines[-1])
        return
    kept = [word for word in words if word not in ("n_jobs=2",)]
    if "--multirun" in kept:
        kept.remove("--multirun")
        kept = [word.replace("glob(*)", "resnet50_fc").replace("range(5)", "4") for word in kept]
        kept = [re.sub(r"(=[^\[{'\"]*?),.*", r"\1", word) for word in kept]  # the first job's
    answer = tlbench(*kept, "--cfg", "job", "--resolve")
    assert answer.code == 0, answer.err


def test_the_commands_after_training(
    tlbench: Callable[..., Answer], digits_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(digits_run, tmp_path / "outputs" / "RUN")
    for name in ("OTHER", "SWEEP/0", "SWEEP/1"):
        shutil.copytree(digits_run, tmp_path / "outputs" / name)
    (tmp_path / "photos").mkdir()
    picture = tmp_path / "outputs" / "RUN" / "plots" / "curves.png"
    shutil.copy(picture, tmp_path / "photos" / "a.png")
    for command in [c for c in COMMANDS if c not in OF_PICTURES]:
        words = shlex.split(command)[1:]
        if words[0] in ("evaluate", "predict", "report", "cache", "summary", "soup"):
            answer = tlbench(*words)
            assert answer.code == 0, f"{command}: {answer.err}"
        if words[0] == "export":  # each format has a test of its own
            assert tlbench(*words[:2], "--format", "keras").code == 0
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.split()[1] == "bench"])
def test_bench_commands_run_or_want_nothing_but_pictures_or_weights(
    tlbench: Callable[..., Answer], command: str, photos: Path
) -> None:
    photos.rename("my_photos")
    words = shlex.split(command)[1:]
    if "data=digits" in words:
        short = ("data.limit=300", "bench.draws=2", "bench.steps=5", "features.precision=float32")
        answer = tlbench(*words, *short)
        assert answer.code == 0, answer.err
        return
    kept = [word for word in words if not word.startswith(("--", "10m", "backbone="))]
    small = (*BACKBONE, "backbone.image_size=32", "bench.draws=2", "bench.steps=5", "data.test=0.3")
    answer = tlbench(*kept, *small, "features.precision=float32")
    assert answer.code == 0, answer.err
    assert "train it    tlbench train" in answer.out


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.split()[1].startswith("find-")])
def test_commands_that_find_a_setting_run(
    tlbench: Callable[..., Answer], command: str, photos: Path
) -> None:
    photos.rename("my_photos")
    verb, *words = shlex.split(command)[1:]
    kept = [word for word in words if not word.startswith(("backbone=", "optimizer="))]
    short = ("--steps=20",) if verb == "find-rate" else ("--most=8",)
    answer = tlbench(verb, *kept, *BACKBONE, "features.precision=float32", "data.test=0.3", *short)
    assert answer.code == 0 or "no rate is suggested" in answer.err, answer.err
    assert re.search("written to|batch_size=8", answer.out)


@pytest.mark.parametrize("command", OF_PICTURES)
def test_commands_of_pictures_run(
    tlbench: Callable[..., Answer], command: str, photos: Path
) -> None:
    photos.rename("my_photos")
    answer = tlbench(*shlex.split(command)[1:])
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_every_command_can_be_pasted(shell: str) -> None:
    """Brackets and stars are patterns, in zsh even where they match no file."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = 'tlbench() { printf "%s\\n" "$@"; }\n' + "\n".join(COMMANDS)
    done = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True)
    expected = [word for command in COMMANDS for word in shlex.split(command)[1:]]
    assert done.stdout.splitlines() == expected
    assert done.stderr == ""


def test_the_quickstart(tlbench: Callable[..., Answer]) -> None:
    assert "tlbench train experiment=quickstart" in README
    answer = tlbench("train", "experiment=quickstart", "hydra.run.dir=run")
    assert answer.code == 0, answer.err
    assert Run.open(Path("run")).metrics["evaluation"] >= 0.95
    assert "random: nothing was downloaded" in answer.out
    assert "tlbench train data=image_folder" in answer.out


def test_a_wheel_works_in_an_empty_folder(tmp_path: Path) -> None:
    options = ["--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    build = [sys.executable, "-m", "build", *options, str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    (tmp_path / "empty").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    words = ["train", *TINY, "trainable=false", "epochs=1", "hydra.run.dir=run"]
    command = [sys.executable, "-m", "tlbench", *words]
    subprocess.run(
        command, cwd=tmp_path / "empty", env=environment, check=True, capture_output=True
    )
    show = [sys.executable, "-c", "import tlbench; print(tlbench.__file__)"]
    done = subprocess.run(show, env=environment, check=True, capture_output=True, text=True)
    assert str(tmp_path / "installed") in done.stdout
    assert Run.open(tmp_path / "empty" / "run").status == "completed"


def test_the_picture_of_the_layout_names_every_file() -> None:
    picture = README.partition("## How it is laid out")[2]
    for path in [*(ROOT / "src" / "tlbench").glob("*"), *(ROOT / "conf").glob("*/")]:
        if not path.name.startswith("__") and path.name != "py.typed":
            assert path.name in picture, path.name
