"""Optional packages that run models, imported without what they would send home.

Both OpenVINO and ONNX Runtime report their use over the network by default and leave an identifier in
the home folder, from the moment they are imported. Import them through here and they do neither.
"""

import importlib
import importlib.util
import os
import sys
from types import ModuleType

from tlbench.base.errors import ExportError


def openvino() -> ModuleType:
    """OpenVINO without its telemetry: it has a stand-in for when that package is not installed."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")


def onnxruntime() -> ModuleType:
    """ONNX Runtime without its telemetry, which only this variable keeps from starting."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    return importlib.import_module("onnxruntime")


def litert() -> ModuleType:
    """LiteRT's interpreter; it reports nothing."""
    return importlib.import_module("ai_edge_litert.interpreter")


def require(packages: tuple[str, ...], purpose: str) -> None:
    """Raise ExportError, naming the extra, when one of the packages is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(
            f"{purpose} needs {', '.join(missing)}, not installed here. Run: pip install 'tlbench[export]'"
        )
