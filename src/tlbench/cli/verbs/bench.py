"""`tlbench bench [overrides]`: which backbone suits the data, and whether there is enough of it."""

import re
import shutil
import textwrap
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tlbench.base.text import printable
from tlbench.cli import quiet, signals

ABOUT = "which backbone suits your pictures, and are they enough: a table in minutes"
EXAMPLE = """
tlbench bench data=image_folder data.root=photos
tlbench bench backbone=mobilenetv3,resnet50 data=digits --time 10m
"""


def run(words: list[str]) -> int:
    """0: every row is there; 1: some failed, or there was no time for them."""
    asked = _parser().parse_intermixed_args(words)
    from tlbench.bench import entries, settings
    from tlbench.data import sources

    seconds = _seconds(asked.time)
    own = [word for word in asked.words if word.startswith(settings.PREFIX)]
    rest = [word for word in asked.words if word not in own]
    chosen = settings.load(own)
    compared = entries.entries(rest, chosen, asked.config_dir)
    for entry in compared:
        sources.check(entry.cfg.data)
    folder = _folder(asked.out)
    quiet.import_tensorflow()
    from tlbench.bench.bench import bench
    from tlbench.bench.written import write
    from tlbench.config.words import command

    again = ["--out", str(folder), *(["--time", asked.time] if asked.time else [])]
    again += ["--config-dir", asked.config_dir] if asked.config_dir else []
    with signals.heard() as stopping:
        stopping.resume_command = command("bench", *asked.words, *again)
        cells = bench(compared, chosen, folder, seconds)
        rows = write(cells, compared, folder, stopping.resume_command)
    flags = ["--config-dir", asked.config_dir] if asked.config_dir else []
    _show(rows, folder, [*rest, *flags])
    return 1 if any(row.cell.reason for row in rows) else 0


def candidates(words: list[str]) -> list[str]:
    if words[-1].startswith("-"):
        return _parser().candidates(words)
    from tlbench.cli import hydra

    return hydra.candidates(words)


def _settings() -> list[str]:
    """The bench's own settings, as conf/bench.yaml has and explains them."""
    from tlbench.bench.settings import PREFIX
    from tlbench.config.compose import conf_dir

    width = max(40, shutil.get_terminal_size().columns - 2)
    lines = ["", "settings of its own, set as in bench.draws=10:"]
    for line in (conf_dir() / "bench.yaml").read_text(encoding="utf-8").splitlines():
        setting, _, comment = (part.strip() for part in line.partition("#"))
        if setting:
            name, _, value = setting.partition(": ")
            lines.append(f"  {PREFIX}{name}={value.replace(', ', ',')}")
            lines += textwrap.wrap(
                comment, width, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
    return lines


def _parser() -> Any:
    from tlbench.cli.arguments import Parser

    class BenchParser(Parser):
        def format_help(self) -> str:
            return "\n".join([super().format_help().rstrip("\n"), *_settings(), ""])

    parser = BenchParser(
        "bench",
        "Compare pretrained backbones on your pictures: few-shot and full accuracy of\n"
        "heads that are solved exactly, what they cost, what zero looks like, and what\n"
        "twice the pictures would bring. Settings are those of train; backbone= and data=\n"
        "may have several values.",
        example=EXAMPLE,
    )
    parser.add_argument("words", metavar="key=value", nargs="*", help="settings, as for train")
    help_time = "begin nothing more after so long, the promising first: 90s, 10m, 2h"
    parser.add_argument("--time", metavar="TIME", help=help_time)
    help_out = "the folder to write, or to go on with"
    parser.add_argument("--out", metavar="DIR", help=help_out)
    help_own = "a folder of your own YAML, as for train"
    parser.add_argument("--config-dir", metavar="DIR", help=help_own)
    return parser


def _seconds(time: str | None) -> float:
    from tlbench.base.errors import ConfigError

    if time is None:
        return float("inf")
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", time)
    if not time or not parts:
        raise ConfigError(f"--time {time} is no time. Expected one such as 90s, 10m or 1h30m.")
    hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return 3600 * hours + 60 * minutes + seconds


def _folder(asked: str | None) -> Path:
    """The folder of the bench: a new one, or one that a bench has begun."""
    from tlbench.base.errors import ConfigError
    from tlbench.bench.cells import MEASURED
    from tlbench.cli import targets
    from tlbench.config.words import expanded
    from tlbench.sweep import folders

    if asked is None:
        name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_bench"
        folder = folders.claimed(Path("outputs") / name)
        targets.check_folder("Without --out,", folder)
        return folder
    folder = Path(expanded(asked))
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--out {folder} is a file. Expected a folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MEASURED).is_dir():
        raise ConfigError(f"--out {folder} holds other things. Choose a new folder, or a bench's.")
    targets.check_folder("--out", folder)
    return folder


def _show(rows: Sequence[Any], folder: Path, words: Sequence[str]) -> None:
    from rich.text import Text

    from tlbench.base import console
    from tlbench.bench import table, written

    data = list(dict.fromkeys(row.cell.data for row in rows))
    for name in data:
        console.out.print(table.table(rows, name))
        said = [*table.sentences(rows, name), *table.reasons(rows, name, failed=False)]
        if failed := [row.cell.name for row in rows if row.cell.data == name and row.cell.failed]:
            said.append(f"Failed, as said above and in bench.html: {', '.join(failed)}.")
        for line in said:
            console.out.print(Text(printable(line)))
        console.out.print()
    if len(data) > 1:
        console.out.print(Text(table.ranks(rows)))
    for line in written.next_commands(rows, words):
        console.out.print(Text(line), soft_wrap=True)
    console.out.print("written to", console.path(folder), soft_wrap=True)
