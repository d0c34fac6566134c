"""A fixture that makes runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from written_runs import write_run

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes a run; see `write_run`."""
    return lambda name="run", **options: write_run(tmp_path, name, **options)
