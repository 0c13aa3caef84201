"""Tables at any width: nothing that decides is cut, no word or number broken."""

import io

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
