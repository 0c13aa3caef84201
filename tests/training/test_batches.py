"""The search for a batch that fits: which sizes are tried, and what a trial measures."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import processes
from helpers import TINY, Answer
from tlbench.networks.hardware import keras
from tlbench.sweep import workers
from tlbench.training.batch_finder import Trial, search

Command = Callable[..., Answer]

MIB = 2**20


def measured(size: int, device: str = "cpu", images: int = 10_000) -> Trial:
    """500 MiB, 10 of an image, and 700 while it compiles."""
    held, step = (500 + 10 * count for count in (1, size))
    peak = max(step, 700)
    return Trial(size, device, images, held * MIB, step * MIB, peak * MIB, 100.0 * size)


def sizes(**options: Any) -> tuple[list[int], list[Trial]]:
    """The batch sizes that were tried, and what was found."""
    begun: list[int] = []

    def measure(size: int) -> Trial:
        begun.append(size)
        return measured(size, options.get("device", "cpu"), options.get("images", 10_000))

    own = {k: v for k, v in options.items() if k not in ("device", "images")}
    return begun, search(measure, **({"available": lambda: 1e15, "most": 4096} | own))


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (1270, [8, 16, 32, 64]),  # 64 images take 1,140 MiB of nine tenths of it
        (1260, [8, 16, 32]),
        (2000, [8, 16, 32, 64, 128]),  # 128 take 1,780 of 1,800
        (1970, [8, 16, 32, 64]),
        (700, [8]),  # what compiles once takes 700
    ],
)
def test_on_a_cpu_a_batch_is_only_tried_where_it_fits(free: int, expected: list[int]) -> None:
    begun, found = sizes(available=lambda: free * MIB)
    assert begun == expected
    assert [trial.fits for trial in found] == [True] * len(begun) + [False]
    assert found[-1].peak_bytes is None


def test_what_a_larger_batch_would_take_is_said() -> None:
    """64 images take 500 + 640 MiB."""
    _, found = sizes(memory_bytes=1000 * MIB)
    assert [trial.batch_size for trial in found] == [8, 16, 32, 64]
    assert found[-1].refusal == "it would take some 1.11 GiB of 0.98 GiB"


def test_what_is_free_at_the_moment_counts() -> None:
    left = [2000, 900]
    begun, _ = sizes(available=lambda: left.pop(0) * MIB)
    assert begun == [8, 16]  # 32 images take 820 MiB, and another program has come


@pytest.mark.parametrize(("bounds", "last"), [({"most": 20}, 16), ({"images": 40}, 32)])
def test_a_batch_is_no_larger_than_asked_or_than_an_epoch(bounds: Any, last: int) -> None:
    begun, found = sizes(**bounds)
    assert begun[-1] == found[-1].batch_size == last
    assert found[-1].fits


def test_on_a_gpu_a_batch_is_tried_until_one_does_not_fit() -> None:
    begun, found = sizes(device="gpu", available=lambda: 0.0, most=64)
    assert begun == [8, 16, 32, 64]
    assert all(trial.fits for trial in found)


def test_where_the_first_does_not_fit_smaller_ones_are_tried() -> None:
    def measure(size: int) -> Trial:
        return measured(size) if size <= 2 else Trial(size, refusal="out of memory")

    found = search(measure)
    assert [(trial.batch_size, trial.fits) for trial in found] == [
        (8, False),
        (4, False),
        (2, True),
    ]


def test_where_not_even_the_network_fits_nothing_smaller_is_tried() -> None:
    begun, found = sizes(memory_bytes=400 * MIB)
    assert begun == [8]
    assert found[0].refusal == "more than 0.39 GiB"


# ---------------------------------------------------------------- processes


def wide(path: Path) -> tuple[str, ...]:
    """A network whose maps of one image take 8 MiB in all, and the words that train it."""
    x = pixels = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(32, 1)(x)
    for _ in range(16):
        x = keras.layers.Activation("tanh")(x)
    keras.Model(pixels, x).save(path)
    return ("data=digits", "backbone=file", f"backbone.weights={path}", "head.widths=[]")


def test_the_batch_that_fits_fits_and_the_next_does_not(tlbench: Command, tmp_path: Path) -> None:
    """What the line through the peaks says of the next batch is held against that batch itself."""
    words = ("find-batch", *wide(tmp_path / "wide.keras"))
    assert tlbench(*words, "--most", "8", "--json", "one.json").code == 0
    (one,) = json.loads(Path("one.json").read_text())
    assert one["images"] == 1294  # of 1,797 a fifth is tested, a tenth of the rest validated
    bound = one["peak_bytes"] / 2**30 + 0.15
    answer = tlbench(*words, "--memory", f"{bound:.3f}", "--json", "found.json")
    assert answer.code == 0, answer.err
    *fitting, refused = json.loads(Path("found.json").read_text())
    assert [trial["refusal"] for trial in fitting] == [""] * len(fitting)
    assert max(trial["peak_bytes"] for trial in fitting) <= bound * 2**30
    largest = fitting[-1]["batch_size"]
    assert largest >= 16
    assert answer.out.splitlines()[-1] == f"batch_size={largest}"
    assert re.search(rf"^ +{largest} .* the largest that fits", answer.out, re.M)
    assert f"batch_size={4 * largest} microbatch={largest}" in answer.out
    assert refused["batch_size"] == 2 * largest
    assert re.fullmatch(r"it would take some [\d.]+ GiB of [\d.]+ GiB", refused["refusal"])
    alone = (*words, f"batch_size={2 * largest}", "--only", "--json", "alone.json")
    assert processes.Command(*alone).rest()[0] == 0
    (next_one,) = json.loads(Path("alone.json").read_text())
    assert next_one["peak_bytes"] > bound * 2**30 * 0.97  # allocators are not exact
    assert not Path("outputs").exists()


def test_a_process_that_a_signal_ends_does_not_fit(
    tlbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    monkeypatch.setattr(workers, "PYTHON", (sys.executable, "-c", code))
    answer = tlbench("find-batch", *TINY)
    assert answer.code == 2
    lines = [
        f"batch_size={size}: killed by SIGKILL, as the system does when memory runs out"
        for size in (8, 4, 2, 1)
    ]
    assert answer.error_lines[:4] == lines
    assert "Not even one image at a time fits." in answer.error_lines[4]


def test_what_a_process_says_of_bad_input_is_passed_on(tlbench: Command) -> None:
    answer = tlbench("find-batch", *TINY, "head=logistic", "head.widths=[]", "trainable=false")
    assert answer.code == 2
    assert "head.solver=logistic solves the head exactly: it has no steps" in answer.error_lines[-1]
    assert answer.out == ""


def test_of_what_is_cached_it_is_said_that_images_are_measured(tlbench: Command) -> None:
    answer = tlbench("find-batch", *TINY, "trainable=false", "--most", "8", "batch_size=64")
    assert answer.code == 0, answer.err
    assert answer.error_lines[0].startswith("Measured on images")
    assert answer.out.splitlines()[-1] == "batch_size=8"


def test_ctrl_c_ends_the_trial_too() -> None:
    command = [sys.executable, "-m", "tlbench", "find-batch", *TINY]
    finder = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    trial = child_of(finder.pid)
    finder.send_signal(signal.SIGINT)
    _, said = finder.communicate(timeout=60)
    assert finder.returncode == 130
    assert "interrupted by SIGINT" in said
    until = time.monotonic() + 30
    while works(trial) and time.monotonic() < until:
        time.sleep(0.1)
    assert not works(trial)


def child_of(process: int) -> int:
    """The first process that another one starts."""
    until = time.monotonic() + 60
    children = Path(f"/proc/{process}/task/{process}/children")
    while time.monotonic() < until:
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.01)
    raise AssertionError


def works(process: int) -> bool:
    """Whether there is a process, and it has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
