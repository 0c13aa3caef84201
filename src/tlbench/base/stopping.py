"""Signals that end a run or ask it to save: heard between steps while a network trains, else at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
JOB = "TLBENCH_JOB"  # in the environment of a sweep's job, whose stdin is a pipe from the sweep
PASSED_ON = signal.SIGUSR2  # by which a job's listening thread wakes its main one
SAVE = b"s"  # what the sweep writes there to pass SIGUSR1 on; closing it asks the job to end


class Interrupted(BaseException):
    """A signal ended the run; `exit_code` is the shell's 128 + its number.

    Like KeyboardInterrupt no Exception, so that nothing takes it for an error to handle.
    """

    def __init__(self, number: int, resume_command: str) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number
        self.resume_command = resume_command


def ignore_saving() -> None:
    """Let SIGUSR1 pass until there is something to save: by itself it would end the process."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


class Interrupts:
    """What signals have asked for so far."""

    def __init__(self) -> None:
        self.ending: int | None = None  # the signal that asked the run to end
        self.save = False  # SIGUSR1 asked for a checkpoint
        self.pass_on: Callable[[], None] = lambda: None  # what else SIGUSR1 does
        self.resume_command = ""  # what to type to go on, once there is something to go on with
        self._patient = False
        self._hearing = threading.Lock()  # held by who wakes the main thread, or ends its hearing
        self._heard = False  # whether signals are taken: one that came later would end the process
        self._by_hand = False  # a signal has come that the sweep did not pass on

    @contextlib.contextmanager
    def heard(self) -> Iterator["Interrupts"]:
        """Take the signals for the time of the block; a SIGHUP that is ignored, as under nohup, stays so."""
        hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        numbers = [n for n in (*ENDING, signal.SIGUSR1) if n != signal.SIGHUP or hangs_up]
        own = {number: signal.signal(number, self._hear) for number in numbers}
        self._heard = True
        if JOB in os.environ:
            own[PASSED_ON] = signal.signal(PASSED_ON, self._hear)
            threading.Thread(target=self._listen_to_sweep, daemon=True).start()
        try:
            yield self
        finally:
            with self._hearing:
                self._heard = False
            for number, handler in own.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def between_steps(self) -> Iterator[None]:
        """In this block a signal is only noted; `raise_if_ending` acts on it where it is safe, and the end does."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False
        self.raise_if_ending()

    def raise_if_ending(self) -> None:
        if self.ending is not None:
            raise Interrupted(self.ending, self.resume_command)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.save = True
            self.pass_on()
            return
        # A terminal that closes hangs up more than once: its shell passes on what the system sends too.
        again = self._by_hand and number not in (PASSED_ON, signal.SIGHUP)
        self._by_hand = self._by_hand or number != PASSED_ON
        if self.ending is not None and not again:  # a request is one, whoever else passes it on
            return
        number = signal.SIGTERM if number == PASSED_ON else number
        self.ending = self.ending or number
        if again or not self._patient:  # asked a second time, or outside of training
            raise Interrupted(number, self.resume_command)

    def _listen_to_sweep(self) -> None:
        """Do what the sweep asks through the pipe that is this job's stdin.

        The system closes the sweep's end of it however the sweep died, so no job is left behind that keeps its
        folder from the next try. Read without Python's buffer, whose lock a daemon would never return.
        """
        while os.read(0, 1) == SAVE:
            self._wake(signal.SIGUSR1)
        self._wake(PASSED_ON)

    def _wake(self, number: int) -> None:
        with self._hearing:
            if self._heard:
                os.kill(os.getpid(), number)
