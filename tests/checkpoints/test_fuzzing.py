"""Readers load or refuse any bytes: no traceback, no hang, little memory."""

import random
import tracemalloc

import pytest

from mutations import Reader, mutate, readers, try_inputs

INPUTS, TRACED_INPUTS = 250, 60  # per reader; benchmarks/fuzz_readers.py has thousands


@pytest.fixture(scope="module")
def all_readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return {reader.name: reader for reader in readers(tmp_path_factory.mktemp("fuzzing") / "run")}


NAMES = (
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    "generation_config.json",
    "training.safetensors",
    "state.json",
    "model.safetensors with n-gram tables",
    "manifest.json",
    "manifest.json with a valid sha256",
    "vocabulary file, char",
    "vocabulary file, word",
    "vocabulary file, bpe",
    "run.json",
    "history.jsonl",
)


def test_every_reader_has_a_test(all_readers: dict[str, Reader]) -> None:
    assert set(all_readers) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_undamaged_files_are_loaded(all_readers: dict[str, Reader], name: str) -> None:
    all_readers[name].read(all_readers[name].seed)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_loaded_or_refused(all_readers: dict[str, Reader], name: str) -> None:
    outcome = try_inputs(all_readers[name], INPUTS)
    assert outcome.failures == []
    assert outcome.loaded + outcome.refused == INPUTS
    assert outcome.refused > INPUTS // 2, "most mutations must be detected"


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_need_little_memory(all_readers: dict[str, Reader], name: str) -> None:
    tracemalloc.start()  # triples the time
    try:
        outcome = try_inputs(all_readers[name], TRACED_INPUTS, random_seed=1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.failures == []
    assert peak < 20 * 2**20


def test_mutations_are_reproducible() -> None:
    first, second = (mutate(b'{"a": 1, "b": [2, 3]}', random.Random(7)) for _ in range(2))
    assert first == second
