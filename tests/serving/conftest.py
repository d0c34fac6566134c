"""A server for all tests of this folder."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from ngram_models import mix_with_ngrams, ngram_bundle
from quickfox.checkpoints.checkpoint import load_model, save_checkpoint
from quickfox.text.chat import parse_conversation
from quickfox.text.vocabulary import build_vocabulary, count_characters
from quickfox.tokenizers.character import CharacterTokenizer
from running_server import RunningServer, run_server


@pytest.fixture(scope="session")
def mixture_directory(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    """A model directory with random weights, mixed with n-grams."""
    directory = tmp_path_factory.mktemp("models") / "mixture"
    save_checkpoint(directory, mix_with_ngrams(load_model(model_directory), "the quick brown fox\n" * 3, 3), None)
    return directory


@pytest.fixture(scope="session")
def chat_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory of n-grams of conversations, whose most probable answer is "the fox"."""
    messages = [{"role": "user", "content": "what jumps?"}, {"role": "assistant", "content": "the fox"}]
    text = parse_conversation(messages, "").text * 3
    tokenizer = CharacterTokenizer(build_vocabulary(count_characters([text]), 1)).with_end_of_text()
    directory = tmp_path_factory.mktemp("models") / "chat"
    save_checkpoint(directory, dataclasses.replace(ngram_bundle(tokenizer, text, 6), is_chat=True), None)
    return directory


@pytest.fixture(scope="session")
def server(model_directory: Path, mixture_directory: Path, chat_directory: Path) -> Iterator[RunningServer]:
    """A server of the models "random", "mixture" and "chat" that accepts small requests only."""
    with run_server(model_directory, mixture_directory, chat_directory, "--max-length", 2000) as running:
        yield running
