"""Memory that is free goes back to the system."""

import subprocess
import sys

import pytest

SCRIPT = """
from quickfox.allocator import give_back_free_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1])

texts = [bytes([65 + k % 26]) * 60_000 for k in range(2000)]  # 120 MB, each too small to be mapped by itself
full = resident()
del texts[:-1]
give_back_free_memory()
print(resident() / full)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_freed_memory_is_given_back_though_what_came_last_is_kept() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 0.5
