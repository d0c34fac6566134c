"""Whatever bytes a file holds, its reader loads or refuses them: no traceback, no hang, little memory."""

import random
import tracemalloc

import pytest

from mutations import Reader, mutate, readers, try_inputs

INPUTS = 250  # a reader; benchmarks/fuzz_readers.py tries thousands


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
    "manifest.json",
    "manifest.json with a valid sha256",
    "vocabulary file, char",
    "vocabulary file, word",
    "vocabulary file, bpe",
    "run.json",
    "history.jsonl",
)


def test_no_reader_is_forgotten(all_readers: dict[str, Reader]) -> None:
    assert set(all_readers) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_undamaged_is_loaded(all_readers: dict[str, Reader], name: str) -> None:
    all_readers[name].read(all_readers[name].seed)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_loaded_or_refused(all_readers: dict[str, Reader], name: str) -> None:
    tracemalloc.start()
    try:
        outcome = try_inputs(all_readers[name], INPUTS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcome.failures == []
    assert outcome.loaded + outcome.refused == INPUTS
    assert outcome.refused > INPUTS // 2, "most damage must be seen"
    assert peak < 20 * 2**20


def test_the_same_random_seed_damages_alike() -> None:
    first, second = (mutate(b'{"a": 1, "b": [2, 3]}', random.Random(7)) for _ in range(2))
    assert first == second
