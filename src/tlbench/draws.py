"""Random draws: each from the run's seed and what it is for, so that no two share their numbers."""

import hashlib


def seed_for(seed: int, purpose: str, number: int = 0) -> int:
    """A seed, 0 to 2**31 - 1, for one purpose of a run, and the n-th of its kind.

    Sums would not do: the second of seed 0 would be the first of seed 1.
    """
    text = f"{seed} {purpose} {number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest()) % 2**31
