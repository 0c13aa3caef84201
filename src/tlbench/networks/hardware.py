"""What the machine offers and how a run uses it: device, precision, memory growth, seeds, XLA.

TensorFlow is imported here first, quietly, so a module that needs it imports this one before.
"""

import contextlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass

from tlbench.base import memory
from tlbench.base.errors import DeviceError
from tlbench.base.muted import muted_stderr
from tlbench.base.stopping import JOB


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TensorFlow reports missing CUDA drivers while it is imported, and reads once how much it is to say later."""
    asked = "TF_CPP_MIN_LOG_LEVEL" in os.environ
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with muted_stderr():
            yield
    finally:
        if not asked:
            del os.environ["TF_CPP_MIN_LOG_LEVEL"]


def _let_threads_sleep() -> None:
    """Have threads that wait for work leave their core to the jobs beside this one.

    TensorFlow has them spin, which took up to a quarter of the CPU time of a head's short steps. Their number, which
    decides how sums are divided, stays: so does every bit.
    """
    config = tf.compat.v1.ConfigProto()
    config.experimental.disable_thread_spinning = True
    context.context()._config = (
        config  # read when the devices are first asked for; there is no public way
    )


with _quiet():
    import keras
    import tensorflow as tf
    from tensorflow.python.eager import context
    from tensorflow.python.framework.ops import gradient_registry

    if os.environ.get(JOB, "1") != "1":
        _let_threads_sleep()
    _GPUS = tf.config.list_physical_devices("GPU")

__all__ = [
    "Machine",
    "Precision",
    "describe",
    "enough_memory",
    "forget_networks",
    "keras",
    "policy",
    "prepare",
    "tf",
    "training_precision",
]

BFLOAT16_FLAGS = frozenset(["amx_bf16", "avx512_bf16"])  # processors that multiply it natively


@dataclass(frozen=True)
class Machine:
    """The device that a run uses."""

    device: str  # "cpu" or "gpu"
    name: str
    bfloat16: bool  # whether it multiplies bfloat16 faster than float32
    jit_compile: bool  # whether XLA pays: on GPUs it does, on CPUs it is many times slower


@dataclass(frozen=True)
class Precision:
    """A Keras dtype policy and why it was chosen."""

    policy: str
    reason: str


def prepare(device: str, seed: int, *, repeatable: bool = True) -> Machine:
    """Choose the device, let its memory grow, set every seed.

    device: "auto", "cpu" or "gpu"; repeatable: the same seed gives the same bits, on a GPU at the price of
    speed (a CPU always does). Raises DeviceError when a GPU is asked for and none is there.
    """
    if device == "gpu" and not _GPUS:
        raise DeviceError(
            "device=gpu, but TensorFlow finds no GPU. Install the gpu extra and a driver, or train with "
            "device=auto; a run that began on a GPU goes on where there is one."
        )
    use_gpu = bool(_GPUS) and device != "cpu"
    with contextlib.suppress(RuntimeError):  # already initialised: a second run in this process
        if use_gpu:
            for gpu in _GPUS:
                tf.config.experimental.set_memory_growth(gpu, True)
        else:
            tf.config.set_visible_devices([], "GPU")
    keras.utils.set_random_seed(seed)
    # TF32 would round what is called float32, on a GPU that has it, to ten bits.
    tf.config.experimental.enable_tensor_float_32_execution(not repeatable)
    if repeatable or not use_gpu:
        tf.config.experimental.enable_op_determinism()
    if use_gpu:
        details = tf.config.experimental.get_device_details(_GPUS[0])
        ampere = details.get("compute_capability", (0, 0)) >= (8, 0)
        return Machine("gpu", details.get("device_name", "GPU"), ampere, jit_compile=True)
    return Machine("cpu", cpu_name(), bool(BFLOAT16_FLAGS & _cpu_flags()), jit_compile=False)


def peak_bytes(machine: Machine) -> int:
    """The most memory that this process has held at once: of the GPU where it computes there."""
    return _of_gpu("peak") if machine.device == "gpu" else memory.peak_bytes()


def held_bytes(machine: Machine) -> int:
    """The memory that it holds now."""
    return _of_gpu("current") if machine.device == "gpu" else memory.resident_bytes()


def forget_peak(machine: Machine) -> None:
    """Count the most that is held from now on."""
    if machine.device == "gpu":
        tf.config.experimental.reset_memory_stats("GPU:0")
    else:
        memory.forget_peak()


def _of_gpu(what: str) -> int:
    return int(tf.config.experimental.get_memory_info("GPU:0")[what])


def forget_networks() -> None:
    """Let go of networks that nobody has any more, and count names of layers anew: for a process of several jobs."""
    keras.utils.clear_session(free_memory=False)
    # TensorFlow registers the gradient of every custom_gradient that it traces, and by it holds the whole graph. Keras
    # traces one in each train step.
    for name in [n for n in gradient_registry.list() if n.startswith("CustomGradient-")]:
        del gradient_registry._registry[name]


@contextlib.contextmanager
def enough_memory(setting: str) -> Iterator[None]:
    """Name the setting to lower, as it was typed, where the block runs out of memory."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise DeviceError(
            f"Out of memory at {setting}. Lower it, or backbone.image_size."
        ) from error


def policy(precision: str) -> str:
    """The Keras dtype policy of a precision: variables stay float32 in each."""
    return "float32" if precision == "float32" else f"mixed_{precision}"


def training_precision(asked: str, machine: Machine, network: keras.Model) -> Precision:
    """The precision to train a network in; asked: "auto", "float32", "bfloat16" or "float16"."""
    if asked != "auto":
        return Precision(policy(asked), f"precision={asked} was asked for")
    if not machine.bfloat16:
        return Precision("float32", f"this {machine.device} is not faster in bfloat16")
    if machine.device == "cpu" and _has_depthwise(network):
        return Precision("float32", "depthwise convolutions are slower in bfloat16 on a CPU")
    return Precision("mixed_bfloat16", f"this {machine.device} multiplies bfloat16 faster")


def _has_depthwise(network: keras.Model) -> bool:
    kinds = (keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
    return any(isinstance(layer, kinds) for layer in network.layers)


def _cpu_flags() -> set[str]:
    """Instruction sets of the processor, as Linux names them."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:  # noqa: PTH123
        for line in lines:
            if line.startswith("flags"):
                return set(line.split(":", 1)[1].split())
    return set()


def cpu_name() -> str:
    """The processor's own name where the system tells it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:  # noqa: PTH123
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


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
