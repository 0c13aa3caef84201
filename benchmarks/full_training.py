"""Training every layer at 224 x 224: steps a second of tlbench, of plain Keras and, where torch and timm
are installed, of timm.

Each side is a process of its own that has warmed up; they take turns, the same number of steps of the
same batch size each, so compilation and start-up count for nobody. tlbench trains the accelerated copy
of the network in the precision that `precision=auto` chooses, plain Keras calls `fit` on the same layers
in float32, both from one input pipeline; timm trains its own network of the same name in float32 and in
bfloat16. The default takes some eight minutes on two cores.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import measure
from work import NETWORKS

COLUMNS = (
    "network",
    "side",
    "precision",
    "steps/s",
    "images/s",
    "peak memory",
    "times plain Keras",
)
TIMM = {"resnet50": "resnet50", "mobilenetv3": "mobilenetv3_large_100"}
CLASSES = 20


def main() -> None:
    args = _arguments()
    if args.worker:
        _work(**json.loads(args.worker))
        return
    rows: list[list[str]] = []
    goals: dict[str, str] = {}
    for name in args.networks:
        found = _measure(name, args)
        rows += [_row(name, args, side, found) for side in found] + _missing(name, args)
        best = max((measure.median(f.rates) for s, f in found.items() if "timm" in s), default=None)
        plain, own = found["plain Keras"].rates, found["tlbench"].rates
        text = f"{measure.times(measure.ratio(own, plain))} plain Keras, "
        text += (
            f"{measure.times(measure.median(own) / best)} timm" if best else "timm not installed"
        )
        goals[f"{name} all layers"] = text
    notes = [
        f"Batches of {args.batch_size} images, {args.steps} steps a round after as many to warm up."
    ]
    measure.publish(args, "full_training", COLUMNS, rows, notes=notes, goals=goals)


class Found:
    """What a side's worker gave."""

    def __init__(self, worker: measure.Worker, rates: list[float]) -> None:
        self.precision, self.rates, self.worker = worker.about["precision"], rates, worker


def _measure(name: str, args: argparse.Namespace) -> dict[str, Found]:
    """Steps a second of every side, in turns."""
    shared = {
        "network": name,
        "size": args.image_size,
        "batch": args.batch_size,
        "steps": args.steps,
    }
    sides: dict[str, dict[str, Any]] = {
        "plain Keras": {"side": "plain"},
        "tlbench": {"side": "tlbench"},
    }
    if _timm() and name in TIMM:
        sides["timm"] = {"side": "timm", "precision": "float32"}
        sides["timm, autocast"] = {"side": "timm", "precision": "bfloat16"}
    measure.say(f"{NETWORKS[name].application}: warming up {', '.join(sides)}")
    settings = {side: {**shared, **own} for side, own in sides.items()}
    with measure.workers(__file__, settings) as started:
        asks = {side: worker.ask for side, worker in started.items()}
        rates = measure.alternate(asks, args.repeats)
    return {side: Found(started[side], rates[side]) for side in sides}


def _row(name: str, args: argparse.Namespace, side: str, found: dict[str, Found]) -> list[str]:
    own = found[side]
    rate = measure.median(own.rates)
    gain = measure.times(measure.ratio(own.rates, found["plain Keras"].rates))
    return [
        NETWORKS[name].application,
        side,
        own.precision,
        f"{rate:.3f}",
        f"{rate * args.batch_size:.1f}",
        measure.gib(own.worker.peak_bytes),
        "1" if side == "plain Keras" else gain,
    ]


def _missing(name: str, args: argparse.Namespace) -> list[list[str]]:
    del args
    if _timm():
        return []
    return [
        [NETWORKS[name].application, "timm", "", "torch and timm are not installed", "", "", ""]
    ]


def _timm() -> bool:
    return bool(measure.installed("torch") and measure.installed("timm"))


# ---------------------------------------------------------------- inside a worker


def _work(side: str, network: str, size: int, batch: int, steps: int, **options: str) -> None:
    """Build one side, warm it up, and make `steps` steps whenever asked."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch * steps, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, batch * steps)
    about, train = {"plain": _plain, "tlbench": _tlbench, "timm": _torch}[side](
        network, images, labels, batch, **options
    )
    train()

    def timed() -> float:
        began = time.perf_counter()
        train()
        return steps / (time.perf_counter() - began)

    measure.serve(about, timed)


Side = tuple[dict[str, Any], Callable[[], object]]


def _plain(network: str, images: np.ndarray, labels: np.ndarray, batch: int) -> Side:
    import plain_keras

    known = NETWORKS[network]
    size = images.shape[1]
    model, _ = plain_keras.classifier(
        known.application, size, list(known.widths), images.shape[1:], CLASSES
    )
    plain_keras.compile_model(model, 1e-4)
    batches = plain_keras.pipeline(images, labels, batch)
    return {"precision": "float32"}, lambda: model.fit(batches, verbose=0)


def _tlbench(network: str, images: np.ndarray, labels: np.ndarray, batch: int) -> Side:
    import plain_keras
    from tlbench.networks import hardware
    from tlbench.networks.fused import accelerate

    known = NETWORKS[network]
    machine = hardware.prepare("cpu", 0)
    model, backbone = plain_keras.classifier(
        known.application, images.shape[1], list(known.widths), images.shape[1:], CLASSES
    )
    precision = hardware.training_precision("auto", machine, backbone)
    fast = accelerate(model, precision.policy)
    plain_keras.compile_model(fast, 1e-4)
    batches = plain_keras.pipeline(images, labels, batch)
    return {"precision": precision.policy}, lambda: fast.fit(batches, verbose=0)


def _torch(
    network: str, images: np.ndarray, labels: np.ndarray, batch: int, precision: str = "float32"
) -> Side:
    import timm
    import torch

    torch.set_num_threads(measure.cores())
    model = timm.create_model(TIMM[network], num_classes=CLASSES)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    loss = torch.nn.CrossEntropyLoss()

    def train() -> None:
        for i in range(0, len(images), batch):
            pixels = torch.from_numpy(images[i : i + batch]).permute(0, 3, 1, 2)
            x = (pixels.float() / 255).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                error = loss(model(x), torch.from_numpy(labels[i : i + batch]))
            optimizer.zero_grad()
            error.backward()
            optimizer.step()

    return {"precision": precision}, train


def _arguments() -> argparse.Namespace:
    parser = measure.parser(__doc__)
    parser.add_argument("--steps", type=int, default=4, help="of each side in a round")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument(
        "--networks", nargs="+", choices=NETWORKS, default=["resnet50", "mobilenetv3"]
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny:
        args.repeats, args.steps, args.batch_size, args.image_size = 1, 1, 8, 32
        args.networks = ["small"]
    return args


if __name__ == "__main__":
    main()
