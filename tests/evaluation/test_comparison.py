"""Losses by blocks: their sums are those of an evaluation, whatever the tokenizer."""

from collections import Counter

import numpy as np
import pytest

from quickfox.data.encoding import EncodedChunk, encode_chunks
from quickfox.evaluation.bootstrap import compare
from quickfox.evaluation.comparison import BLOCKS, bits_per_byte, block_losses
from quickfox.evaluation.perplexity import evaluate
from quickfox.text.vocabulary import Vocabulary
from quickfox.tokenizers.byte_level import ByteTokenizer
from quickfox.tokenizers.character import CharacterTokenizer
from toy_models import fixed_distribution, random_lstm

TEXT = "abbaä" * 100
CHARACTERS = CharacterTokenizer(Vocabulary(("a", "b", "ä")))


def test_the_blocks_of_a_text_sum_to_its_evaluation() -> None:
    model = random_lstm(3)
    losses = block_losses(model, CHARACTERS, encode_chunks([TEXT], CHARACTERS))
    assert losses.shape == (BLOCKS, 2)
    expected = evaluate(model, CHARACTERS, encode_chunks([TEXT], CHARACTERS)).bits_per_byte
    assert bits_per_byte(losses.sum(axis=0))["bits_per_byte"] == pytest.approx(expected, rel=1e-5)


def test_models_with_different_tokenizers_are_compared() -> None:
    characters = block_losses(fixed_distribution(0.4, 0.4, 0.2), CHARACTERS, encode_chunks([TEXT], CHARACTERS))
    tokenizer = ByteTokenizer()
    uniform = fixed_distribution(*[1 / tokenizer.vocabulary_size] * tokenizer.vocabulary_size)
    single_bytes = block_losses(uniform, tokenizer, encode_chunks([TEXT], tokenizer))
    result = compare(characters, single_bytes, bits_per_byte)["bits_per_byte"]
    assert result.second == pytest.approx(np.log2(tokenizer.vocabulary_size), rel=1e-5)
    assert 0 < result.difference.low < result.difference.value < result.difference.high


def test_unknown_characters_count_with_their_own_bytes() -> None:
    tokenizer = CHARACTERS.with_unknown_token(Counter("aab"))
    text = "ab1" * 100
    model = fixed_distribution(*[1 / tokenizer.vocabulary_size] * tokenizer.vocabulary_size)
    unknown: Counter[str] = Counter()
    losses = block_losses(model, tokenizer, encode_chunks([text], tokenizer, unknown))
    assert losses[:, 1].sum() == len(text) - 1
    expected = evaluate(model, tokenizer, encode_chunks([text], tokenizer, unknown)).bits_per_byte
    assert bits_per_byte(losses.sum(axis=0))["bits_per_byte"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("text", ["abba", "äb" * 10])
def test_short_texts_have_as_many_blocks_with_every_tokenizer(text: str) -> None:
    tokenizer = ByteTokenizer()
    uniform = fixed_distribution(*[1 / tokenizer.vocabulary_size] * tokenizer.vocabulary_size)
    characters = block_losses(fixed_distribution(0.4, 0.4, 0.2), CHARACTERS, encode_chunks([text], CHARACTERS))
    assert characters.shape == block_losses(uniform, tokenizer, encode_chunks([text], tokenizer)).shape


def test_a_document_is_a_block_of_its_targets() -> None:
    tokenizer = CHARACTERS.with_end_of_text()
    end = tokenizer.end_of_text
    chunks = [
        EncodedChunk("", np.array([end]), np.array([False])),
        EncodedChunk("ab", np.array([0, 1, end]), np.array([False, True, True])),
        EncodedChunk("ä", np.array([2, end]), np.array([True, True])),
    ]
    losses = block_losses(fixed_distribution(0.25, 0.25, 0.25, 0.25), tokenizer, chunks)
    assert losses == pytest.approx(np.array([[4.0, 1.0], [4.0, 2.0]]), rel=1e-5)
