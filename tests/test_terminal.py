"""Every verb as a person sees it: on a terminal of 80 columns, where bars are drawn."""

import os
import re
import sys
from pathlib import Path

import pexpect
import pytest

from conftest import TINY

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(*words: str, columns: int = 80, **environment: str) -> tuple[int, str]:
    """The exit code of a command and all that its terminal was sent, without escapes."""
    child = pexpect.spawn(
        sys.executable,
        ["-m", "tlbench", *words],
        dimensions=(24, columns),
        env={**os.environ, "TERM": "xterm-256color", **environment},
        timeout=240,
        encoding="utf-8",
    )
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus, ESCAPES.sub("", child.before)


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_a_head_is_trained_on_a_terminal(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS")
    words = ("train", *TINY, "trainable=false", "epochs=1", "hydra.run.dir=run")
    code, shown = on_a_terminal(*words, TERM=term)
    assert code == 0, shown
    assert "internal error" not in shown
    drawn = re.findall(r"features .*?([\d,]+)/375", shown)
    assert (drawn[-1:] == ["375"]) is (term != "dumb")
    assert max(map(len, re.split(r"[\r\n]+", shown))) <= 80
    assert (Path("run") / "metrics.json").is_file()
