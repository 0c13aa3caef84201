"""Every verb as a person sees it: on a terminal of 80 columns, where bars are drawn."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from rich.cells import cell_len

import processes
from helpers import TINY
from processes import Terminal
from tlbench.runs.run import Run

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(*words: str, columns: int = 80, **environment: str) -> tuple[int, str]:
    """The exit code of a command and all that its terminal was sent, without escapes."""
    code, shown = spawn(*words, columns=columns, **environment).rest()
    return code, ESCAPES.sub("", shown)


def spawn(*words: str, columns: int = 80, **environment: str) -> Terminal:
    environment = {**_environment(), "TERM": "xterm-256color", **environment}
    return Terminal(*words, columns=columns, environment=environment)


def _environment() -> dict[str, str]:
    """This process's, without the width of a terminal that it has set."""
    return {key: value for key, value in os.environ.items() if key != "COLUMNS"}


@pytest.mark.parametrize(
    ("term", "columns"), [("xterm-256color", 80), ("xterm-256color", 60), ("dumb", 80)]
)
def test_a_head_is_trained_on_a_terminal(term: str, columns: int) -> None:
    words = ("train", *TINY, "trainable=false", "epochs=1", "hydra.run.dir=run")
    code, shown = on_a_terminal(*words, columns=columns, TERM=term)
    assert code == 0, shown
    assert "internal error" not in shown
    drawn = re.findall(r"features .*?([\d,]+)/375", shown)
    assert (drawn[-1:] == ["375"]) is (term != "dumb")
    assert max(map(len, re.split(r"[\r\n]+", shown))) <= columns
    assert not re.search(r"^ +[\d.]+ *$", shown, re.M)  # a figure that fell off the end of its bar
    assert (Path("run") / "metrics.json").is_file()


VERBS = {
    "evaluate": ("evaluate", "RUN"),
    "predict": ("predict", "RUN", "PHOTOS"),
    "export": ("export", "RUN", "--format", "keras", "--images", "16"),
    "report": ("report", "RUN"),
    "compare": ("report", "RUN", "OTHER", "--compare", "RUN", "OTHER"),
    "cache": ("cache", "--folder", "FEATURES"),
    "summary": ("summary", *TINY),
    "find-rate": ("find-rate", *TINY, "trainable=false", "--low", "1e-4", "--steps", "60"),
    "find-batch": ("find-batch", *TINY, "--most", "8"),
    "plugins": ("plugins",),
    "help": ("train", "--help"),
    "its help": ("predict", "--help"),
}
TOLD = {  # what decides, which no width may cost
    "evaluate": (r"accuracy +[01]\.\d{4}", "calibration error", "equals the record"),
    "predict": (r"/grass/0\.png", r"0\.\d{4}"),
    "export": (r"keras .* kept",),
    "report": (r"small .* [01]\.\d{4}",),
    "compare": (r"150\s+test",),
    "cache": ("small", "digits", "750"),
    "summary": ("classification", "trainable"),
    "find-rate": (r"rate by rate .*/60", r"valley +[\d.]+e-\d", r"learning_rate=[\d.]+e-\d\s*$"),
    "find-batch": (r"8 +0\.\d\d GiB +[\d,]+  the largest that fits, the fastest", "batch_size=8"),
    "plugins": ("keras_applications", "image_folder", "tensorboard"),
    "help": ("convnexttiny, deit_small", "hydra.run.dir=DIR"),
    "its help": ("--csv",),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_on_a_terminal(verb: str, digits_run: Path, photos: Path, tmp_path: Path) -> None:
    run = shutil.copytree(digits_run, tmp_path / "it's a (trial) Übung")
    shutil.copytree(digits_run, tmp_path / "other")
    features = Run.open(run).config().features.folder
    places = {"RUN": str(run), "OTHER": "other", "PHOTOS": str(photos), "FEATURES": features}
    words = [places.get(word, word) for word in VERBS[verb]]
    for columns in (80, 60) if verb in ("report", "compare", "cache", "help") else (80,):
        code, shown = on_a_terminal(*words, columns=columns)
        assert code == 0, shown
        assert "internal error" not in shown
        lines = [line for line in re.split(r"[\r\n]+", shown) if str(tmp_path) not in line]
        assert max(map(cell_len, lines)) <= columns, shown  # but for a path, which is to be copied
        for told in TOLD[verb]:
            assert re.search(told, shown), shown


def test_colours_are_forced_into_a_pipe_and_nothing_else_is(digits_run: Path) -> None:
    words = ("train", *TINY, "trainable=false", "epochs=1", "hydra.run.dir=run")
    for command in (words, ("report", str(digits_run))):
        done = subprocess.run(
            [processes.python(), "-m", "tlbench", *command],
            env={**os.environ, "FORCE_COLOR": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert re.search(r"\x1b\[[0-9;]*m", done.stdout)
        assert not re.search(r"\x1b\[[0-9;?]*[A-Zhl]|\r", done.stdout + done.stderr)
        assert max(map(cell_len, ESCAPES.sub("", done.stdout).splitlines())) <= 80


def test_a_notebook_shows_text_and_files_are_whole(tmp_path: Path) -> None:
    """In a kernel's own process and by `!tlbench`: rich would take a kernel for a display of its own."""
    words = ["train", *TINY, "trainable=false", "epochs=1", "hydra.run.dir=run"]
    cells = [
        f"from tlbench.cli.main import main; print('code', main({words!r}))",
        f"!{sys.executable} -m tlbench report run",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": tmp_path}}).execute()
    trained, reported = (
        "".join(output.get("text", "<no text>") for output in cell.outputs)
        for cell in notebook.cells
    )
    assert "code 0" in trained
    assert trained.count("finished") == 1
    assert trained.count("output shape") == 1
    assert "output shape" in (tmp_path / "run" / "summary.txt").read_text()
    assert "<no text>" not in trained + reported
    assert not re.search(
        r"\x1b\[[0-9;?]*[A-Zhl]", trained
    )  # colours, and nothing drawn over itself
    assert re.search(r"run +params +train +val +ep +test", ESCAPES.sub("", reported))


def test_a_sweep_is_interrupted_and_goes_on_on_a_terminal(tmp_path: Path) -> None:
    """Ctrl-C as the terminal sends it, to the sweep and its jobs at once."""
    folder = ("hydra.sweep.dir=sweep", "epochs=40", "device=cpu")
    child = spawn("train", "--multirun", *TINY[:-2], "data.limit=300", "seed=0,1", *folder)
    child.expect(r"\d+/40  loss")
    child.sendintr()
    code, shown = child.rest()
    assert code == 130
    assert "--multirun resume=/" in shown  # it works from any folder
    code, shown = on_a_terminal("train", "--multirun", "resume=sweep")
    assert code == 0, shown
    assert "Going on after" in shown
    assert re.findall(r"jobs .*?(\d/2)", shown)
    assert (tmp_path / "sweep" / "table.md").is_file()
