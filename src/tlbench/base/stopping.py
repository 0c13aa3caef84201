"""A request to save or to end, as work sees it: looked at between steps. Who asks is another matter."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextvars import ContextVar

JOB = "TLBENCH_JOB"  # in the environment of a sweep's job, whose stdin is a pipe from the sweep: how many run at a time
SAVE = b"s"  # what the sweep writes there to ask for a checkpoint; closing it asks the job to end


class Interrupted(BaseException):
    """A run was asked to end; `exit_code` is the shell's 128 + the number of the signal that asked.

    Like KeyboardInterrupt no Exception, so that nothing takes it for an error to handle.
    """

    def __init__(self, number: int, resume_command: str) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number
        self.resume_command = resume_command


class Stopping:
    """What has been asked so far."""

    def __init__(self) -> None:
        self.ending: int | None = None  # the signal that asked the work to end
        self.save = False  # whether a checkpoint is asked for
        self.pass_on: Callable[[], None] = lambda: None  # what else a request to save does
        self.resume_command = ""  # what to type to go on, once there is something to go on with
        self._patient = False

    def ask_to_save(self) -> None:
        self.save = True
        self.pass_on()

    def ask_to_end(self, number: int, *, at_once: bool) -> None:
        """End the work for a signal: where it is safe while a network trains, else at once."""
        self.ending = self.ending or number
        if at_once or not self._patient:
            raise Interrupted(number, self.resume_command)

    @contextlib.contextmanager
    def between_steps(self) -> Iterator[None]:
        """In this block a request is only noted: `raise_if_ending` acts on it where it is safe, and the end does."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False
        self.raise_if_ending()

    def raise_if_ending(self) -> None:
        if self.ending is not None:
            raise Interrupted(self.ending, self.resume_command)


_current: ContextVar[Stopping] = ContextVar("stopping")


def current() -> Stopping:
    """What the caller of this work may ask of it; one that nobody asks where nobody listens."""
    return _current.get(None) or Stopping()


@contextlib.contextmanager
def asked_through(stopping: Stopping) -> Iterator[Stopping]:
    """The `current` one, for the time of the block."""
    token = _current.set(stopping)
    try:
        yield stopping
    finally:
        _current.reset(token)
