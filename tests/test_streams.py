"""Streams that are closed, full or gone, encodings that lack a letter, names that command a terminal."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

import processes
from helpers import TINY
from tlbench.base import console
from tlbench.base.text import printable
from tlbench.cli import main, sinks
from tlbench.inference.predict import Prediction
from tlbench.report import rows, tables
from tlbench.runs.results import Result
from tlbench.runs.run import Run

COMMAND = f"{sys.executable} -m tlbench"
EVIL = "\x1b]0;owned\x07[site](http://evil.example)<b>"


def in_a_shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=240,
        check=False,
    )


@pytest.mark.parametrize("streams", [">/dev/full 2>/dev/full", ">&- 2>&- <&-"])
def test_a_training_ends_well_where_nobody_can_hear_it(streams: str) -> None:
    words = " ".join((*TINY, "epochs=1", "hydra.run.dir=run")).replace("[", "\\[")
    python = sys.executable if "&-" in streams else processes.python()  # which takes three
    done = in_a_shell(f"{python} -m tlbench train {words} trainable=false {streams}")
    assert done.returncode == 0
    run = Run.open(Path("run"))
    assert run.status == "completed"
    assert run.metrics["test_images"] == 75


def test_a_sweep_ends_well_where_nobody_can_hear_it() -> None:
    words = " ".join((*TINY, "epochs=1", "seed=0,1", "hydra.sweep.dir=sweep")).replace("[", "\\[")
    command = f"{processes.python()} -m tlbench train --multirun {words} trainable=false"
    done = in_a_shell(f"{command} >/dev/full 2>/dev/full")
    assert done.returncode == 0
    assert Run.open(Path("sweep/1")).status == "completed"
    assert "2 seeds" in Path("sweep/table.md").read_text()


def test_results_that_nobody_gets_are_an_error() -> None:
    done = in_a_shell(f"{COMMAND} --help > /dev/full", PYTHONUNBUFFERED="")
    assert done.returncode == 1
    assert done.stderr == "tlbench: error: stdout cannot be written (No space left on device)\n"
    assert in_a_shell(f"{COMMAND} nonsense 2> /dev/full").returncode == 2
    for words in ("train --help", "train --cfg job"):
        done = in_a_shell(f"set -o pipefail; {COMMAND} {words} | head -n 1", PYTHONUNBUFFERED="1")
        assert done.returncode in (0, 141)
        assert done.stderr == ""
        done = in_a_shell(f"{COMMAND} {words} > /dev/full", PYTHONUNBUFFERED="1")
        assert done.returncode in (1, 2)
        assert "No space left on device" in done.stderr
    assert in_a_shell(f"{COMMAND} nonsense 2>&-").stdout == ""


def test_an_encoding_that_lacks_a_letter_shows_a_replacement() -> None:
    code = "from tlbench.base import console; from tlbench.cli import main; main._open_streams(); "
    code += "console.out.print('søster')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert done.stdout == b"s?ster\n"


def test_a_name_does_nothing_to_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    table = Table("class")
    table.add_row(EVIL.replace("[", "\\["))
    console.out.print(table)
    console.say(f"cannot read {EVIL}\nforged: all is well")
    main.main([EVIL])
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert "owned" in text
        assert "\x1b]" not in text
        assert "\x07" not in text
    assert "\nforged" not in said.err
    assert printable("क्\u200dष") == "क्\u200dष"


def test_a_name_is_no_link_and_no_formula_in_a_file() -> None:
    row = rows.Row(EVIL, (Result(Path("run"), "failed", "=1+1", {}),))
    line = tables.markdown([row]).splitlines()[2]
    assert r"\[site\](http\://evil.example)\<b\>" in line
    assert "\x1b" not in line
    named = rows.Row("=HYPERLINK(1)", (Result(Path("run"), "failed", "-2+3", {}),))
    (record,) = csv.DictReader(io.StringIO(tables.comma_separated([named])))
    assert (record["run"], record["reason"]) == ("'=HYPERLINK(1)", "'-2+3")
    file = io.StringIO()
    sinks.CsvSink(file, 1).add(Prediction(Path("+a\x1b.png"), [("@sum", 0.5)]))
    file.seek(0)
    (record,) = csv.DictReader(file)
    assert record == {"file": "'+a\ufffd.png", "class": "'@sum", "confidence": "0.500000"}


def test_a_file_gets_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    table = Table("layer")
    table.add_row("[bold]dense[/]")
    assert "\x1b" not in console.plain(table, 100)
    assert "dense" in console.plain(table, 100)
