"""Processor threads: how many there are, how many NumPy's products get, and work for them that comes in pieces."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_threads() -> int:
    """How many threads can run at the same time."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_BLAS_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def pin_numpy_threads(threads: int) -> None:
    """Gives NumPy's matrix products so many threads; to be called before NumPy is imported for the first time.

    One is what sampling a single text wants unless the processor is otherwise idle: the products are so small that a
    second thread pays only if it never waits. With two programs that sample on two threads each, on two
    processors, a token took 40 times as long; with one, 512 units took 0.6 times as long (benchmarks/LOG.md).
    """
    os.environ.update(dict.fromkeys(_BLAS_VARIABLES, str(threads)))


def pinned_numpy_threads() -> int:
    """How many `pin_numpy_threads`, or the user, has given NumPy's products; 1 if nobody has said."""
    value = os.environ.get(_BLAS_VARIABLES[0], "")
    return int(value) if value.isdecimal() else 1


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`function` of each item, in order, computed on `threads` threads while the caller's makes the items.

    No more items than one beyond the threads are in memory at a time. With one thread the calls come one after the
    other, too. It pays where the function leaves Python's lock to others, as NumPy's and hashlib's do.
    """
    from concurrent.futures import ThreadPoolExecutor  # here: most who import this page need no pool

    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Result]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= threads + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
