"""A process of a sweep: `python -m tlbench.cli.worker [--keep]` runs the commands that come through its stdin.

A command is a line, its words as JSON, and runs by the same way as a typed one. Its lines go to stderr, and after
the last of them the answer: its exit code, and whether the process takes another command. stdin is also how the
sweep asks the command under way to save or to end, see `signals`.
"""

import contextlib
import json
import logging
import os
import sys

from tlbench.base import kept, memory
from tlbench.base.stopping import SAVE
from tlbench.cli import main as cli
from tlbench.sweep.workers import ANSWER, KEEP

GROWN = 1.05  # of the memory after the first command: what is more was left behind by those since


def main() -> None:
    """Run commands until there are none, one has failed, or they have left too much in memory.

    A failure may have left anything behind: the next command gets a process of its own.
    """
    # Each command traces functions of its own; TensorFlow takes them for one that is traced again and again.
    logging.getLogger("tensorflow").addFilter(lambda line: "retracing" not in line.getMessage())
    before = None
    with kept.between_jobs() if KEEP in sys.argv[1:] else contextlib.nullcontext():
        while words := _next():
            memory.forget_peak()
            code = cli.main(words)
            _forget()
            now = memory.resident_bytes()
            before = before or now
            more = code == 0 and now <= before * GROWN
            _answer(code, more=more)
            if not more:
                return


def _next() -> list[str]:
    """The next command; none where stdin is closed. Read without a buffer, which would take more than a line."""
    line = b""
    while not line.endswith(b"\n"):
        if not (byte := os.read(0, 1)):
            return []
        line += byte
    return list(
        json.loads(line.lstrip(SAVE))
    )  # a request that came too late for the command before


def _forget() -> None:
    if "tensorflow" in sys.modules:
        from tlbench.networks import hardware

        hardware.forget_networks()
    memory.give_back()


def _answer(code: int, *, more: bool) -> None:
    with contextlib.suppress(OSError):  # the sweep is gone
        os.write(2, f"{ANSWER}{code} {more:d}\n".encode())


if __name__ == "__main__":
    main()
