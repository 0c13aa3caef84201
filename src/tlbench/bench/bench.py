"""The bench: entries -> rows that are measured, one after the other -> what they say together."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from tlbench.base import console
from tlbench.base.errors import BenchError, ConfigError, DownloadError, TlbenchError, WeightsError
from tlbench.bench import cells, measure, probes
from tlbench.bench.cells import MAJORITY, PIXELS, PRETRAINED, RANDOM, SHUFFLED, Cell
from tlbench.bench.entries import Entry
from tlbench.bench.measure import Network, Told
from tlbench.bench.settings import Settings
from tlbench.config.identity import config_hash
from tlbench.config.schema import Config
from tlbench.data import datasets, oddities
from tlbench.data.datasets import Dataset
from tlbench.data.resize import Resize
from tlbench.features import frozen
from tlbench.features.frozen import Way
from tlbench.networks import hardware
from tlbench.networks.hardware import Machine

log = logging.getLogger(__name__)

SLOWER = 1.25  # than foretold, a row may be: what is left of the time has to hold so much


def bench(entries: Sequence[Entry], settings: Settings, folder: Path, seconds: float) -> list[Cell]:
    """Measure every entry, and what zero looks like; seconds: after which nothing more is begun.

    What the folder holds of the same bench is not measured again. A row that fails, or that there was no time
    for, says why. Raises BenchError where no backbone can be measured.
    """
    cfg = entries[0].cfg
    machine = hardware.prepare(cfg.device, cfg.seed, repeatable=cfg.repeatable)
    total = _UNITS * (
        sum(1 + _has_random_form(entry) for entry in entries) + 3 * len(_by_data(entries))
    )
    with console.progress("bench", total, console.SHARE) as advance:
        work = _Work(settings, folder, machine, time.monotonic() + seconds, _Bar(advance, total))
        order = [entry for alike in _by_data(entries) for entry in alike]
        order = order if seconds == float("inf") else work.promising(order)
        found = []
        for entry in order:
            found.append(work.row(PRETRAINED, entry))
            _refuse_nothing(found, entries, work.lost)
        measured = [e for e, cell in zip(order, found, strict=True) if cell.right]
        for alike in _by_data(entries):
            here = [cell for cell in found if cell.data == alike[0].data and cell.right]
            found += [work.row(MAJORITY, alike[0]), work.row(PIXELS, alike[0])]
            if here:
                best = max(here, key=lambda cell: float(cell.right[probes.ALL].mean()))
                found += [work.row(SHUFFLED, e) for e in alike if e.backbone == best.backbone]
        found += [work.row(RANDOM, entry) for entry in measured if _has_random_form(entry)]
    return found


def _refuse_nothing(
    cells: Sequence[Cell], entries: Sequence[Entry], lost: Mapping[str, TlbenchError]
) -> None:
    """Raise BenchError where no backbone can be built, or every row has failed: nothing else would say anything."""
    if not all(cell.failed for cell in cells):
        return
    backbones = {repr(entry.cfg.backbone) for entry in entries}
    all_lost = len(lost) == len(backbones) and all(
        any(cell.backbone == entry.backbone for cell in cells) for entry in entries
    )
    if not all_lost and len(cells) < len(entries):
        return
    if all_lost and all(isinstance(error, DownloadError) for error in lost.values()):
        raise BenchError(
            "No backbone could be measured: their weights could not be downloaded. Connect to a network, or give "
            "weights that are here: backbone=file backbone.weights=MODEL.keras, or backbone.weights=DIR of a run."
        )
    raise BenchError(f"No backbone could be measured. {cells[0].name}: {cells[0].reason}")


def _has_random_form(entry: Entry) -> bool:
    """Whether random weights say something new of a backbone: those of a file are part of it."""
    return entry.cfg.backbone.builder != "file" and entry.cfg.backbone.weights is not None


_UNITS = 1000  # of the bar, a row


def _by_data(entries: Sequence[Entry]) -> list[list[Entry]]:
    names = list(dict.fromkeys(entry.data for entry in entries))
    return [[entry for entry in entries if entry.data == name] for name in names]


@dataclass
class _Work:
    """What rows share: what was read and built last, the time that is left, and the bar."""

    settings: Settings
    folder: Path
    machine: Machine
    deadline: float  # of time.monotonic()
    bar: "_Bar"
    probing: float = 10.0  # seconds of the probes of a row, as the last one took
    lost: dict[str, TlbenchError] = field(default_factory=dict)  # by backbone: it cannot be built
    _said: set[str] = field(
        default_factory=set
    )  # reasons, and data sets, that are not told of again
    _read: dict[str, tuple[Resize, Dataset]] = field(default_factory=dict)
    _best: tuple[float, int, Network] | None = (
        None  # accuracy, entry: shuffled labels want it again
    )

    def dataset(self, entry: Entry) -> Dataset:
        """The data set of an entry at the image size of its backbone; one is kept, and its files are read once."""
        cfg, resize, data = entry.cfg.data, Resize.of(entry.cfg), repr(entry.cfg.data)
        if data not in self._read:
            self._read = {data: (resize, datasets.load(cfg, resize))}
            if data not in self._said:
                oddities.say(self._read[data][1])
            self._said.add(data)
        before, dataset = self._read[data]
        if before != resize:
            self._read[data] = (resize, datasets.at(dataset, resize, cfg))
        return self._read[data][1]

    def row(self, kind: str, entry: Entry) -> Cell:
        """A row, measured now or before, or why it is not."""
        told = _Told(self.bar)
        try:
            dataset = self.dataset(entry)
            key = self._key(kind, entry, dataset)
            if (before := cells.found(self.folder, key)) is not None:
                return _of_now(before, entry, dataset)
            log.info("%s on %s (%s)", entry.backbone, entry.data, kind)
            with console.drawn_on(_inside(told)):
                cell = self._measured(kind, entry, dataset, told)
            cell = _of_now(cell, entry, dataset)
        except TlbenchError as error:
            if str(error) not in self._said:
                reason = error.what if isinstance(error, DownloadError) else error
                log.warning("%s on %s (%s) failed: %s", entry.backbone, entry.data, kind, reason)
            self._said.add(str(error))
            cell = replace(self._without(kind, entry, str(error)), failed=True)
        finally:
            told(1.0)
        if cell.right:
            cells.save(cell, self.folder, key)
        return cell

    def _measured(self, kind: str, entry: Entry, dataset: Dataset, told: Told) -> Cell:
        if kind == MAJORITY:
            return measure.majority_class(entry, dataset)
        if kind == PIXELS:
            return measure.raw_pixels(entry, dataset, self.settings, told)
        cfg = entry.cfg
        if kind == RANDOM:
            cfg = replace(cfg, backbone=replace(cfg.backbone, weights=None))
        network = self._network(kind, entry, cfg, dataset)
        if (needed := self._needed(network, dataset, entry)) > self.deadline - time.monotonic():
            left = max(0.0, self.deadline - time.monotonic())
            return self._without(
                kind, entry, f"left out: needs about {needed:.0f} s, {left:.0f} s were left"
            )
        if kind == SHUFFLED:
            return measure.shuffled_labels(entry, dataset, network, self.settings, told)
        found = replace(entry, cfg=cfg)
        cell = measure.pretrained(found, dataset, network, self.settings, told)
        self.probing = cell.facts["probing_seconds"]
        accuracy = float(cell.right[probes.ALL].mean())
        if kind == PRETRAINED and (self._best is None or accuracy > self._best[0]):
            self._best = (accuracy, id(entry), network)
        return replace(cell, kind=kind)

    def _network(self, kind: str, entry: Entry, cfg: Config, dataset: Dataset) -> Network:
        if kind == SHUFFLED and self._best is not None and self._best[1] == id(entry):
            return self._best[2]
        return self._built(cfg, dataset)

    def _built(self, cfg: Config, dataset: Dataset) -> Network:
        """A network; what cannot be built is not tried again: a download may fail for a long time."""
        name = repr(cfg.backbone)
        if name in self.lost:
            raise self.lost[name]
        try:
            return measure.built(cfg, dataset, self.machine)
        except (ConfigError, WeightsError) as error:
            self.lost[name] = error
            raise

    def _without(self, kind: str, entry: Entry, reason: str) -> Cell:
        return Cell(
            kind, "" if kind in (PIXELS, MAJORITY) else entry.backbone, entry.data, reason=reason
        )

    def _needed(self, network: Network, dataset: Dataset, entry: Entry) -> float:
        """Seconds that a row is foretold to take, 0 where time does not matter."""
        if self.deadline == float("inf"):
            return 0.0
        missing = frozen.missing(network.way, dataset, entry.cfg)
        speed = frozen.images_per_second(network.way, dataset, entry.cfg)
        return SLOWER * missing / speed + self.probing

    def _key(self, kind: str, entry: Entry, dataset: Dataset) -> dict[str, Any]:
        """All that decides what a row says."""
        weights = entry.cfg.backbone.weights_file
        changed = Path(weights).stat().st_mtime_ns if weights and Path(weights).exists() else None
        return {
            **{"kind": kind, "backbone": entry.backbone, "data": entry.data},
            **{"config": config_hash(entry.cfg), "weights": [weights, changed]},
            **{"images": dataset.sha256, "settings": asdict(self.settings)},
        }

    def promising(self, entries: Sequence[Entry]) -> list[Entry]:
        """Entries in the order to measure them in: what a few images say is best first.

        The cheap ones are looked at first, for at most a quarter of the time; what was not looked at comes last.
        """
        began = time.monotonic()
        until = began + (self.deadline - began) / 4
        speeds = {id(entry): self._first_look(entry, frozen.images_per_second) for entry in entries}
        accuracies = {}
        for entry in sorted(entries, key=lambda entry: -speeds[id(entry)]):
            if time.monotonic() < until:
                accuracies[id(entry)] = self._first_look(entry, self._accuracy)
        return sorted(entries, key=lambda e: (-accuracies.get(id(e), -1.0), -speeds[id(e)]))

    def _first_look(self, entry: Entry, see: Callable[[Way, Dataset, Config], float]) -> float:
        """A figure of an entry's network, -1 where it has none: `row` says why."""
        try:
            with console.drawn_on(None):
                dataset = self.dataset(entry)
                return see(self._built(entry.cfg, dataset).way, dataset, entry.cfg)
        except TlbenchError:
            return -1.0

    def _accuracy(self, way: Way, dataset: Dataset, cfg: Config) -> float:
        accuracy = measure.screened(way, dataset, cfg, self.settings)
        log.info("%s: %.2f at a first look", cfg.backbone.name, accuracy)
        return accuracy


def _of_now(cell: Cell, entry: Entry, dataset: Dataset) -> Cell:
    """A row with what is true of this command, not of the one that measured it."""
    typed = {"words": list(entry.words), "data_words": list(entry.data_words)}
    return replace(cell, facts=cell.facts | typed, unreadable=dataset.unreadable)


class _Bar:
    """The bar of the whole bench, and what time is left at the pace so far."""

    def __init__(self, advance: console.Advance, total: int) -> None:
        self.advance, self.total, self.done, self.began = advance, total, 0, time.monotonic()

    def move(self, count: int) -> None:
        self.done += count
        left = (time.monotonic() - self.began) * (self.total / max(self.done, 1) - 1)
        self.advance(count, f"about {timedelta(seconds=round(left))} left")


class _Told:
    """Moves the bar by what of a row is done."""

    def __init__(self, bar: _Bar) -> None:
        self.bar, self.done = bar, 0

    def __call__(self, share: float) -> None:
        if (now := round(_UNITS * share)) > self.done:
            self.bar.move(now - self.done)
            self.done = now


def _inside(told: _Told) -> console.Display:
    """Progress of what a row does, drawn on the bar of the whole: features are its first half."""

    @contextlib.contextmanager
    def display(description: str, total: int, unit: str) -> Iterator[console.Advance]:
        del description, unit
        done = 0

        def advance(count: int = 1, figures: str = "") -> None:
            nonlocal done
            del figures
            done += count
            told(0.5 * min(1.0, done / max(total, 1)))

        yield advance

    return display
