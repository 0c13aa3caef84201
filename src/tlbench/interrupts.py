"""Signals that end a run or ask it to save: heard between steps while a network trains, else at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)
JOB = "TLBENCH_JOB"  # in the environment of a sweep's job, whose stdin is a pipe from the sweep


class Interrupted(BaseException):
    """A signal ended the run; `exit_code` is the shell's 128 + its number.

    Like KeyboardInterrupt no Exception, so that nothing takes it for an error to handle.
    """

    def __init__(self, number: int, resume_command: str) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number
        self.resume_command = resume_command


class Interrupts:
    """What signals have asked for so far."""

    def __init__(self) -> None:
        self.ending: int | None = None  # the signal that asked the run to end
        self.save = False  # SIGUSR1 asked for a checkpoint
        self.resume_command = ""  # what to type to go on, once there is something to go on with
        self._patient = False

    @contextlib.contextmanager
    def heard(self) -> Iterator["Interrupts"]:
        """Take the signals for the time of the block."""
        own = {number: signal.signal(number, self._hear) for number in (*ENDING, signal.SIGUSR1)}
        if JOB in os.environ:
            threading.Thread(target=_end_with_sweep, daemon=True).start()
        try:
            yield self
        finally:
            for number, handler in own.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def between_steps(self) -> Iterator[None]:
        """In this block a signal is only noted: `raise_if_ending` acts on it where it is safe."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def raise_if_ending(self) -> None:
        if self.ending is not None:
            raise Interrupted(self.ending, self.resume_command)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.save = True
        elif self._patient and self.ending is None:
            self.ending = number
        else:  # outside of training, or asked a second time
            raise Interrupted(number, self.resume_command)


def _end_with_sweep() -> None:
    """Ask this process to end as SIGTERM does once the sweep that started it is gone.

    The system closes the sweep's end of the pipe however it died, so no job is left behind that keeps
    its folder from the next try. Read without Python's buffer, whose lock a daemon would never return.
    """
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
