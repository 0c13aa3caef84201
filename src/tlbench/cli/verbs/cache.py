"""`tlbench cache [--prune GB | --clear]`: the frozen features on disk, and the index of pictures."""

from pathlib import Path

from tlbench.base.errors import ConfigError
from tlbench.base.text import counted, printable
from tlbench.cli.arguments import Parser

ABOUT = "list the frozen features on disk, or remove some"
EXAMPLE = "tlbench cache --prune 5"


def run(words: list[str]) -> int:
    asked = _parser().parse_args(words)
    if asked.prune is not None and asked.prune < 0:
        raise ConfigError(f"--prune {asked.prune} is not valid. Expected at least 0.")
    from tlbench.base import console
    from tlbench.config.compose import cache_folders
    from tlbench.features.housekeeping import clear, listing, prune

    folder, index = cache_folders()
    folder = Path(asked.folder) if asked.folder else folder
    if asked.clear or asked.prune is not None:
        emptied = clear(folder) if asked.clear else prune(folder, asked.prune * 2**30)
        freed = sum(entry.size for entry in emptied.removed) / 2**20
        what = counted(len(emptied.removed), "entry", "entries")
        console.out.print(f"removed {what}, {freed:,.1f} MiB")
        for line in emptied.left:
            text = f"left {printable(line)}"
            console.err.print(text, style="warn", markup=False, soft_wrap=True)
    console.out.print(listing(folder))
    if not asked.folder:
        _index(index, clear=asked.clear)
    return 0


def _index(folder: Path, *, clear: bool) -> None:
    """How many pictures are known, in one line; `clear` forgets them first."""
    from tlbench.base import console
    from tlbench.data import known

    if clear:
        known.clear(folder)
    line = f"{counted(known.count(folder), 'picture is', 'pictures are')} known in {folder}"
    console.out.print(printable(line), style="hint", markup=False, soft_wrap=True)


def candidates(words: list[str]) -> list[str]:
    return _parser().candidates(words)


def _parser() -> Parser:
    parser = Parser(
        "cache",
        "List the frozen features that trainings have left on disk, or remove some of\n"
        "them, and tell how many pictures are known to be readable. What was removed is\n"
        "computed or read again when a training needs it.",
        example="tlbench cache\ntlbench cache --prune 5",
    )
    parser.add_argument("--folder", help="another cache than features.folder of conf/train.yaml")
    some = parser.add_mutually_exclusive_group()
    help_prune = "remove the least recently used until the rest is below GB"
    some.add_argument("--prune", metavar="GB", type=float, help=help_prune)
    some.add_argument("--clear", action="store_true", help="remove everything that is not in use")
    return parser
