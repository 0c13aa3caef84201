"""Random draws: each from the run's seed and what it is for, so that no two share their numbers."""

import hashlib
from typing import Any


def seed_for(seed: int, purpose: str, number: int = 0) -> int:
    """A seed, 0 to 2**31 - 1, for one purpose of a run, and the n-th of its kind.

    Sums would not do: the second of seed 0 would be the first of seed 1.
    """
    text = f"{seed} {purpose} {number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest()) % 2**31


def reseed(network: Any, seed: int, stage: int) -> None:
    """Have the layers of a Keras network that draw, such as dropout, begin a stage's own draws.

    Counted from the last: a head draws alike alone and as the end of a whole network.
    """
    drawing = [
        v for v in network.non_trainable_variables if v.path.endswith("seed_generator_state")
    ]
    for number, state in enumerate(reversed(drawing)):
        state.assign([seed_for(seed, f"layers of stage {stage}", number), 0])
