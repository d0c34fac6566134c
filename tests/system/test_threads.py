"""Available threads under CPU quotas; map_ahead: results in order, few items in memory, exceptions passed on."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from quickfox.system.threads import available_threads, choose_threads, map_ahead


def test_threads_beyond_those_available_are_not_used() -> None:
    warnings: list[str] = []
    available = available_threads()
    assert [choose_threads(requested, warnings.append) for requested in (None, 1, available)] == [
        available,
        1,
        available,
    ]
    assert not warnings
    assert choose_threads(available + 62, warnings.append) == available
    assert warnings == [
        f"warning: of {available + 62} threads, only the {available} available to this process are used"
    ]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_results_are_in_the_order_of_the_items(threads: int, count: int) -> None:
    assert list(map_ahead(lambda item: item * 2, range(count), threads)) == [2 * item for item in range(count)]


def test_with_one_thread_the_calls_are_in_order() -> None:
    calls: list[int] = []
    list(map_ahead(calls.append, range(50), threads=1))
    assert calls == list(range(50))


def test_at_most_one_item_more_than_threads_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            made.append(item)
            yield item

    results = map_ahead(lambda item: item, items(), threads=2)
    next(results)
    assert len(made) == 3


def test_the_function_runs_on_another_thread() -> None:
    results = map_ahead(lambda _: threading.current_thread(), [0], threads=1)
    assert next(results) is not threading.current_thread()


def test_an_exception_of_the_function_is_raised() -> None:
    def fail(item: int) -> None:
        raise OSError(f"item {item}")

    with pytest.raises(OSError, match="item 0"):
        list(map_ahead(fail, range(10), threads=2))


@pytest.fixture
def eight_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def make_group(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A root directory with this /proc/self/cgroup and these files below /sys/fs/cgroup."""
    for name, content in {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{n}": c for n, c in files.items()}}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.usefixtures("eight_processors")
@pytest.mark.parametrize(
    ("cgroup", "files", "threads"),
    [
        ("", {}, 8),
        ("0::/app\n", {"app/cpu.max": "max 100000\n"}, 8),
        ("0::/app\n", {"app/cpu.max": "200000 100000\n"}, 2),
        ("0::/app\n", {"app/cpu.max": "350000 100000\n"}, 3),
        ("0::/app\n", {"app/cpu.max": "20000 100000\n"}, 1),  # less than one processor
        ("0::/app\n", {"app/cpu.max": "6400000 100000\n"}, 8),  # more than there are
        ("0::/slice/app\n", {"slice/app/cpu.max": "max 100000\n", "slice/cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/of/the/host\n", {"cpu.max": "400000 100000\n"}, 4),  # a container that sees its own group as the root
        ("4:memory:/a\n", {"memory/a/cpu.cfs_quota_us": "100000", "memory/a/cpu.cfs_period_us": "100000"}, 8),
        ("2:cpu,cpuacct:/a\n", {"cpu,cpuacct/a/cpu.cfs_quota_us": "-1\n"}, 8),
        (
            "2:cpu,cpuacct:/a\n1:cpuset:/\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "50000\n"},
            5,
        ),
    ],
)
def test_threads_stay_within_the_quota_of_the_control_group(
    tmp_path: Path, cgroup: str, files: dict[str, str], threads: int
) -> None:
    assert available_threads(make_group(tmp_path, cgroup, files)) == threads


@pytest.mark.usefixtures("eight_processors")
def test_without_control_groups_all_processors_are_available(tmp_path: Path) -> None:
    assert available_threads(tmp_path) == 8
