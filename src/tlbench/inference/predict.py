"""Image files -> the classes that a finished run takes them for. No TensorFlow until something is classified."""

import glob
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tlbench.base.errors import DataError
from tlbench.data import decoding, pictures
from tlbench.data.pictures import Found

if TYPE_CHECKING:
    from tlbench.inference.loaded import Loaded


class Prediction(NamedTuple):
    """One image file and its most probable classes with their probabilities, the best first.

    classes: all that it has, where it may have several or none; None: it has one, the best.
    """

    path: Path
    best: list[tuple[str, float]]
    classes: list[str] | None = None


def find(words: list[str]) -> Found:
    """The pictures that words name, each once and in order; a line for each word that names none."""
    found = Found()
    for word in words:
        path = Path(word)
        # A file whose name has brackets is that file; only what does not exist is a pattern.
        matches = [path] if os.path.lexists(word) else _matches(word)
        if not matches:
            found.unreadable.append(f"{word}: no such file, folder or match.")
        for match in matches:
            if not match.is_dir():
                found.pictures.append(match)
                continue
            inside = pictures.find(match)
            # Folders that a pattern matched beside files may hold none; one that was named should.
            if not inside.pictures and match == path:
                found.unreadable.append(f"{word}: a folder without images.")
            found.pictures += inside.pictures
            found.unreadable += inside.unreadable
            found.others += inside.others
    found.pictures = list(dict.fromkeys(found.pictures))
    return found


def _matches(pattern: str) -> list[Path]:
    """What a pattern matches, without the hidden and system files that it does not name itself."""
    typed = set(Path(pattern).parts)
    # Path.glob takes no absolute patterns.
    found = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    return [path for path in found if not any(map(pictures.hidden, {*path.parts} - typed))]


# ---------------------------------------------------------------- classifying


def predicted(
    classifier: "Loaded", paths: Sequence[Path], top: int
) -> Iterator[tuple[list[Prediction], list[str]]]:
    """The `top` classes of image files, and a line for each unreadable one, batch after batch.

    The next batch is decoded while the caller works on one; there are never more than two in memory.
    """
    resize, step = classifier.resize(classifier.cfg.data), classifier.batch_size

    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:

        def start(first: int) -> list[tuple[Path, Future[np.ndarray]]]:
            return [
                (path, pool.submit(decoding.decode, path, resize))
                for path in paths[first : first + step]
            ]

        coming = start(0)
        for first in range(0, len(paths), step):
            current, coming = coming, start(first + step)
            batch, wrong = _finished(current)
            yield _classified(classifier, batch, top), wrong


Batch = list[tuple[Path, np.ndarray]]


def _finished(decoding: list[tuple[Path, Future[np.ndarray]]]) -> tuple[Batch, list[str]]:
    batch: Batch = []
    wrong = []
    for path, future in decoding:
        try:
            batch.append((path, future.result()))
        except DataError as error:
            wrong.append(str(error))
    return batch, wrong


def _classified(classifier: "Loaded", batch: Batch, top: int) -> list[Prediction]:
    if not batch:
        return []
    names = classifier.class_names
    found = classifier.probabilities(np.stack([image for _, image in batch]))
    predictions = []
    for (path, _), row in zip(batch, found, strict=True):
        best = [(names[i], float(row[i])) for i in np.argsort(-row, kind="stable")[:top]]
        predictions.append(Prediction(path, best, _all_of(classifier, row)))
    return predictions


def _all_of(classifier: "Loaded", row: np.ndarray) -> list[str] | None:
    """The classes that an image has, by its probabilities; None where it has the most probable one."""
    if classifier.thresholds is None:
        return None
    return [classifier.class_names[i] for i in np.flatnonzero(row >= classifier.thresholds)]
