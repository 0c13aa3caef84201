"""Splits by a hash of the key: where a picture goes depends on nothing but itself, so a new one moves no other."""

import hashlib
from collections.abc import Sequence

import numpy as np

from tlbench.base.errors import DataError
from tlbench.config.schema import Data
from tlbench.data import groups
from tlbench.data.sources import Contents


def part(cfg: Data, loaded: Contents, together: np.ndarray) -> np.ndarray:
    """The split that each image is bound to, (images,) text: by the source, or by its key; "": it is trained on.

    A group's name stands for the keys of its images. Of equal images the one with the smallest hash speaks for all:
    a copy that is new may move the others, from training to validation to testing and never back. Folds are drawn.
    Raises DataError where nothing falls into a split.
    """
    part, free = loaded.part.astype("U10"), np.flatnonzero(loaded.part == "")
    if loaded.keys is None or cfg.folds is not None or not len(free):
        return part
    names, keys = groups.named(cfg, loaded), loaded.keys
    if names is not None:
        grouped = [name[0] == "group" for name in names]
        keys = [
            "\0".join(map(str, n)) if g else k for n, g, k in zip(names, grouped, keys, strict=True)
        ]
    place = _least(_places([keys[row] for row in free.tolist()], cfg.split_seed), together[free])
    begin = 0.0
    for name, share in (("test", cfg.test), ("validation", cfg.validation)):
        if share is None or (loaded.part == name).any():
            continue
        end = begin + (1 - begin) * share
        chosen = (begin <= place) & (place < end)
        _refuse_none(chosen, name, share)
        part[free[chosen]] = name
        begin = end
    _refuse_none(place >= begin, "train", 1 - begin)
    return part


def _places(keys: Sequence[str], seed: int) -> np.ndarray:
    """Where each key falls, (keys,) from 0 to below 1, evenly."""
    hashes = (hashlib.blake2b(_bytes(f"{seed} {key}"), digest_size=8).digest() for key in keys)
    return np.frombuffer(b"".join(hashes), ">u8") / 2.0**64


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")  # names in a tar may be no UTF-8


def _least(place: np.ndarray, together: np.ndarray) -> np.ndarray:
    """The least place among what belongs together, for each."""
    _, kind = np.unique(together, return_inverse=True)
    least = np.ones(len(place))
    np.minimum.at(least, kind, place)
    return least[kind]


def _refuse_none(chosen: np.ndarray, name: str, share: float) -> None:
    if chosen.any():
        return
    raise DataError(
        f"No picture of {len(chosen):,} falls into the {name} split, a share of {share:g} by a hash of the key. "
        "Add pictures, change data.test or data.validation, or take another data.split_seed."
    )
