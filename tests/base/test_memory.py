"""What processes may still take, as systems and control groups tell of it."""

from pathlib import Path

import pytest

from tlbench.base import memory

MIB = 2**20


def system(root: Path, groups: str, **files: str) -> Path:
    """A root of 1,000 MiB free; groups: /proc/self/cgroup; files: of the control groups, by their path."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text("MemTotal: 4096000 kB\nMemAvailable: 1024000 kB\n")
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for path, text in files.items():
        file = root / "sys" / "fs" / "cgroup" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def group(path: str, limit: str, used: int, cached: int, *, first: bool = False) -> dict[str, str]:
    """The files of one control group; cached: of what is used, MiB of files that would be let go of."""
    names = ("memory.max", "memory.current", "inactive_file")
    if first:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    texts = (limit, f"{used * MIB}\n")
    stat = f"anon 5\n{names[2]} {cached * MIB}\n"
    return {
        f"{path}{n}": t for n, t in zip((*names[:2], "memory.stat"), (*texts, stat), strict=True)
    }


def test_the_tightest_of_system_and_groups_counts(tmp_path: Path) -> None:
    inner = group("jobs/mine/", "max\n", 100, 0)
    outer = group("jobs/", f"{600 * MIB}\n", 300, 50)  # 600 - 300, and 50 are only files
    root = system(tmp_path, "0::/jobs/mine\n", **inner, **outer)
    assert memory.available_bytes(root) == 350 * MIB


def test_without_a_limit_the_system_counts(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/jobs\n", **group("jobs/", "max\n", 100, 0))
    assert memory.available_bytes(root) == 1000 * MIB


@pytest.mark.parametrize(
    ("path", "expected"),
    [("memory/pods/mine/", 140), ("memory/", 140), ("memory/pods/other/", 1000)],
    ids=["by its path", "as a container sees it", "none of ours"],
)
def test_groups_of_the_first_version(tmp_path: Path, path: str, expected: int) -> None:
    files = group(path, f"{500 * MIB}\n", 400, 40, first=True)
    root = system(tmp_path, "9:cpuset:/\n4:memory:/pods/mine\n0::/\n", **files)
    assert memory.available_bytes(root) == expected * MIB


def test_where_nothing_tells_half_of_all_counts(tmp_path: Path) -> None:
    whole = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal")
    )
    assert memory.available_bytes(tmp_path) == pytest.approx(whole / 2, rel=0.01)
    assert 0 < memory.available_bytes() <= whole
