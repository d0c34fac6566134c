"""Threads, and the features and speed of the processor."""

import gc
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from quickfox.errors import UsageError
from quickfox.system.threads import available_threads
from quickfox.training import tensorflow_runtime
from quickfox.training.tensorflow_runtime import (
    matmul_speed,
    paused_garbage_collection,
    preferred_precision,
    start_tensorflow,
    vector_extensions,
)


@pytest.mark.parametrize(
    ("flags", "precision"), [("fma avx512_bf16 amx_bf16 amx_tile", "bfloat16"), ("fma avx512_bf16", "float32")]
)
def test_bfloat16_is_preferred_only_with_amx(
    flags: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information = tmp_path / "cpuinfo"
    information.write_text(f"processor: 0\nflags: {flags}\n", encoding="utf-8")
    monkeypatch.setattr(tensorflow_runtime, "CPU_INFORMATION", information)
    assert preferred_precision() == precision
    assert vector_extensions() == sorted(flags.split())


def test_float32_is_preferred_without_processor_information(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow_runtime, "CPU_INFORMATION", tmp_path / "missing")
    assert preferred_precision() == "float32"


def test_the_number_of_threads_cannot_change() -> None:
    start_tensorflow(threads=2)  # as in conftest.py
    with pytest.raises(UsageError, match="3 threads"):
        start_tensorflow(threads=3)


def test_matmul_speed_is_plausible() -> None:
    assert 1e7 < matmul_speed("float32", available_threads()) < 1e16


def test_threads_beyond_the_processors_add_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(tensorflow_runtime, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(tensorflow_runtime, "available_threads", lambda: 2)
    one, two, many = (matmul_speed("float32", threads) for threads in (1, 2, 64))
    assert two == 2 * one
    assert many == two


def test_what_is_made_while_garbage_collection_is_paused_counts_as_old() -> None:
    with paused_garbage_collection():
        assert not gc.isenabled()
        made = [[number] for number in range(1000)]
    assert gc.isenabled()
    old = set(map(id, gc.get_objects(generation=2)))
    assert old.issuperset(map(id, made))


def test_garbage_collection_that_was_disabled_stays_so() -> None:
    gc.disable()
    try:
        with paused_garbage_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
