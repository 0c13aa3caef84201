"""What a bench leaves: bench.csv, bench.json and bench.html in its folder, and the commands that train the winner."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tlbench import __version__
from tlbench.base.files import write_json, write_text
from tlbench.bench import page, table
from tlbench.bench import rows as together
from tlbench.bench.cells import Cell
from tlbench.bench.entries import Entry
from tlbench.bench.rows import Row
from tlbench.config.words import command
from tlbench.networks import hardware

CSV, JSON, PAGE = "bench.csv", "bench.json", "bench.html"


def write(cells: Sequence[Cell], entries: Sequence[Entry], folder: Path, typed: str) -> list[Row]:
    """Write what the cells say together; typed: the command. Returns the rows, as they are shown."""
    rows = together.rows(cells, entries[0].cfg.seed)
    about = {
        "command": typed,
        "version": __version__,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        **hardware.describe(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    data = dict.fromkeys(row.cell.data for row in rows)
    found = {
        "data": {name: {"unreadable": together.unreadable(rows, name)} for name in data},
        "rows": [together.record(row) for row in rows],
    }
    write_json(folder / JSON, about | found)
    write_text(folder / CSV, table.as_csv(rows))
    write_text(folder / PAGE, page.html(rows, about))
    return rows


def next_commands(rows: Sequence[Row], words: Sequence[str]) -> list[str]:
    """What trains the winner of each data set, as it can be typed."""
    found = []
    for row in rows:
        if not row.best:
            continue
        own = [word for word in words if not word.startswith(("backbone", "data"))]
        chosen = [*row.cell.facts["words"], *row.cell.facts["data_words"]]
        typed = ["train", *chosen, *own, "head=logistic"]
        tuned = command(*typed, "strategy=probe_finetune", "trainable=true")
        found += [f"train it    {command(*typed)}", f"fine-tune   {tuned}"]
    return found
