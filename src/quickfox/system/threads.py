"""Processor threads: how many are available, how many NumPy uses, and a map that runs on several."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_threads(root: Path = Path("/")) -> int:
    """Number of threads that can run at the same time: processors of this process, within its control group's quota.

    Args:
        root: directory in which proc and sys are mounted.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([processors, *map(int, _cpu_quotas(root))]))


def choose_threads(requested: int | None, warn: Callable[[str], None]) -> int:
    """The number of threads to use: as requested, by default all that are available, and never more.

    Args:
        requested: None: not requested.
        warn: receives a message if more are requested than are available.
    """
    available = available_threads()
    if requested is not None and requested > available:
        warn(f"warning: of {requested} threads, only the {available} available to this process are used")
    return min(requested or available, available)


def _cpu_quotas(root: Path) -> Iterator[float]:
    """The CPU quotas, in processors, of this process's control groups (versions 1 and 2) and of their ancestors."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux: there are no control groups
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / controllers
        directory = mount / group.lstrip("/")
        for ancestor in (directory, *directory.parents[: len(directory.parents) - len(mount.parents)]):
            quota, period = _read_quota(ancestor, is_version_2=not controllers)
            if quota not in ("", "max", "-1"):
                yield int(quota) / int(period)


def _read_quota(group: Path, *, is_version_2: bool) -> tuple[str, str]:
    """Quota and period of a control group in microseconds; empty if it has none that can be read."""
    names = ["cpu.max"] if is_version_2 else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
    try:
        quota, period = " ".join((group / name).read_text() for name in names).split()
    except OSError:  # the root group and groups without this controller have no such file
        return "", ""
    return quota, period


_BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def pin_numpy_threads(threads: int) -> None:
    """Sets the number of threads of NumPy's matrix products; call it before NumPy is first imported.

    Sampling a single text uses 1: its products are so small that a second thread pays only on an idle processor. With
    two sampling programs of two threads each on two processors a token took 40 times as long; with one program, a
    model of 512 units took 0.6 times as long (benchmarks/LOG.md).
    """
    os.environ.update(dict.fromkeys(_BLAS_VARIABLES, str(threads)))


def pinned_numpy_threads() -> int:
    """Number of threads that `pin_numpy_threads`, or the user, has set for NumPy; 1 by default."""
    value = os.environ.get(_BLAS_VARIABLES[0], "")
    return int(value) if value.isdecimal() else 1


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yields `function(item)` in order, computed on `threads` threads while the caller's thread makes the items.

    At most `threads` + 1 items are in memory. With one thread the calls are in order, too. Useful for functions that
    release the interpreter lock, as NumPy's and hashlib's do.
    """
    from concurrent.futures import ThreadPoolExecutor  # slow to import, and most importers need no pool

    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= threads + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
