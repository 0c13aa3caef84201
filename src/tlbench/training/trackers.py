"""Who is told of a run while it is under way: each a name at the seam `trackers`, ours and those of others.

A tracker is made by a function of the run's folder, its settings by dotted names, and its own arguments. It has
`epoch(record)`, called with each line of history.csv, and `end(figures)`, called once with what metrics.json
holds, or None where the run did not end well.
"""

import contextlib
import inspect
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TextIO

from tlbench.base import registry
from tlbench.base.errors import ConfigError
from tlbench.config.identity import flat
from tlbench.config.schema import Config

log = logging.getLogger(__name__)

Record = Mapping[str, Any]


class Tracker(Protocol):
    """Is told of one run."""

    def epoch(self, record: Record) -> None: ...

    def end(self, figures: Record | None) -> None: ...


class Tracking:
    """The tracker of a run, if it has one; what goes wrong there costs the tracker, and never the training."""

    def __init__(self, tracker: Tracker | None) -> None:
        self._tracker = tracker

    def epoch(self, record: Record) -> None:
        if self._tracker:
            self._tell(lambda tracker: tracker.epoch(record))

    def end(self, figures: Record | None) -> None:
        if self._tracker:
            self._tell(lambda tracker: tracker.end(figures))
        self._tracker = None  # it ends once

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        try:
            what(self._tracker)  # type: ignore[arg-type]  # it is there: its callers asked
        except Exception as error:  # of somebody else's code, or a server that is away
            reason = " ".join(str(error).split()) or type(error).__name__
            log.warning("The tracker failed and is told no more (%s)", reason)
            self._tracker = None


def check(cfg: Config) -> None:
    """Raise ConfigError for a name that there is not, or arguments that it does not take."""
    if cfg.tracker.name != "none":
        make = registry.load("trackers", cfg.tracker.name, "tracker")
        try:
            inspect.signature(make).bind(Path(), {}, **cfg.tracker.arguments)
        except TypeError as error:
            raise ConfigError(
                f"tracker.arguments does not fit {cfg.tracker.name}: {error}"
            ) from error


@contextlib.contextmanager
def told(cfg: Config, folder: Path) -> Iterator[Tracking]:
    """The tracking of a run; it ends with the block. Raises ConfigError where the tracker cannot begin."""
    tracking = Tracking(_made(cfg, folder))
    try:
        yield tracking
    finally:
        tracking.end(None)


def _made(cfg: Config, folder: Path) -> Tracker | None:
    if cfg.tracker.name == "none":
        return None
    make = registry.load("trackers", cfg.tracker.name, "tracker")
    try:
        return make(folder, flat(asdict(cfg)), **cfg.tracker.arguments)
    except Exception as error:
        raise ConfigError(f"tracker={cfg.tracker.name} cannot begin: {error}") from error


class JsonLines:
    """Every event as a line of JSON in the run's folder, for `tail -f`."""

    def __init__(self, folder: Path, settings: Record, file: str = "events.jsonl") -> None:
        self._file: TextIO = (folder / file).open("a", encoding="utf-8")
        self._write(event="begin", settings=settings)

    def epoch(self, record: Record) -> None:
        self._write(event="epoch", **record)

    def end(self, figures: Record | None) -> None:
        self._write(event="end", figures=figures)
        self._file.close()

    def _write(self, **event: Any) -> None:
        self._file.write(json.dumps(event, default=str) + "\n")
        self._file.flush()


class TensorBoard:
    """Curves and final figures for TensorBoard (the tensorboard extra), by default within the run's folder."""

    def __init__(self, folder: Path, settings: Record, log_dir: str | None = None) -> None:
        import tensorboard  # noqa: F401  # TensorFlow writes its events through it
        import tensorflow as tf

        self._summary = tf.summary
        place = Path(log_dir) / folder.name if log_dir else folder / "tensorboard"
        self._writer = tf.summary.create_file_writer(str(place))
        with self._writer.as_default():
            lines = "\n".join(f"    {key}: {value}" for key, value in settings.items())
            tf.summary.text("settings", lines, step=0)

    def epoch(self, record: Record) -> None:
        self._scalars(record, "", record["epoch"])

    def end(self, figures: Record | None) -> None:
        if figures:
            self._scalars(figures, "final/", figures["epochs"])
        self._writer.close()

    def _scalars(self, values: Record, prefix: str, step: int) -> None:
        with self._writer.as_default():
            for name, value in values.items():
                if isinstance(value, int | float) and name != "epoch":
                    self._summary.scalar(prefix + name, value, step=step)
        self._writer.flush()
