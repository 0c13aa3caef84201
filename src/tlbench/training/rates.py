"""What a range test saw, and the learning rates that it suggests."""

import math
from dataclasses import dataclass, field

import numpy as np

KEPT = 0.9  # of the smoothed loss from one step to the next
FEW = 10  # steps that a smoothed loss is mostly the mean of
DIVERGED = 4  # times the least smoothed loss, from where a higher rate tells nothing more
SETTLING = 0.1  # share of the steps after which the smoothed loss is one
BEGUN = 0.05  # share of a fall that is behind where it begins
LEAST_SHARE = 0.01  # of the loss, that a fall is worth a suggestion
LEAST_FALL = (
    9  # deviations of the smoothed loss by chance: 3,000 curves of noise alone fell by 8.5 at most
)


@dataclass
class Curve:
    """The loss of each step while the rate rises.

    stage: whose rate it is; rates: of the head, where each block has its own; smoothed: exponential means of the
    losses, without their bias to zero (Kingma and Ba 2015).
    """

    stage: str
    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    _mean: float = 0.0

    def add(self, rate: float, loss: float) -> None:
        """One more step."""
        self.rates.append(rate)
        self.losses.append(loss)
        self._mean = KEPT * self._mean + (1 - KEPT) * loss
        self.smoothed.append(self._mean / (1 - KEPT ** len(self.losses)))

    @property
    def diverged(self) -> bool:
        """Whether the last step's loss is lost; a mean of few steps tells nothing unless it is no number."""
        last = self.smoothed[-1]
        return not math.isfinite(last) or last > DIVERGED * min(self.smoothed[FEW:], default=last)


@dataclass(frozen=True)
class Suggestion:
    """Learning rates: `steepest` and `valley`, and from where to where the loss falls; open_ended: if not further."""

    steepest: float
    valley: float
    first: float
    last: float
    open_ended: bool


def suggest(curve: Curve) -> Suggestion | None:
    """What a curve suggests; None where its loss does not fall, or by no more than chance has it.

    valley: two thirds along the longest fall, in the logarithm of the rate, as fastai's documentation of lr_find has
    it (its code takes the middle). steepest: where within that fall the loss falls fastest.
    """
    known = np.isfinite(curve.smoothed)
    settling = round(SETTLING * len(known))
    known[:settling] = False
    rates, losses = np.log(curve.rates)[known], np.array(curve.smoothed)[known]
    if len(losses) < 2:
        return None
    last = _end_of_longest_fall(losses)
    top = losses[: last + 1].max()
    fall = top - losses[last]
    if fall <= max(LEAST_FALL * _deviation(np.array(curve.losses)), LEAST_SHARE * top):
        return None
    first = int(np.flatnonzero(losses[: last + 1] >= top - BEGUN * fall)[-1])
    slopes = np.gradient(losses, rates)[first : last + 1]
    return Suggestion(
        steepest=math.exp(rates[first + slopes.argmin()]),
        valley=math.exp((rates[first] + 2 * rates[last]) / 3),
        first=math.exp(rates[first]),
        last=math.exp(rates[last]),
        open_ended=not curve.diverged and len(losses) - last <= settling,
    )


def _end_of_longest_fall(losses: np.ndarray) -> int:
    """The step that ends the longest subsequence of falling losses, as in fastai's `valley`."""
    lengths = np.ones(len(losses), int)
    for step, loss in enumerate(losses):
        lengths[step] += lengths[:step].max(initial=0, where=losses[:step] > loss)
    return int(lengths.argmax())


def _deviation(losses: np.ndarray) -> float:
    """Of smoothed losses by chance, from how the losses differ from step to step: of most, whatever the others do."""
    steps = np.abs(np.diff(losses[np.isfinite(losses)]))
    of_losses = np.median(steps) / (0.6745 * math.sqrt(2)) if len(steps) else 0.0
    return float(of_losses * math.sqrt((1 - KEPT) / (1 + KEPT)))
