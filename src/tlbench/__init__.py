"""tlbench: transfer-learning image classification, from YAML or from Python.

    run = tlbench.train("data=image_folder", "data.root=photos", folder="runs/a")
    run.metrics["test_accuracy"]

Everything is imported when it is first used; the import of this package alone changes nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Config",
    "Interrupted",
    "Run",
    "TlbenchError",
    "bench",
    "compare",
    "compose",
    "load",
    "results",
    "train",
]

if TYPE_CHECKING:
    from tlbench.base.errors import TlbenchError
    from tlbench.base.stopping import Interrupted
    from tlbench.config.compose import compose
    from tlbench.config.schema import Config
    from tlbench.face import bench, compare, load, results, train
    from tlbench.runs.run import Run

_HOMES = {
    **{"Config": "config.schema", "Run": "runs.run", "TlbenchError": "base.errors"},
    **{"compose": "config.compose", "train": "face", "load": "face", "results": "face"},
    **{"bench": "face", "compare": "face", "Interrupted": "base.stopping"},
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tlbench' has no attribute '{name}'")
    import random
    from importlib import import_module

    drawn = random.getstate()  # rich draws a number while it is imported
    try:
        return getattr(import_module(f"tlbench.{_HOMES[name]}"), name)
    finally:
        random.setstate(drawn)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
