"""The house: which room imports which, what is imported at the top, and how long a file or a function is."""

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "tlbench"
FILES = sorted(SRC.rglob("*.py"))
# From the ground up: a room imports from those before it. Rooms of one line do not know each other.
FLOORS = (
    ("base",),
    ("config",),
    ("runs",),
    ("data",),
    ("networks",),
    ("features",),
    ("probing",),
    ("training", "inference", "report"),
    ("bench", "inspection"),
    ("sweep",),
    ("cli",),
    ("face",),
    ("__init__", "__main__"),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
# Who may import these at the top; inside of a function a library is imported where it is needed.
LIBRARIES = {
    "tensorflow": {"networks"},
    "keras": {"networks"},
    "hydra": {"config", "sweep", "cli"},
    "rich": {"base", "runs", "report", "bench", "cli", "sweep"},
    "matplotlib": {"runs", "report"},
}
LONG = {"cli/verbs/report.py": "the parser"}  # functions over 40 lines, and the reason


def room_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every module that a file imports, and whether it does so at the top."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, id(node) in top) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{name.name}", id(node) in top) for name in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_a_room_imports_from_those_below_it_alone(path: Path) -> None:
    own = room_of(path)
    for name, _ in imports(path):
        parts = name.split(".")
        if parts[0] != "tlbench" or parts[1] in ("__version__", own):
            continue
        assert FLOOR[parts[1]] < FLOOR[own], f"{path} imports {name}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_heavy_library_is_imported_where_it_belongs(library: str) -> None:
    for path in FILES:
        names = [name for name, top in imports(path) if top and name.split(".")[0] == library]
        assert not names or room_of(path) in LIBRARIES[library], f"{path} imports {names}"


def test_files_and_functions_are_short() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                where = str(path.relative_to(SRC))
                assert lines <= 40 or where in LONG, f"{where}: {node.name} has {lines} lines"


# Names that their libraries do not promise to keep, each with what has no public way. What is pinned in
# pyproject.toml has them; an upgrade that moves one fails here first.
PRIVATE = {
    "hydra._internal.hydra.Hydra": "composes with the user's own YAML before ours",
    "hydra._internal.utils.create_config_search_path": "the same",
    "hydra._internal.utils.get_args_parser": "Hydra's flags, to refuse what is none in one line",
    "keras.src.datasets.cifar.load_batch": "reads CIFAR's pickles without running any",
    "omegaconf._utils.get_yaml_loader": "reads YAML as Hydra does",
    "tensorflow.python.eager.context": "has threads sleep while they wait",
    "tensorflow.python.framework.convert_to_constants.convert_variables_to_constants_v2": (
        "freezes variables, as TensorFlow Lite's converter does"
    ),
    "tensorflow.python.framework.ops.gradient_registry": "holds graphs of networks that are gone",
}


def test_private_names_of_other_libraries_are_few_and_there() -> None:
    used = {
        name
        for path in FILES
        for name, _ in imports(path)
        if re.search(r"\._(?!_)|\.src\.|^tensorflow\.python", name) and "tlbench" not in name
    }
    assert used == set(PRIVATE)
    for name in PRIVATE:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute)
    # Methods and attributes: layers inside of layers, their calls, what these are given, what keeps a layer from new
    # state, that registry's, a context's own settings, and what Hydra offers on Tab.
    import keras
    from hydra.plugins.completion_plugin import DefaultCompletionPlugin
    from tensorflow.python.eager import context
    from tensorflow.python.framework.ops import gradient_registry

    called = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]).layers[0]
    assert len(called._inbound_nodes) == 1
    assert len(keras.Sequential([keras.Input((1,)), called])._functional._nodes_by_depth) == 2
    assert not called._outbound_nodes
    assert called._call_has_context_arg == {"training": True}
    assert called._tracker.locked
    assert "MatMul" in gradient_registry._registry
    assert hasattr(context.context(), "_config")
    assert callable(keras.Layer._flatten_layers)
    assert callable(DefaultCompletionPlugin._query)


def test_every_room_is_in_the_picture() -> None:
    rooms = {path.name for path in SRC.iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= set(FLOOR)


def test_the_drawing_is_of_today() -> None:
    drawn = (SRC.parents[1] / "docs" / "structure.svg").read_text(encoding="utf-8")
    words = set(re.findall(r"[\w]+", " ".join(re.findall(r">([^<]+)</text>", drawn))))
    for path in FILES:
        own = path.relative_to(SRC).parts
        if len(own) == 2 and not own[1].startswith("__"):
            assert path.stem in words, (
                f"{path} is not in docs/structure.svg: python docs/structure.py"
            )


TENSORFLOW = {"tensorflow", "keras"}
SHOWS = {"rich", "numpy", "PIL", "matplotlib", "h5py", "yaml"}  # of what a result is made and shown
COMPOSES = {"hydra", "omegaconf"}
# A command, or a line under Tab -> what its answer does without.
WITHOUT = {
    "--help": TENSORFLOW | SHOWS | COMPOSES,
    "--version": TENSORFLOW | SHOWS | COMPOSES,
    "-sc install=bash": TENSORFLOW | SHOWS | COMPOSES,
    "Tab: tlbench ev": TENSORFLOW | SHOWS | COMPOSES,
    "Tab: tlbench evaluate --a": TENSORFLOW | SHOWS | COMPOSES,
    "Tab: tlbench predict --to": TENSORFLOW | SHOWS | COMPOSES,
    "Tab: tlbench export --format on": TENSORFLOW | SHOWS | COMPOSES,
    "Tab: tlbench report --sort ev": TENSORFLOW | SHOWS | COMPOSES,
    "Tab: tlbench cache --pr": TENSORFLOW | SHOWS | COMPOSES,
    "Tab: tlbench bench --ti": TENSORFLOW | SHOWS | COMPOSES,
    "Tab: tlbench plugins --h": TENSORFLOW | SHOWS | COMPOSES,
    "Tab: tlbench find-rate --lo": TENSORFLOW | SHOWS | COMPOSES,
    "Tab: tlbench find-batch head.wi": TENSORFLOW | SHOWS - {"yaml"},
    "Tab: tlbench train head.wi": TENSORFLOW | SHOWS - {"yaml"},
    "Tab: tlbench summary backbone=mobilenetv": TENSORFLOW | SHOWS - {"yaml"},
    "cache": TENSORFLOW,
    "report runs": TENSORFLOW,
}


@pytest.mark.parametrize("line", WITHOUT)
def test_what_answers_at_once_imports_little(line: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    tab = line.startswith("Tab: ")
    words = ["-sc", "query=bash"] if tab else line.split()
    code = (
        "import sys; from tlbench.cli.main import main; "
        f"main({words!r}); print(*sorted({WITHOUT[line]!r} & set(sys.modules)), 'are imported')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"COMP_LINE": line.removeprefix("Tab: ")},
        capture_output=True,
        text=True,
        check=True,
    )
    *answer, imported = done.stdout.splitlines()
    assert imported == "are imported"
    assert answer or not tab  # something was offered


def test_the_package_alone_imports_next_to_nothing() -> None:
    code = "import sys, tlbench; print(sorted({'tensorflow', 'hydra', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
