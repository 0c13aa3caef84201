"""Draws docs/structure.svg, the rooms of src/tlbench and their imports, from the code: python docs/structure.py"""

import ast
from collections import Counter
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

SRC = Path(__file__).parents[1] / "src" / "tlbench"
# From the ground up, as tests/test_house.py holds it.
FLOORS = (
    *(("base",), ("config",), ("runs",), ("data",), ("networks",), ("features",), ("probing",)),
    *(("training", "inference", "report"), ("bench", "inspection"), ("sweep",), ("cli",)),
)
INK, PAPER, ROOM, ARROW = "#222222", "#ffffff", "#eef3f8", "#0072B2"


def main() -> None:
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tlbench"}):
        figure = Figure(figsize=(9, 11), facecolor=PAPER)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 9), ylim=(-0.3, len(FLOORS) * 1.2))
        axes.axis("off")
        places = {room: place(room) for floor in FLOORS for room in floor}
        for (upper, lower), count in imports().items():
            draw_arrow(axes, places[upper], places[lower], count)
        for room, (x, y, width) in places.items():
            draw_room(axes, room, x, y, width)
        target = Path(__file__).with_name("structure.svg")
        figure.savefig(target, metadata={"Date": None})
        print(f"written to {target}")


def place(room: str) -> tuple[float, float, float]:
    """Left, bottom and width of a room."""
    for number, floor in enumerate(FLOORS):
        if room in floor:
            width = 8.2 / len(floor) - 0.2
            return 0.5 + floor.index(room) * 8.2 / len(floor), number * 1.2, width
    raise ValueError(room)


def imports() -> Counter[tuple[str, str]]:
    """(room, room it imports from) -> how many of its files do."""
    found: Counter[tuple[str, str]] = Counter()
    for path in sorted(SRC.rglob("*.py")):
        own = path.relative_to(SRC).parts[0]
        if own.endswith(".py"):
            continue
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        rooms = {m.split(".")[1] for m in modules if m.startswith("tlbench.")}
        found.update((own, room) for room in sorted(rooms - {own}))
    return found


def draw_room(axes, room: str, x: float, y: float, width: float) -> None:
    shape = FancyBboxPatch((x, y), width, 0.72, boxstyle="round,pad=0.02,rounding_size=0.08")
    shape.set(facecolor=ROOM, edgecolor=INK, linewidth=0.8)
    axes.add_patch(shape)
    axes.text(x + 0.12, y + 0.5, room, weight="bold", size=11, va="center", color=INK)
    names = sorted(path.stem for path in (SRC / room).iterdir() if shows(path))
    axes.text(x + 0.12, y + 0.2, wrapped(names, width), size=7.2, va="center", color=INK)


def shows(path: Path) -> bool:
    return (path.suffix == ".py" or path.is_dir()) and not path.name.startswith("__")


def wrapped(names: list[str], width: float) -> str:
    """Names in as many lines as the room is wide for."""
    lines, most = [""], int(width * 17)
    for name in names:
        if len(lines[-1]) + len(name) > most:
            lines.append("")
        lines[-1] += f"{name}   "
    return "\n".join(line.rstrip() for line in lines)


def draw_arrow(axes, upper, lower, count: int) -> None:
    """From the bottom of a room to the top of one below it, as thick as there are imports."""
    share = 0.15 + 0.7 * (lower[1] / (len(FLOORS) * 1.2))  # arrows to one room stand apart
    start = (upper[0] + upper[2] * share, upper[1])
    end = (lower[0] + lower[2] * (0.1 + 0.8 * (start[0] - 0.5) / 8.2), lower[1] + 0.74)
    arrow = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7)
    arrow.set(color=ARROW, alpha=0.45, linewidth=0.5 + 0.18 * count, zorder=0)
    axes.add_patch(arrow)


if __name__ == "__main__":
    main()
