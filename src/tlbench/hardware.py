"""What the machine offers and how a run uses it: device, precision, memory growth, seeds, XLA.

TensorFlow is imported here first, quietly, so a module that needs it imports this one before.
"""

import contextlib
import os
import platform
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tlbench.errors import DeviceError

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@contextlib.contextmanager
def _muted_stderr() -> Iterator[None]:
    """Drop what C++ libraries write to file descriptor 2: Python's own stderr cannot catch that."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


with (
    _muted_stderr()
):  # TensorFlow reports missing CUDA drivers there, on every machine without them
    import keras
    import tensorflow as tf

    _GPUS = tf.config.list_physical_devices("GPU")


@dataclass(frozen=True)
class Hardware:
    """The device, precision and compilation that a run uses, and why."""

    device: str  # "cpu" or "gpu"
    device_name: str
    precision: str  # a Keras dtype policy for training
    jit_compile: bool
    reason: str

    def __str__(self) -> str:
        xla = "XLA" if self.jit_compile else "no XLA"
        return f"{self.device_name}, {self.precision}, {xla} ({self.reason})"


def prepare(device: str, precision: str, seed: int) -> Hardware:
    """Choose the device, let its memory grow, set every seed.

    device: "auto", "cpu" or "gpu"; precision: "auto", "float32", "bfloat16" or "float16".
    Raises DeviceError when a GPU is asked for and none is there.
    """
    if device == "gpu" and not _GPUS:
        raise DeviceError(
            "device=gpu, but TensorFlow finds no GPU. Install the gpu extra and a driver, or use device=auto."
        )
    use_gpu = bool(_GPUS) and device != "cpu"
    with contextlib.suppress(RuntimeError):  # already initialised: a second run in this process
        if use_gpu:
            for gpu in _GPUS:
                tf.config.experimental.set_memory_growth(gpu, True)
        else:
            tf.config.set_visible_devices([], "GPU")
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    if use_gpu:
        return _gpu(precision)
    policy, reason = _policy(precision, "float32", "the exact one on a CPU")
    return Hardware("cpu", cpu_name(), policy, jit_compile=False, reason=reason)


def _gpu(precision: str) -> Hardware:
    details = tf.config.experimental.get_device_details(_GPUS[0])
    tensor_cores = details.get("compute_capability", (0, 0)) >= (8, 0)
    best = "mixed_bfloat16" if tensor_cores else "float32"
    policy, reason = _policy(precision, best, "the fastest that keeps float32's range on this GPU")
    return Hardware(
        "gpu", details.get("device_name", "GPU"), policy, jit_compile=True, reason=reason
    )


def _policy(asked: str, auto: str, why: str) -> tuple[str, str]:
    """A Keras dtype policy for a precision setting, and the reason to print."""
    if asked == "auto":
        return auto, why
    return (
        "float32" if asked == "float32" else f"mixed_{asked}"
    ), f"precision={asked} was asked for"


def cpu_name() -> str:
    """The processor's own name where the system tells it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:  # noqa: PTH123
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def peak_memory_bytes() -> int:
    """The most memory this process has held at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe() -> dict[str, object]:
    """The machine for a run's manifest: processor, cores, memory, system, GPUs."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": pages,
        "system": platform.platform(),
        "gpus": [tf.config.experimental.get_device_details(g).get("device_name") for g in _GPUS],
    }
