"""The largest batch that fits, found by trials of ever larger ones. No TensorFlow: a trial has a process of its own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tlbench.base import memory

FIRST = 8  # images of the first batch that is tried
LEFT = 0.1  # share of a machine's free memory that stays free


@dataclass(frozen=True)
class Trial:
    """What some steps of a batch took; refusal: why it does not fit, "" where it does.

    device: "cpu" or "gpu", whose memory is meant; images: of the training split; held_bytes: after a first step of one
    image; step_bytes: at most from then on; peak_bytes: at most in all, what compiles included. A batch that does not
    fit may tell none of this.
    """

    batch_size: int
    device: str = "cpu"
    images: int = 0
    held_bytes: int | None = None
    step_bytes: int | None = None
    peak_bytes: int | None = None
    images_per_second: float | None = None
    refusal: str = ""

    @property
    def fits(self) -> bool:
        return not self.refusal


def search(
    measure: Callable[[int], Trial],
    most: int | None = None,
    memory_bytes: float = math.inf,
    available: Callable[[], float] = memory.available_bytes,
) -> list[Trial]:
    """Trials of batches that double, up to the first that does not fit; where none does, of ever smaller ones.

    measure: tries a batch size; most: images of a batch; memory_bytes: that it may take. On a CPU a batch is only tried
    where the line through the peaks before it stays within what is `available`: nothing else has to give way.
    """
    most = most or 2**31

    def tried(size: int) -> Trial:
        trial = measure(size)
        if trial.fits and (trial.peak_bytes or 0) > memory_bytes:
            return replace(trial, refusal=f"more than {gib(memory_bytes)}")
        return trial

    size = min(FIRST, most)
    trials = [tried(size)]
    if not trials[0].fits:
        while not trials[-1].fits and size > 1 and (trials[-1].held_bytes or 0) < memory_bytes:
            size //= 2
            trials.append(tried(size))
        return trials
    while trials[-1].fits and 2 * size <= min(most, trials[0].images):
        size *= 2
        needed, room = _expected(trials, size), memory_bytes
        if trials[0].device == "cpu":
            room = min(room, (1 - LEFT) * available())
        refusal = f"it would take some {gib(needed)} of {gib(room)}"
        untried = Trial(size, trials[0].device, trials[0].images, refusal=refusal)
        trials.append(tried(size) if needed <= room else untried)
    return trials


def _expected(trials: Sequence[Trial], size: int) -> float:
    """The peak of a larger batch: on the line through its last two steps, the first of all that of one image."""
    points = [(1, trials[0].held_bytes), *((each.batch_size, each.step_bytes) for each in trials)]
    (few, less), (many, more) = ((images, taken or 0) for images, taken in points[-2:])
    step = more + max(0, more - less) / (many - few) * (size - many)
    return max(step, trials[-1].peak_bytes or 0)


def gib(count: float) -> str:
    """Bytes in words."""
    return f"{count / 2**30:,.2f} GiB"
