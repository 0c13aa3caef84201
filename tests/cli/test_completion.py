"""Tab in real shells: what is offered fits, and is data that no shell evaluates."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from helpers import Answer
from tlbench.cli import completion

Command = Callable[..., Answer]

SHELLS = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
    "fish": ["--no-config", "-i"],
}
SECONDS = 60


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tlbench ", "train"),
        ("tlbench tr", "train"),
        ("tlbench train backbone=mobilenetv", "backbone=mobilenetv3"),
        ("tlbench train experiment=q", "experiment=quickstart"),
        ("tlbench train head.wi", "head.widths="),
        ("tlbench train backbone=resnet50 'data.root=it'\\''s' head.wi", "head.widths="),
        ("tlbench train --multi", "--multirun"),
        ("tlbench summary --config-dir own data=mi", "data=mine"),
        ("tlbench summary --sh", "--show"),
        ("tlbench cache --pr", "--prune"),
        ("tlbench find-r", "find-rate"),
        ("tlbench find-rate backbone=mobilenetv3 --st", "--steps"),
        ("tlbench find-rate --low 1e-6 head.wi", "head.widths="),
        ("tlbench find-batch --memory 2 backbone=mobilenetv", "backbone=mobilenetv3"),
        ("tlbench report --sort eval", "evaluation"),
    ],
)
def test_what_is_offered(
    tlbench: Command, line: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "mine.yaml").write_text("name: mine\n")
    monkeypatch.setenv("COMP_LINE", line)
    for shell in SHELLS:
        answer = tlbench("-sc", f"query={shell}")
        assert expected in answer.out.splitlines()
        assert answer.err == ""


@pytest.mark.parametrize(
    "line",
    ["tlbench train data.root=", "tlbench predict RUN ", "tlbench no ", "tlbench find-rate --out "],
)
def test_where_a_path_belongs_the_shell_completes(
    tlbench: Command, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert tlbench("-sc", "query=zsh") == Answer(0, "", "")


def test_bash_gets_what_follows_its_word_break_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "offered", lambda *_: ["data=$(touch x)", "data=a\nb"])
    monkeypatch.setenv("COMP_LINE", "tlbench train data=")
    monkeypatch.setenv("COMP_WORDBREAKS", " \t\n=:")
    assert completion.answer(["query=bash"]) == [r"\$\(touch\ x\)"]
    monkeypatch.setenv("COMP_WORDBREAKS", " \t\n")
    assert completion.answer(["query=bash"]) == [r"data=\$\(touch\ x\)"]


def test_an_unknown_shell_is_refused(tlbench: Command) -> None:
    answer = tlbench("-sc", "install=bahs")
    assert answer.code == 2
    assert "Did you mean 'bash'?" in answer.err


@pytest.fixture(params=SHELLS)
def typing(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, str], str]:
    """Type a line in a shell on a terminal, press Tab until `seen` shows, then Enter.

    The words that tlbench is then given, as Python would write them. Only bash is on every machine.
    """
    shell: str = request.param
    if shell != "bash" and shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "tlbench"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nfrom tlbench.cli.main import main\n"
        "if sys.argv[1:2] == ['-sc']:\n    sys.exit(main())\nprint('GIVEN', sys.argv[1:], 'END')\n"
    )
    program.chmod(0o755)
    environment = {
        "PATH": f"{program.parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path / "home"),
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "PS1": "$ ",
    }
    (tmp_path / "home").mkdir()

    def type_line(line: str, seen: str) -> str:
        child = pexpect.spawn(
            shutil.which(shell) or shell,
            SHELLS[shell],
            env=environment,
            timeout=SECONDS,
            encoding="utf-8",
            dimensions=(24, 200),
        )
        source = f"tlbench -sc install={shell}"
        setup = f"{source} | source" if shell == "fish" else f'eval "$({source})"'
        child.send(f"{setup}; echo RE''ADY\r")
        child.expect("READY")
        child.send(f"{line}\t")
        child.expect_exact(seen)
        child.send("\r")
        child.expect(r"GIVEN (\[.*?\]) END")
        child.close(force=True)
        return str(child.match.group(1))

    return type_line


def test_a_choice_is_completed(typing: Callable[[str, str], str]) -> None:
    assert typing("tlbench train backbone=mobilenetv3s", "small") == (
        "['train', 'backbone=mobilenetv3small']"
    )


def test_a_folder_with_a_command_for_a_name_is_text(
    typing: Callable[[str, str], str], tmp_path: Path
) -> None:
    run = tmp_path / "outputs" / "$(touch x);`touch y`"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text("{}")
    given = typing("tlbench evaluate outputs/", "touch")
    assert "outputs/$(touch x);`touch y`" in given
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "y").exists()


def test_a_data_root_with_a_command_for_a_name_is_text(
    typing: Callable[[str, str], str], tmp_path: Path
) -> None:
    (tmp_path / "pics $(touch x)").mkdir()
    given = typing("tlbench train data.root=pi", "touch")
    assert "data.root=pics $(touch x)" in given
    assert not (tmp_path / "x").exists()
