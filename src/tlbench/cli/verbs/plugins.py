"""`tlbench plugins`: what is installed at each seam, and which package brings it."""

from tlbench.base.text import printable
from tlbench.cli.arguments import Parser

ABOUT = "list the backbones, sources, augmentations and trackers that are installed"
EXAMPLE = "tlbench plugins"


def run(words: list[str]) -> int:
    """0: all can be used; 1: some are left out, each named in a warning."""
    _parser().parse_args(words)
    from tlbench.base import console, registry
    from tlbench.base.columns import Column, FittedTable

    found = [plugin for seam in registry.SEAMS for plugin in registry.plugins(seam).values()]
    usable = [plugin for plugin in found if not plugin.trouble]
    rows = [[p.seam, p.name, p.package, p.version] for p in usable]
    cells = [[printable(cell) for cell in row] for row in rows]
    columns = (
        Column("kind"),
        Column("name"),
        Column("package", path=True),
        Column("version", rank=1),
    )
    console.out.print(FittedTable(columns, cells))
    for plugin in found:
        if plugin.trouble:
            what = f"{plugin.seam} '{plugin.name}' of {plugin.package}"
            console.say(f"tlbench: left out {what}: {plugin.trouble}", style="warn")
    return 0 if len(usable) == len(found) else 1


def candidates(words: list[str]) -> list[str]:
    return _parser().candidates(words)


def _parser() -> Parser:
    return Parser(
        "plugins",
        "List what can be named in YAML: builders of backbones (backbone.builder), data\n"
        "sources (data.source), augmentations (augment.NAME) and trackers (tracker),\n"
        "tlbench's own and those of installed packages.",
        example=EXAMPLE,
    )
