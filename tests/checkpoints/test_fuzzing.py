"""Readers load or refuse any bytes: no traceback, no hang, little memory."""

import random
import tracemalloc

import pytest

from file_readers import file_readers
from mutations import Reader, mutate, try_inputs
from text_readers import text_readers

INPUTS, TRACED_INPUTS = 100, 20  # per reader; benchmarks/fuzz_readers.py has thousands
OFTEN_LOADED = (".txt", ".tsv", ".html", ".xhtml", "mimetype")
"""Names of formats that few mutations damage."""


@pytest.fixture(scope="module")
def all_readers(tmp_path_factory: pytest.TempPathFactory) -> list[Reader]:
    folder = tmp_path_factory.mktemp("fuzzing")
    return [*file_readers(folder / "run"), *text_readers(folder)]


def test_undamaged_files_are_loaded(all_readers: list[Reader]) -> None:
    for reader in all_readers:
        reader.read(reader.seed)


def test_damaged_files_are_loaded_or_refused(all_readers: list[Reader]) -> None:
    for reader in all_readers:
        outcome = try_inputs(reader, INPUTS)
        assert outcome.failures == [], reader.name
        assert outcome.loaded + outcome.refused == INPUTS
        if not reader.name.endswith(OFTEN_LOADED):
            assert outcome.refused > INPUTS // 4, reader.name


def test_damaged_files_need_little_memory(all_readers: list[Reader]) -> None:
    tracemalloc.start()  # triples the time
    try:
        for reader in all_readers:
            tracemalloc.reset_peak()
            outcome = try_inputs(reader, TRACED_INPUTS, random_seed=1)
            assert outcome.failures == [], reader.name
            assert tracemalloc.get_traced_memory()[1] < 20 * 2**20, reader.name
    finally:
        tracemalloc.stop()


def test_mutations_are_reproducible() -> None:
    first, second = (mutate(b'{"a": 1, "b": [2, 3]}', random.Random(7)) for _ in range(2))
    assert first == second
