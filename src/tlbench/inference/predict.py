"""The verb predict: image files -> the classes that a finished run takes them for."""

import glob
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.markup import escape

from tlbench.base import console
from tlbench.base.errors import DataError
from tlbench.data import images, pictures
from tlbench.data.pictures import Found
from tlbench.inference import loaded, sinks
from tlbench.inference.loaded import Loaded
from tlbench.inference.sinks import Prediction
from tlbench.runs.run import Run

log = logging.getLogger(__name__)


def predict(run: Run, words: list[str], *, top: int, json: str | None, csv: str | None) -> int:
    """Classify what the words name; 1 when something could not be read and the rest went on.

    words: files, folders and glob patterns; top: classes per image; json, csv: a file, "-" for stdout,
    or None. Raises DataError when nothing could be read.
    """
    console.start_logging()
    found = find(words)
    paths, problems = found.pictures, found.unreadable
    if left_out := pictures.left_out(found.others):
        log.warning("%s", left_out)
    for problem in problems:
        log.warning("%s", console.printable(problem))
    if not paths:
        raise DataError(
            "There is no image to classify. Name image files or folders that hold some."
        )
    classifier = loaded.load(run, "auto")
    top = min(top, len(run.class_names))
    unreadable = len(problems)
    with (
        sinks.opened(json, csv, top) as targets,
        console.progress("classifying", len(paths), "img") as advance,
    ):
        for batch, wrong in _batches(classifier, paths):
            for line in wrong:
                log.warning("%s", console.printable(line))
            for prediction in _classified(classifier, batch, top):
                for target in targets:
                    target.add(prediction)
            unreadable += len(wrong)
            advance(len(batch) + len(wrong))
        if unreadable - len(problems) == len(paths):
            raise DataError("None of the files is a readable image.")
    for written in (json, csv):
        if written and written != sinks.STDOUT:
            console.out.print(f"written to [path]{escape(written)}[/]", soft_wrap=True)
    if unreadable:
        log.warning("%d of %d could not be read", unreadable, len(paths) + len(problems))
    return 1 if unreadable or found.missed else 0


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


Batch = list[tuple[Path, np.ndarray]]


def _batches(classifier: Loaded, paths: list[Path]) -> Iterator[tuple[Batch, list[str]]]:
    """Decoded images, and a line for each unreadable one, batch after batch.

    The next batch is decoded while the caller works on one; there are never more than two in memory.
    """
    size, resize = classifier.size, classifier.cfg.data.resize
    step = classifier.batch_size

    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:

        def start(first: int) -> list[tuple[Path, Future[np.ndarray]]]:
            return [
                (path, pool.submit(images.decode, path, size, resize))
                for path in paths[first : first + step]
            ]

        coming = start(0)
        for first in range(0, len(paths), step):
            current, coming = coming, start(first + step)
            yield _finished(current)


def _finished(decoding: list[tuple[Path, Future[np.ndarray]]]) -> tuple[Batch, list[str]]:
    batch: Batch = []
    wrong = []
    for path, future in decoding:
        try:
            batch.append((path, future.result()))
        except DataError as error:
            wrong.append(str(error))
    return batch, wrong


def _classified(classifier: Loaded, batch: Batch, top: int) -> Iterator[Prediction]:
    if not batch:
        return
    names = classifier.run.class_names
    pixels = np.stack([image for _, image in batch])
    for (path, _), row in zip(batch, classifier.probabilities(pixels), strict=True):
        best = np.argsort(-row, kind="stable")[:top]
        yield Prediction(path, [(names[i], float(row[i])) for i in best])
