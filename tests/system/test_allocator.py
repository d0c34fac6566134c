"""Memory that is free is used again, or goes back to the system."""

import subprocess
import sys

import pytest

GIVING_BACK = """
from quickfox.system.allocator import give_back_free_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1])

texts = [bytes([65 + k % 26]) * 60_000 for k in range(2000)]  # 120 MB, each too small to be mapped by itself
full = resident()
del texts[:-1]
give_back_free_memory()
print(resident() / full)
"""


REUSING = """
import resource
from quickfox.system.allocator import reused_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in range(2**20, 2**20 + 200 * 2**12, 2**12):  # 1 MiB each: by itself, glibc maps and unmaps such pieces
        bytes(b"x" * size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_itself = page_faults()
with reused_memory():
    page_faults()
    print(page_faults() / by_itself)
"""

only_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc, and at glibc")


@only_linux
def test_freed_memory_is_given_back_though_what_came_last_is_kept() -> None:
    ended = subprocess.run([sys.executable, "-c", GIVING_BACK], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 0.5


@only_linux
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    ended = subprocess.run([sys.executable, "-c", REUSING], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 0.2
