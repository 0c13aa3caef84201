"""Tables at any width: nothing that decides is cut, no word or number broken."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from tlbench.base.columns import Column, FittedTable, shortened

COLUMNS = (
    Column("file", path=True),
    Column("class"),
    Column("seconds", "right", rank=2),
    Column("size", "right", rank=1),
    Column("verdict"),
)
ROWS = [
    ["pictures/a very long folder name/of somebody/cat 1.png", "cat", "1.25", "12 MB", "kept"],
    ["dog.png", "a dog", "21.25", "1,212 MB", "refused"],
]


def shown(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(FittedTable(COLUMNS, ROWS, caption="two files"))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [40, 50, 60, 80, 120])
def test_a_row_is_a_line_at_any_width(width: int) -> None:
    heads, rule, first, second, caption = shown(width)
    assert set(rule) == {"─"}
    assert all(len(line) <= width for line in (heads, rule, first, second))
    assert first.startswith("pictu")
    assert first.split()[-1] == "kept"
    assert second.split()[-1] == "refused"
    assert "cat" in first
    assert "a dog" in second
    assert caption == "two files"


def test_the_least_column_goes_first_and_paths_lose_their_middle() -> None:
    assert "seconds" in shown(80)[0]
    assert "seconds" not in shown(50)[0]
    assert "1,212 MB" in shown(50)[3]
    assert "size" not in shown(40)[0]
    assert "…" in shown(50)[2]
    assert "cat 1.png" in shown(50)[2]
    assert "pictures/a very long folder name/of somebody/cat 1.png" in shown(120)[2]


NAMES = (
    Column("file", path=True),
    Column("class", fold=True),
    Column("confidence", "right"),
    Column("runner-up", fold=True),
)
LONG = "Beavers and otters of the northern rivers"
PREDICTED = [[f"{'folder/' * 5}a.png", LONG, "0.8123", f"{LONG} 0.1234, trout 0.0567"]]


@pytest.mark.parametrize("width", [60, 80, 100, 130])
def test_names_fold_and_no_column_that_was_asked_for_goes(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    console.print(FittedTable(NAMES, PREDICTED))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in text.splitlines())
    assert text.splitlines()[0].split() == ["file", "class", "confidence", "runner-up"]
    for word in (*LONG.split(), "0.8123", "0.1234,", "trout", "0.0567"):
        assert word in text
    assert ("…" in text) == (width < 104)  # folding loses nothing, and comes first
    assert len(text.splitlines()) <= 2 + (8 if width == 60 else 4)


def test_a_pipe_has_room_for_everything() -> None:
    code = (
        "from tlbench.base import console; from tlbench.base.columns import Column, FittedTable\n"
        "columns = [Column('file', path=True), Column('size', rank=1), Column('class', fold=True)]\n"
        "console.out.print(FittedTable(columns, [['f' * 150, '12 MB', 'a b ' * 40 + 'c']]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.splitlines()[2].split("  ") == ["f" * 150, "12 MB", "a b " * 40 + "c"]


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("short", 10, "short"),
        ("a/long/path/to/run_12", 12, "a/l…o/run_12"),
        ("写真写真写真/猫.png", 12, "写…真/猫.png"),
    ],
)
def test_shortened(text: str, width: int, expected: str) -> None:
    assert shortened(text, width) == expected


def test_a_column_of_remarks_may_be_empty() -> None:
    console = Console(file=io.StringIO(), width=40)
    console.print(FittedTable([Column("size", "right"), Column("", fold=True)], [["8", ""]]))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.strip() for line in lines] == ["size", lines[1].strip(), "8"]
