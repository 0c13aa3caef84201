"""What a user types is what is meant: paths are text, in every verb, in bash and in zsh."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import TINY, Answer
from tlbench.config import compose, words
from tlbench.runs.run import Run, resume_command

Command = Callable[..., Answer]

ODD = (
    *("it's a (trial) Übung", "a=b", "R&D", "x, y", "pics #2", "$HOME", 'a"b', "back\\", "-dash"),
    *("+plus", "~tilde", "@new", "*x", "{a", "%x", "a: b", "[64]", "null", "2024", " lead", "'q'"),
    *('"q"', "!!", "`id`", "$(touch x)", "a;b", "new\nline", "${x}", "choice(a)"),
)


@pytest.mark.parametrize("name", ODD)
def test_a_path_is_read_as_it_was_printed(name: str) -> None:
    for key in (*words.PATHS, *words.TEMPLATES):
        for sweep in (False, True):
            word = words.setting(key, name, sweep=sweep)
            (hydras,) = words.for_hydra([word], sweep=sweep)
            assert Path(name) == words.path_of(hydras)
            assert words.for_hydra([hydras], sweep=sweep) == [hydras]  # as a sweep hands it on


@given(st.text(alphabet="ab'\"\\${} ,=()[]#:~@%\n", min_size=1, max_size=12))
@settings(max_examples=100, deadline=None, database=None)
def test_any_path_is_read_as_it_was_printed(name: str) -> None:
    word = words.setting("data.root", name, sweep=True)
    assert Path(name) == words.path_of(words.for_hydra([word], sweep=True)[0])


@pytest.mark.parametrize(
    ("typed", "sweep", "expected"),
    [
        ("data.root=a, b", False, "data.root='a, b'"),
        ("data.root=a, b", True, "data.root='a','b'"),
        ("data.root='a, b',c", True, "data.root='a, b','c'"),
        ("data.root=John's,Ann's", True, r"data.root='John\'s','Ann\'s'"),
        ("data.root='\"a, b\"'", False, "data.root='\"a, b\"'"),
        ('data.root="a, b"', False, 'data.root="a, b"'),  # quoted in Hydra's way already
        ("backbone.weights=null,imagenet", True, "backbone.weights=null,'imagenet'"),
        ("backbone.weights=choice(a,b)", True, "backbone.weights=choice(a,b)"),
        ("hydra.run.dir=runs/${now:%H} x", False, "hydra.run.dir='runs/${now:%H} x'"),
        ("data.root=${x}", False, r"data.root='\${x}'"),
        ("optimizer.arguments={decay:1}", False, "++optimizer.arguments={decay:1}"),
        ("backbone.arguments.alpha=0.5,1", True, "++backbone.arguments.alpha=0.5,1"),
        ("head.widths=[64],[128]", True, "head.widths=[64],[128]"),
        ("epochs=3", False, "epochs=3"),
    ],
)
def test_a_word_in_hydras_grammar(typed: str, sweep: bool, expected: str) -> None:
    assert words.for_hydra([typed], sweep=sweep) == [expected]


def test_home_is_where_a_shell_would_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert words.for_hydra(["data.root=~/my photos"]) == [f"data.root='{tmp_path}/my photos'"]
    assert words.for_hydra(["--config-dir=~/own"]) == [f"--config-dir={tmp_path}/own"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_what_is_printed_can_be_pasted(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    show = f"{sys.executable} -c 'import sys; print(ascii(sys.argv[1:]))'"
    for name in ODD:
        pasted = resume_command(Path(name)).removeprefix("tlbench")
        done = subprocess.run([shell, "-c", show + pasted], capture_output=True, text=True)
        assert done.stdout.strip() == ascii(["train", words.setting("resume", name)])


@pytest.mark.parametrize("name", ["pics #2", "@new", "*x", "{a", "%x", "a: b", "a, b"])
def test_a_word_means_the_same_in_every_verb(name: str, digits_run: Path) -> None:
    """`evaluate` read YAML: a comment, an anchor, a mapping."""
    cfg = Run.open(digits_run).config()
    typed = ["data=image_folder", f"data.root={name}"]
    assert compose.with_data(cfg, typed).data.root == str(Path(name).absolute())


def test_data_of_ones_own_yaml(digits_run: Path, tmp_path: Path) -> None:
    (tmp_path / "own" / "data").mkdir(parents=True)
    yaml = "name: mine\nsource: image_folder\nroot: pics\nimage_size: null\nclass_names: null\n"
    (tmp_path / "own" / "data" / "mine.yaml").write_text(yaml)
    cfg = Run.open(digits_run).config()
    assert compose.with_data(cfg, ["data=mine"], "own").data.name == "mine"


def test_a_file_whose_name_begins_with_a_dash(
    tlbench: Command, digits_run: Path, tmp_path: Path
) -> None:
    shutil.copy(digits_run / "plots" / "curves.png", tmp_path / "-x.png")
    assert "-x.png" in tlbench("predict", str(digits_run), "--", "-x.png").out


def test_no_home_and_no_working_directory_are_one_line_each(tmp_path: Path) -> None:
    """As in a container whose user has no entry in the system's list."""
    home = "import os; os.path.expanduser = lambda path: path; os.environ.pop('TLBENCH_CACHE'); "
    gone = f"import os; os.mkdir('{tmp_path}/gone'); os.chdir('{tmp_path}/gone'); os.rmdir('{tmp_path}/gone'); "
    for before, hint in ((home, "export TLBENCH_CACHE="), (gone, "cd ~")):
        code = before + "from tlbench.cli.main import main; raise SystemExit(main(['cache']))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 2
        assert hint in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_sweep_in_a_folder_of_any_name(
    tlbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run and sweep folders go through Hydra's grammar as absolute paths."""
    odd = tmp_path / "it's a (trial), Übung #2 $HOME a=b"
    odd.mkdir()
    monkeypatch.chdir(odd)
    answer = tlbench("train", "--multirun", *TINY, "trainable=false", "epochs=1", "seed=0")
    assert answer.code == 0, answer.err
    (sweep,) = Path("outputs").glob("*_sweep")
    assert Run.open(sweep / "0").status == "completed"
    command = words.command("train", "--multirun", words.setting("resume", sweep.absolute()))
    answer = tlbench(*shlex.split(command)[1:])
    assert answer.code == 0, answer.err
    assert "completed already" in answer.err
