"""What the benchmarks share: whole processes and their memory, workers, medians, tables in README.md.

Imports no TensorFlow: a child's peak memory counts what its parent held at the moment of the fork, so
everything heavy happens in children.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
README = Path(__file__).with_name("README.md")
PACKAGES = ("tensorflow", "keras", "openvino", "torch", "timm")
TELLING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_fp16")


# ---------------------------------------------------------------- whole processes


@dataclass(frozen=True)
class Outcome:
    """What a finished process left."""

    seconds: float  # wall clock, from its start to its end
    until: float  # to the first line that matches what was waited for, or NaN
    peak_bytes: int  # of it and, each alone, of the children it waited for
    out: str  # stdout and stderr together
    cpu: float = float("nan")  # seconds of all cores together


def process(
    words: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    until: str | None = None,
) -> Outcome:
    """Run a command to its end; `until` is a pattern whose first line is timed."""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **(environment or {})}
    seen, lines, began = float("nan"), [], time.perf_counter()
    with subprocess.Popen(
        list(words),
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            lines.append(line)
            if until and seen != seen and re.search(until, line):
                seen = time.perf_counter() - began
        peak, cpu = _reap(child)
        seconds = time.perf_counter() - began
    out = "".join(lines)
    if child.returncode:
        sys.exit(f"{' '.join(words)} failed:\n{out[-2000:]}")
    return Outcome(seconds, seen, peak, out, cpu)


def _reap(child: "subprocess.Popen[str]") -> tuple[int, float]:
    """Wait for a child; its peak memory in bytes, and the seconds of processors that it took."""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, usage.ru_utime + usage.ru_stime


# ---------------------------------------------------------------- workers


class Worker:
    """A child that has warmed up and then does the same piece of work each time it is asked.

    Several of them let sides alternate in steady state, each in a process of its own; one that is not
    asked waits on its stdin and costs nothing.
    """

    def __init__(self, script: str, **settings: Any) -> None:
        words = [sys.executable, script, "--worker", json.dumps(settings)]
        env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._child = subprocess.Popen(
            words,
            env=env,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self.about: dict[str, Any] = self._answer()
        self.peak_bytes = 0

    def ask(self) -> float:
        """Do the work once: its figure."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End it and note its peak memory."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self.peak_bytes, _ = _reap(self._child)

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        self._errors.seek(0)
        sys.exit(f"A worker ended:\n{self._errors.read()[-2000:]}")


def serve(about: dict[str, Any], work: Callable[[], float]) -> None:
    """The child's half of Worker: call `work` for each line on stdin."""
    print("answer", json.dumps(about), flush=True)
    for _ in sys.stdin:
        print("answer", json.dumps(work()), flush=True)


@contextlib.contextmanager
def workers(script: str, sides: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Worker]]:
    """One worker for each side, ended when the block is left."""
    started: dict[str, Worker] = {}
    try:
        for name, settings in sides.items():
            started[name] = Worker(script, **settings)
        yield started
    finally:
        for worker in started.values():
            worker.close()


# ---------------------------------------------------------------- figures


def alternate(sides: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """Each side `repeats` times, in turns, so that a slow minute of the machine strikes them alike."""
    found: dict[str, list[T]] = {name: [] for name in sides}
    for repeat in range(repeats):
        for name, side in sides.items():
            say(f"{name}, {repeat + 1} of {repeats}")
            found[name].append(side())
    return found


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios within each repeat."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def gain(over: Sequence[float], under: Sequence[float]) -> float:
    """Ratio of the medians, where one side was measured more often than the other."""
    return median(over) / median(under)


def times(value: float) -> str:
    return f"{value:.1f}x" if value < 10 else f"{value:.0f}x"


def seconds(value: float) -> str:
    if value >= 600:
        return f"{value / 60:,.0f} min"
    return f"{value:.1f} s" if value >= 1 else f"{value:.2f} s"


def gib(value: float) -> str:
    return f"{value / 2**30:.2f} GiB"


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- tables


def parser(description: str, *, timed: bool = True) -> argparse.ArgumentParser:
    """The flags that every benchmark has; timed: it repeats itself, and can be tried at no size."""
    made = argparse.ArgumentParser(description=description)
    made.set_defaults(tiny=False, full=False)
    if timed:
        made.add_argument("--repeats", type=int, default=3, help="rounds of all sides (median)")
        made.add_argument(
            "--tiny", action="store_true", help="one round of the least: does it run?"
        )
    made.add_argument("--write", action="store_true", help="put the table into README.md")
    return made


def publish(
    args: argparse.Namespace,
    name: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    notes: Sequence[str] = (),
    goals: Mapping[str, str] | None = None,
) -> None:
    """Print the table with its machine, date and command; with --write put it into README.md.

    goals: text for single cells of the tables of goals, by the cell's name; --full has cells of its own.
    """
    text = "\n\n".join([table(columns, rows), *notes, provenance()])
    print(text)
    if args.write and args.tiny:
        sys.exit("--tiny measures nothing: its table is not written.")
    if args.write:
        page = fill(README.read_text(encoding="utf-8"), name, f"\n\n{text}\n\n")
        for cell, value in (goals or {}).items():
            page = fill(page, cell + (" full" if args.full else ""), value)
        README.write_text(page, encoding="utf-8")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; every column after the first few words is as it comes."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def provenance() -> str:
    """Machine, versions, date and command, as one line of Markdown."""
    words = [word for word in sys.argv[1:] if word != "--write"]
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f"Measured on {machine()}; {today}; `{command}`"


def machine() -> str:
    """Processor, cores, memory, versions."""
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.+)", facts)
    flags = re.search(r"flags\s*: (.+)", facts)
    has = [f for f in TELLING_FLAGS if flags and f in flags[1].split()]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = [f"{name} {found}" for name in PACKAGES if (found := installed(name))]
    return (
        f"{cores()} cores of {model[1] if model else platform.processor()} ({', '.join(has)}), "
        f"{memory:.0f} GiB, Python {platform.python_version()}, {', '.join(versions)}"
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def installed(package: str) -> str | None:
    """A package's version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def fill(page: str, name: str, text: str) -> str:
    """Replace what stands between a name's markers."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in page or end not in page:
        sys.exit(f"{README} has no place for this table: expected {begin} and {end}.")
    head, _, rest = page.partition(begin)
    return head + begin + text + end + rest.partition(end)[2]
