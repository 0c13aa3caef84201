"""Signals that end a run or ask it to save, and the pipe by which a sweep passes them on to its jobs."""

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from tlbench.base.stopping import JOB, SAVE, Stopping, asked_through

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PASSED_ON = signal.SIGUSR2  # by which a job's listening thread wakes its main one


def ignore_saving() -> None:
    """Let SIGUSR1 pass until there is something to save: by itself it would end the process."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


@contextlib.contextmanager
def heard() -> Iterator[Stopping]:
    """Take the signals for the time of the block; a SIGHUP that is ignored, as under nohup, stays so."""
    with asked_through(Stopping()) as stopping, _Hearing(stopping).signals():
        yield stopping


def heard_in_sweeps(words: list[str]) -> contextlib.AbstractContextManager[object]:
    """`heard` where the words are those of a sweep, which passes on to its jobs what it hears."""
    return heard() if {"-m", "--multirun"} & set(words) else contextlib.nullcontext()


@contextlib.contextmanager
def interrupts_heard() -> Iterator[None]:
    """Take Ctrl-C alone, where a host such as a notebook leaves it to Python: the handler is put back."""
    alone = threading.current_thread() is threading.main_thread()
    if not alone or not callable(signal.getsignal(signal.SIGINT)):
        yield
        return
    with asked_through(Stopping()) as stopping, _Hearing(stopping).taking([signal.SIGINT]):
        yield


class _Hearing:
    """Signals as requests: one request is one, whoever else passes it on."""

    def __init__(self, stopping: Stopping) -> None:
        self.stopping = stopping
        self._hearing = threading.Lock()  # held by who wakes the main thread, or ends its hearing
        self._heard = False  # whether signals are taken: one that came later would end the process
        self._by_hand = False  # a signal has come that the sweep did not pass on

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        numbers = [n for n in (*ENDING, signal.SIGUSR1) if n != signal.SIGHUP or hangs_up]
        is_job = JOB in os.environ
        if not is_job:
            with self.taking(numbers):
                yield
            return
        with self.taking([*numbers, PASSED_ON]), self._sweep_heard():
            yield

    @contextlib.contextmanager
    def taking(self, numbers: list[signal.Signals]) -> Iterator[None]:
        own = {number: signal.signal(number, self._hear) for number in numbers}
        self._heard = True
        try:
            yield
        finally:
            with self._hearing:
                self._heard = False
            for number, handler in own.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.stopping.ask_to_save()
            return
        # A terminal that closes hangs up more than once: its shell passes on what the system sends too.
        again = self._by_hand and number not in (PASSED_ON, signal.SIGHUP)
        self._by_hand = self._by_hand or number != PASSED_ON
        if self.stopping.ending is not None and not again:
            return
        self.stopping.ask_to_end(signal.SIGTERM if number == PASSED_ON else number, at_once=again)

    @contextlib.contextmanager
    def _sweep_heard(self) -> Iterator[None]:
        """Listen to the sweep for the time of the block; what it says after that is for the next job here."""
        until, over = os.pipe()
        listener = threading.Thread(target=self._listen_to_sweep, args=(until,), daemon=True)
        listener.start()
        try:
            yield
        finally:
            os.close(over)
            listener.join()
            os.close(until)

    def _listen_to_sweep(self, until: int) -> None:
        """Do what the sweep asks through the pipe that is this job's stdin, until another one is closed.

        The system closes the sweep's end of it however the sweep died, so no job is left behind that keeps its
        folder from the next try. Read without Python's buffer, whose lock a daemon would never return.
        """
        while until not in select.select([0, until], [], [])[0]:
            if os.read(0, 1) != SAVE:
                self._wake(PASSED_ON)
                return
            self._wake(signal.SIGUSR1)

    def _wake(self, number: int) -> None:
        with self._hearing:
            if self._heard:
                os.kill(os.getpid(), number)
