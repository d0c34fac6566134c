"""The processors that this process may run on."""

import os


def available_threads() -> int:
    """How many threads can run at the same time."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
