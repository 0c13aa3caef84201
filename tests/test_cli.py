"""The command line: help, completion, and one line for whatever is wrong with a command."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import TINY, Answer

Command = Callable[..., Answer]

LIGHT = """
    tlbench.cli tlbench.config tlbench.errors tlbench.console tlbench.run tlbench.report
    tlbench.page tlbench.plots tlbench.cache tlbench.sweep tlbench.hydra_app
"""


def shell(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tlbench", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_what_answers_at_once_never_imports_tensorflow() -> None:
    code = f"import importlib, sys; [importlib.import_module(m) for m in {LIGHT.split()}]; "
    code += "print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_names_every_verb(tlbench: Command) -> None:
    from tlbench.cli import VERBS

    for words in ((), ("--help",), ("-h",)):
        answer = tlbench(*words)
        assert answer.code == 0
        assert all(f"  {verb} " in answer.out for verb in VERBS)


def test_hydras_flags_work_with_the_verb(tlbench: Command, tmp_path: Path) -> None:
    assert "backbone: convnexttiny, densenet121" in tlbench("train", "--help").out
    assert "widths: ${backbone.head_widths}" in tlbench("train", "--cfg", "job").out
    resolved = tlbench("train", "--cfg", "job", "--resolve", "backbone=resnet50").out
    assert "- 1024" in resolved
    # In a process of its own: Hydra sets up logging for good to show this.
    assert "Config search path" in shell("train", "--info", "searchpath").stdout
    (tmp_path / "mine" / "backbone").mkdir(parents=True)
    own = "name: own\napplication: VGG16\nweights: null\nimage_size: 32\npreprocessing: null\n"
    (tmp_path / "mine" / "backbone" / "own.yaml").write_text(
        own + "arguments: {}\nhead_widths: [7]\n"
    )
    answer = tlbench("summary", "--config-dir", "mine", "backbone=own", "data=digits")
    assert "vgg16" in answer.out
    assert "3,591" in answer.out  # 512 features to 7 units
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tlbench ", "train"),
        ("tlbench tr", "train"),
        ("tlbench train backbone=mobilenetv", "backbone=mobilenetv3"),
        ("tlbench train experiment=q", "experiment=quickstart"),
        ("tlbench train head.wi", "head.widths="),
    ],
)
def test_tab_completion(line: str, expected: str) -> None:
    done = shell("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert expected in done.stdout.split()
    assert done.stderr == ""


def test_completion_script_is_bash() -> None:
    done = shell("-sc", "install=bash")
    check = subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=False)
    assert check.returncode == 0
    assert "-sc query=bash" in done.stdout


XCEPTION = ("data=digits", "backbone=xception", "backbone.weights=null", "backbone.image_size=32")
BAD = [
    (("trian",), "Unknown verb 'trian'. Did you mean 'train'?"),
    (("train", "backbon=resnet50"), "Did you mean 'backbone'?"),
    (("train", "backbone=resnet5"), "Unknown backbone 'resnet5'. Did you mean 'resnet50'?"),
    (("train", "head.width=[1]"), "Did you mean 'widths'?"),
    (("train", "--foo"), "unrecognized arguments: --foo"),
    (("train", "--resolve"), "--resolve goes with --cfg"),
    (("train", "--multirun", "--cfg", "job"), "Only one of"),
    (("train", "head.widths=[1,"), "head.widths=[1,"),
    (("train", "--multirun", "report=glob(x*)"), "no job"),
    (("train", "--multirun", "epochs=1,0"), "job 1 (epochs=0): epochs=0"),
    (("train", "epochs=1,2"), "--multirun"),
    (("train", "--config-dir", "nowhere"), "nowhere"),
    (("train", *TINY, "device=gpu"), "device=gpu"),
    (("train", *TINY, "backbone.application=ResNet5"), "Did you mean 'ResNet50'?"),
    (("train", *TINY, "backbone.application=os.system"), "Unknown backbone.application"),
    (("train", *TINY, "+backbone.arguments.alhpa=1"), "Did you mean 'alpha'?"),
    (("train", *XCEPTION), "Expected at least 71"),
    (("train", "backbone.arguments.alpha=1"), "+backbone.arguments.alpha=..."),
    (("train", *TINY, "trainable=conv9"), "trainable=conv9 is no layer"),
    (("train", *TINY, "optimizer.name=Adm"), "Did you mean 'Adam'?"),
    (("train", *TINY, "+optimizer.arguments.momentun=1"), "optimizer.arguments"),
    (("train", *TINY, "head.activation=rleu"), "Did you mean 'relu'?"),
    (("train", *TINY, "backbone.weights=nowhere.h5"), "nowhere.h5 does not exist"),
    (("train", *TINY, "data.validation=5"), "data.validation=5"),
    (("train", *TINY, "data.limit=12"), "data.limit=12"),
    (("train", *TINY, "data.source=osf"), "Unknown data.source 'osf'"),
    (("train", *TINY, "hydra.run.dir=file/x"), "hydra.run.dir"),
    (("summary", *TINY, "head=lineer"), "Did you mean 'linear'?"),
]


@pytest.mark.parametrize(("words", "expected"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_gets_one_line_and_leaves_nothing(
    tlbench: Command, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    (tmp_path / "file").touch()
    answer = tlbench(*words)
    assert answer.code == 2
    assert answer.error_lines[-1].startswith("tlbench: error: ")
    assert expected in answer.error_lines[-1]
    assert len(answer.error_lines) == 1
    assert {p.name for p in tmp_path.iterdir()} <= {"file", "cache"}


def test_a_traceback_is_shown_on_request() -> None:
    done = shell("train", "epochs=0", "--traceback")
    assert "Traceback" in done.stderr
    assert "ConfigError" in done.stderr


def test_no_network_names_the_setting_that_helps(tmp_path: Path) -> None:
    closed = {"HTTPS_PROXY": "http://127.0.0.1:9", "KERAS_HOME": str(tmp_path / "keras")}
    done = shell("train", **closed)
    assert done.returncode == 2
    assert "Set data.root" in done.stderr.splitlines()[-1]
    done = shell("train", "data=digits", "trainable=false", **closed)
    assert done.returncode == 2
    assert "backbone.weights" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "outputs").exists()
